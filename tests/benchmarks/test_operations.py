"""The counted operations beside a count by hand."""

import sys
from pathlib import Path

import torch

from fw_rl.agents import RecurrentA2C
from fw_rl.cells import make_cell
from fw_rl.envs import CatchVectorEnv

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from operations import counted


def test_a_matrix_product_both_ways():
    layer, x = torch.nn.Linear(5, 7, bias=False), torch.randn(3, 5, requires_grad=True)
    with counted() as operations:
        layer(x).sum().backward()
    assert operations.total == 3 * 2 * 3 * 5 * 7


def test_rollouts_of_one_episode():
    steps, pixels, encoded, hidden = 7, 64, 128, 16
    memory = dict(cell="fast-weights", hidden_size=hidden, cell_kwargs=dict(eta=0.1, decay=0.5))
    memory |= dict(encoder_arch=[encoded], shared_cell=True, net_arch=[])
    model = RecurrentA2C("RecurrentPolicy", CatchVectorEnv(4, n=8, m=2), n_steps=steps, policy_kwargs=memory, device="cpu")
    with counted() as operations:
        model.learn(2 * 4 * steps, log_interval=None)

    encoder, cell, recurrent = pixels * encoded, encoded * hidden, hidden**2
    read = 2 * hidden * (steps - 1) / 2  # of the writes before, which are half of the others on average
    acting = encoder + cell + recurrent + read + 3 * hidden
    learning = encoder + cell + recurrent + read + 4 * hidden
    back = encoder + 2 * cell + 2 * recurrent + 8 * hidden + 2.5 * read  # itself, and three sums of what it sends to the writes
    assert operations.total == 2 * 4 * steps * 2 * (acting + learning + back)


def test_a_matrix_before_the_sequence_is_read_too():
    cell = make_cell("fast-weights", 3, 8, decay=0.5, window=0)
    _, state = cell(torch.randn(1, 4, 3), cell.initial_state(4))
    with torch.no_grad(), counted() as operations:
        cell(torch.randn(1, 4, 3), state)
    folded = 8 * 8  # after the step, its one write goes into the matrix
    assert operations.total == 2 * 4 * (3 * 8 + 8 * 8 + 8 * 8 + folded)
