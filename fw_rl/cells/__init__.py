"""Recurrent memory cells behind one protocol: fast weights, delta net, linear recurrences, gated nets, and layers of them."""

from importlib import import_module
from pkgutil import iter_modules

from fw_rl.cells.associative_lstm import AssociativeLSTMCell
from fw_rl.cells.backends import AcceleratedCell, Backend, register_backend
from fw_rl.cells.base import Cell, State, Stepper, available_cells, find_cell, register_cell
from fw_rl.cells.delta_net import DeltaNetCell
from fw_rl.cells.fast_weights import ASSOCIATIVE, BA16, FastWeightsCell
from fw_rl.cells.ffm import FFMCell
from fw_rl.cells.gru import GRUCell
from fw_rl.cells.lru import LRUCell
from fw_rl.cells.lru_delta_net import LRUDeltaNetCell
from fw_rl.cells.lstm import LSTMCell
from fw_rl.cells.make import make_cell
from fw_rl.cells.min_gru import MinGRUCell
from fw_rl.cells.pair import CellPair
from fw_rl.cells.rnn import RNNCell
from fw_rl.cells.shm import SHMCell
from fw_rl.cells.stack import Stack

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
    "LRUDeltaNetCell",
    "LSTMCell",
    "MinGRUCell",
    "RNNCell",
    "SHMCell",
    "Stack",
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
