"""Recurrent memory cells behind one protocol: fast weights, ReLU RNN (IRNN), LSTM, GRU, associative LSTM, delta net."""

from importlib import import_module
from pkgutil import iter_modules

from fw_rl.cells.associative_lstm import AssociativeLSTMCell
from fw_rl.cells.backends import AcceleratedCell, Backend, register_backend
from fw_rl.cells.base import Cell, State, Stepper, available_cells, find_cell, make_cell, register_cell
from fw_rl.cells.delta_net import DeltaNetCell
from fw_rl.cells.fast_weights import FastWeightsCell
from fw_rl.cells.gru import GRUCell
from fw_rl.cells.lstm import LSTMCell
from fw_rl.cells.pair import CellPair
from fw_rl.cells.rnn import RNNCell

__all__ = [
    "AcceleratedCell",
    "AssociativeLSTMCell",
    "Backend",
    "Cell",
    "CellPair",
    "DeltaNetCell",
    "FastWeightsCell",
    "GRUCell",
    "LSTMCell",
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
