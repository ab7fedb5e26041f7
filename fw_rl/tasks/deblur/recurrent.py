"""The question of HP87 put to a recurrent cell: the same simulation, with sequences as the inputs of the associations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fw_rl.cells import Cell, make_cell
from fw_rl.fast_slow import fast_slow
from fw_rl.tasks.deblur.simulation import Ensemble, Protocol

__all__ = ["SequenceNet", "recurrent_nets"]


class SequenceNet(nn.Module):
    """A cell that reads a sequence, and sigmoid output units that look at its last state: x [N, T, I] to y [N, O]."""

    def __init__(self, cell: Cell, output_size: int) -> None:
        super().__init__()
        self.cell = cell
        self.head = nn.Linear(cell.hidden_size, output_size)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(x.transpose(0, 1), self.cell.initial_state(len(x)))
        return torch.sigmoid(self.head(y[-1]))


def recurrent_nets(protocol: Protocol, eta: float, decay: float) -> Ensemble:
    """Fast-weight cells of `hidden` units as they are initialised; with an eta of 0 they are ReLU nets without a memory A.

    Every slow parameter W of theirs becomes a slow and a fast weight (HP87). The fast weights A (Ba16) are something else: they
    hold what one sequence has shown so far.
    """
    nets = []
    for seed in range(protocol.seed, protocol.seed + protocol.seeds):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            cell = make_cell("fast-weights", protocol.inputs, protocol.hidden, eta=eta, decay=decay)
            nets.append(fast_slow(SequenceNet(cell, protocol.outputs)))
    return Ensemble(nets)
