"""Recurrent memory cells behind one protocol: fast weights, delta net, LRU, minGRU, FFM, LSTM, GRU, associative LSTM, IRNN."""

from importlib import import_module
from pkgutil import iter_modules

from fw_rl.cells.associative_lstm import AssociativeLSTMCell
from fw_rl.cells.backends import AcceleratedCell, Backend, register_backend
from fw_rl.cells.base import Cell, State, Stepper, available_cells, find_cell, make_cell, register_cell
from fw_rl.cells.delta_net import DeltaNetCell
from fw_rl.cells.fast_weights import ASSOCIATIVE, BA16, FastWeightsCell
from fw_rl.cells.ffm import FFMCell
from fw_rl.cells.gru import GRUCell
from fw_rl.cells.lru import LRUCell
from fw_rl.cells.lstm import LSTMCell
from fw_rl.cells.min_gru import MinGRUCell
from fw_rl.cells.pair import CellPair
from fw_rl.cells.rnn import RNNCell

__all__ = [
    "ASSOCIATIVE",
    "BA16",
    "AcceleratedCell",
    "AssociativeLSTMCell",
    "Backend",
    "Cell",
    "CellPair",
    "DeltaNetCell",
    "FFMCell",
    "FastWeightsCell",
    "GRUCell",
    "LRUCell",
    "LSTMCell",
    "MinGRUCell",
    "RNNCell",
    "State",
    "Stepper",
    "available_cells",
    "find_cell",
    "make_cell",
    "register_backend",
    "register_cell",
]

for _module in iter_modules(__path__):  # a file registers its cell, or a backend, and nothing else need know of it
    import_module(f"{__name__}.{_module.name}")
