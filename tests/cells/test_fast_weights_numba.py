"""Long sequences in the compiled form, which folds the memory between stretches, beside the plain one, step by step."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from fw_rl.cells import BA16, FastWeightsCell, fast_weights_numba
from fw_rl.kernels import tanh
from tests.cells.reference import rand, scrambled
from tests.pairwise import pairwise

B, I, H = 3, 2, 4  # noqa: E741
PaperCell = partial(FastWeightsCell, **BA16)
STATES = {
    "nothing yet": (3, 0),
    "pending writes": (8, 5),
    "as many writes as a stretch has steps": (6, 6),
    "matrix and pending writes": (3, 6),
    "matrix at every step": (0, 2),
}


@pytest.fixture(autouse=True)
def stretches_of_six_steps(monkeypatch):
    monkeypatch.setattr(fast_weights_numba, "_LONGEST", 6)


def step_by_step(cell, x, state, **signals):
    return cell.unroll(x, state, **signals)


def loss_of_what_follows(cell, y, state):
    """Some of it is of the state: of what the steps after the sequence read."""
    later, _ = step_by_step(cell, rand(2, B, I, seed=5), state)
    return sum((part * rand(*part.shape, seed=6)).sum() for part in (y, later))


def used_state(cell, steps):
    with torch.no_grad():
        _, state = step_by_step(cell, rand(steps, B, I, seed=1), cell.initial_state(B)) if steps else (0, cell.initial_state(B))
    return tuple(part.requires_grad_() for part in state)


def signals_of(kind, steps):
    chance = torch.rand(3, steps, B, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    starts = chance[0] < 0.1
    if kind == "a start in all rows":
        starts[-2] = True
    signals = {"none": {}, "starts": dict(episode_starts=starts), "a start in all rows": dict(episode_starts=starts)}
    return signals.get(kind, dict(episode_starts=starts, write_gate=chance[1].round(decimals=1), wipe=chance[2] < 0.2))


@pairwise(
    steps=[7, 12, 20],
    kind=["none", "starts", "a start in all rows", "starts, gate and wipes"],
    window_and_history=STATES,
    inner_steps=[1, 2],
    decay=[0.8, 0.02],
)
def test_stretches_have_the_numbers_and_gradients_of_single_steps(inner_steps, window_and_history, kind, steps, decay):
    window, history = window_and_history
    cell = scrambled(PaperCell(I, H, eta=0.2, decay=decay, inner_steps=inner_steps, window=window), scale=0.5)
    x, state, signals = rand(steps, B, I, seed=3).requires_grad_(), used_state(cell, history), signals_of(kind, steps)
    found, expected = cell(x, state, **signals), step_by_step(cell, x, state, **signals)
    assert_close(found[0], expected[0])
    wanted = [x, *cell.parameters(), *state]
    gradients = [torch.autograd.grad(loss_of_what_follows(cell, *y), wanted, materialize_grads=True) for y in (found, expected)]
    assert gradients[0][0].all()
    assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["none", "starts"])
@pytest.mark.parametrize("window, history", STATES.values(), ids=STATES)
def test_known_outputs_have_the_same_gradient(window, history, kind):
    cell = scrambled(PaperCell(I, H, eta=0.2, decay=0.8, inner_steps=2, window=window), scale=0.5)
    x, state, starts = rand(20, B, I, seed=3).requires_grad_(), used_state(cell, history), signals_of(kind, 20)
    y, _ = step_by_step(cell, x, state, **starts)
    replayed = cell.replay(x, state, starts.get("episode_starts"), y.detach())
    assert_close(replayed, y)
    wanted, weights = [x, *cell.parameters(), *state], rand(*y.shape, seed=6)
    gradients = [torch.autograd.grad((part * weights).sum(), wanted, materialize_grads=True) for part in (replayed, y)]
    assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_the_gradient_of_the_memory_alone():
    """Where only the last state is asked for, no gradient comes by way of the outputs."""
    cell = scrambled(PaperCell(I, H, eta=0.2, decay=0.8, window=0), scale=0.5)
    x = rand(14, B, I, seed=3).requires_grad_()
    matrices = [run(x, cell.initial_state(B))[1][1] for run in (cell, lambda *parts: step_by_step(cell, *parts))]
    assert_close(*matrices)
    gradients = [torch.autograd.grad(matrix.square().sum(), [x, *cell.parameters()]) for matrix in matrices]
    assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_tanh_in_float32_is_exact_to_rounding():
    x = torch.cat([torch.linspace(-12, 12, 100_001), torch.tensor([1e-30, -torch.inf, torch.inf, torch.nan])])
    found = torch.empty_like(x)
    tanh(x.numpy(), found.numpy())
    assert (found - x.double().tanh())[:-1].abs().max() < 3e-7
    assert found[-1].isnan() and (found[:-1].abs() <= 1).all()
    assert_close(found[-4], x[-4], rtol=1e-6, atol=0)  # small numbers stay what they are
