"""Triton's kernels of the delta rule beside its form in plain Torch."""

import pytest
import torch
from torch.testing import assert_close

from fw_rl import memory
from fw_rl.cells import DeltaNetCell
from fw_rl.cells.delta_net_triton import TritonDeltaNet
from tests.cells.reference import rand, scrambled
from tests.pairwise import pairwise

pytestmark = pytest.mark.gpu

TOLERANCES = {torch.float64: dict(rtol=1e-8, atol=1e-9), torch.float32: dict(rtol=2e-4, atol=2e-5)}


def programme(shape, *, decays):
    """A matrix, queries, keys of unit length, values, strengths and decays that ask for their gradient."""
    steps, batch, heads, key_size, value_size = shape
    keys = torch.nn.functional.normalize(rand(2, steps, batch, heads, key_size, seed=1), dim=-1)
    rates = rand(2, steps, batch, heads, seed=2).sigmoid()
    values, matrix = rand(*shape[:3], value_size, seed=3), rand(batch, heads, value_size, key_size, seed=4)
    return [matrix, *keys, values, rates[0], *([rates[1]] if decays else [])]


def marks(kind, steps, batch):
    starts = rand(steps, batch, seed=5) < -0.8
    if kind == "with a chunk":
        starts[16:17] = True
    return None if kind == "none" else starts


@pairwise(
    corrects=[True, False],
    decays=[False, True],
    starts=["none", "random", "with a chunk"],
    shape=[(1, 1, 1, 1, 1), (18, 2, 1, 3, 5), (3, 1, 2, 17, 33)],
    dtype=[torch.float64, torch.float32],
)
def test_it_is_plain_torch_with_its_gradient(corrects, decays, starts, shape, dtype, device):
    marked, parts = marks(starts, *shape[:2]), programme(shape, decays=decays)
    expected = numbers_and_gradients(memory.write_and_read, parts, marked, corrects)
    own_starts = None if marked is None else marked.to(device)
    found = numbers_and_gradients(gpu_form(), [part.to(device, dtype) for part in parts], own_starts, corrects)
    assert_close([part.cpu().double() for part in found], expected, **TOLERANCES[dtype])


def gpu_form():
    from fw_rl.gpu.delta_rule import write_and_read

    return write_and_read


def numbers_and_gradients(run, parts, starts, corrects):
    leaves = [part.clone().requires_grad_() for part in parts]
    found = run(*leaves[:5], leaves[5] if len(leaves) > 5 else None, starts, corrects=corrects)
    loss = sum((part * rand(*part.shape, seed=6).to(part)).sum() for part in found)
    return [*found, *torch.autograd.grad(loss, leaves)]


def test_nothing_crosses_the_start_of_a_chunk(device):
    matrix, queries, keys, values, strengths = (part.to(device) for part in programme((2, 2, 1, 4, 4), decays=False))
    starts = torch.tensor([[False, True], [False, False]], device=device)
    matrix[1] = float("nan")
    matrix.requires_grad_()
    reads, after = gpu_form()(matrix, queries, keys, values, strengths, None, starts)
    assert reads.isfinite().all() and after.isfinite().all()
    (gradient,) = torch.autograd.grad(reads.sum() + after.sum(), matrix)
    assert gradient[0].all() and not gradient[1].any()


@pytest.mark.parametrize("keys, gated", [("input", True), ("output", False)])
def test_a_cell_takes_the_kernels(keys, gated, device):
    cell = scrambled(DeltaNetCell(3, 6, heads=2, keys=keys, gated=gated)).to(device)
    x, starts = rand(3, 2, 3, seed=1).to(device), torch.tensor([[0, 0], [0, 1], [0, 0]], device=device).bool()
    assert isinstance(cell.backend(x), TritonDeltaNet)
    state = tuple(rand(*part.shape, seed=2).to(device) for part in cell.initial_state(2))
    found, expected = cell(x, state, starts), cell.unroll(x, state, starts)
    gradients = [torch.autograd.grad(y.square().sum(), list(cell.parameters())) for y, _ in (found, expected)]
    assert_close([found, gradients[0]], [expected, gradients[1]], rtol=1e-8, atol=1e-9)


def test_heads_that_are_too_large_take_plain_torch(device):
    cell = DeltaNetCell(3, 256, heads=1).to(device)
    assert not isinstance(cell.backend(torch.zeros(1, 1, 3, device=device)), TritonDeltaNet)


def test_a_second_derivative_is_refused(device):
    cell, x = DeltaNetCell(3, 8).to(device), rand(4, 2, 3).float().to(device)
    with pytest.raises(RuntimeError, match=r"^create_graph must be False for the kernels of a cell"):
        torch.autograd.functional.hvp(lambda x: cell(x)[0].square().sum(), x, x)
