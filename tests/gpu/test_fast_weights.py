"""Triton's kernels of the net with fast weights beside its steps in plain Torch."""

import copy

import pytest
import torch
from torch.testing import assert_close

from fw_rl.cells import FastWeightsCell, fast_weights_triton
from fw_rl.cells.fast_weights_triton import TritonFastWeights
from tests.cells.reference import rand, scrambled
from tests.pairwise import pairwise

pytestmark = pytest.mark.gpu

T, B, I, H = 4, 2, 3, 5  # noqa: E741
TOLERANCES = {torch.float64: dict(rtol=1e-8, atol=1e-9), torch.float32: dict(rtol=1e-3, atol=2e-4)}
NORMS = {
    "of the sum": {},
    "of h_0 too": dict(norm_placement="all"),
    "of the recall": dict(norm_placement="recall"),
    "none": dict(layer_norm=False),
}
STATES = {"nothing yet": (3, 0), "pending writes": (9, 2), "matrix and pending writes": (1, 3), "matrix": (0, 2)}


def signals_of(kind, steps):
    chance = torch.rand(3, steps, B, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    starts = dict(episode_starts=chance[0] < 0.25)
    return {"none": {}, "starts": starts}.get(kind, starts | dict(write_gate=chance[1], wipe=chance[2] < 0.3))


def used_state(cell, steps):
    with torch.no_grad():
        state = cell.initial_state(B)
        return cell.unroll(rand(steps, B, I, seed=1), state)[1] if steps else state


def numbers_and_gradients(run, cell, x, state, signals):
    """What a sequence gives, and the gradients of a loss that is also of the two steps after it."""
    x, state = x.clone().requires_grad_(), tuple(part.clone().requires_grad_() for part in state)
    y, last = run(x, state, **signals)
    later, _ = cell.unroll(rand(2, B, I, seed=5).to(x), last)
    loss = sum((part * rand(*part.shape, seed=6).to(part)).sum() for part in (y, later))
    wanted = [x, *(part for part in cell.parameters() if part.requires_grad), *state]
    found = [y, *last, *torch.autograd.grad(loss, wanted, materialize_grads=True)]
    return [part.detach().cpu().double() for part in found]


def assert_same(cell, x, state, signals, dtype, device):
    expected = numbers_and_gradients(cell.unroll, cell, x, state, signals)
    own = copy.deepcopy(cell).to(device, dtype)
    x, *state = (part.to(device, dtype) for part in (x, *state))
    signals = {name: part.to(device, dtype if part.is_floating_point() else None) for name, part in signals.items()}
    assert isinstance(own.backend(x), TritonFastWeights)
    assert_close(numbers_and_gradients(own, own, x, state, signals), expected, **TOLERANCES[dtype])


@pairwise(
    rule=["hebb", "delta", "oja"],
    window_and_history=STATES,
    learns_rates=[False, True],
    kind=["none", "starts", "starts, gate and wipes"],
    norm=NORMS,
    inner_steps=[1, 2],
    method=[1, 2],
    activation=["tanh", "relu"],
    dtype=[torch.float64, torch.float32],
)
def test_it_is_plain_torch_with_its_gradient(
    rule, window_and_history, learns_rates, kind, norm, inner_steps, method, activation, dtype, device
):
    window, history = window_and_history
    options = dict(rule=rule, window=window, learn_eta=learns_rates, learn_decay=learns_rates, inner_steps=inner_steps)
    cell = FastWeightsCell(I, H, eta=0.2, decay=0.8, method=method, activation=activation, **options, **norm)
    cell = scrambled(cell, scale=0.5)
    assert_same(cell, rand(T, B, I, seed=3), used_state(cell, history), signals_of(kind, T), dtype, device)


@pytest.mark.parametrize("decay, steps", [(0.0, 3), (0.02, 13), (1.0, 3)])
def test_writes_are_lost_in_rounding_after_few_steps_or_never(decay, steps, device):
    cell = scrambled(FastWeightsCell(I, H, eta=0.2, decay=decay, rule="delta"), scale=0.5)
    assert_same(cell, rand(steps, B, I, seed=3), used_state(cell, 2), {}, torch.float64, device)


@pytest.mark.parametrize("size", [1, 16, 130])
def test_any_number_of_units(size, device):
    cell = scrambled(FastWeightsCell(I, size, eta=0.2, decay=0.8, window=1), scale=0.3)
    assert_same(cell, rand(3, B, I, seed=3), used_state(cell, 2), signals_of("starts", 3), torch.float64, device)


def test_long_sequences_are_folded_in_between(device, monkeypatch):
    monkeypatch.setattr(fast_weights_triton, "_LONGEST", 3)
    cell = scrambled(FastWeightsCell(I, H, eta=0.2, decay=0.8, window=2, learn_decay=True), scale=0.5)
    signals = signals_of("starts, gate and wipes", 7)
    assert_same(cell, rand(7, B, I, seed=3), used_state(cell, 2), signals, torch.float64, device)


def test_nothing_crosses_an_episode_start(device):
    cell = scrambled(FastWeightsCell(I, H, decay=0.8, window=1)).to(device)
    x, starts = rand(4, B, I, seed=3).to(device), torch.zeros(4, B, dtype=torch.bool, device=device)
    starts[2, 1] = True
    state = tuple(part.to(device).requires_grad_() for part in used_state(copy.deepcopy(cell).cpu(), 3))
    expected, _ = cell(x, state, starts)
    gradients = torch.autograd.grad(expected[2:].sum(), state, materialize_grads=True)
    assert not any(part[1].any() for part in gradients) and gradients[0][0].all()
    with torch.no_grad():
        broken = tuple(part.index_fill(0, torch.tensor([1], device=device), float("nan")) for part in state)
        y, last = cell(x, broken, starts)
    assert_close(y[2:], expected[2:])
    assert all(part.isfinite().all() for part in last)


def test_the_layout_of_a_state_does_not_matter(device):
    cell = scrambled(FastWeightsCell(I, H, eta=0.2, decay=0.99, window=1)).to(device)
    x = rand(4, B, I, seed=3).to(device)
    state = tuple(part.to(device) for part in used_state(copy.deepcopy(cell).cpu(), 3))
    scattered = tuple(torch.stack([part, 7 + part], dim=-1)[..., 0] for part in state)
    assert not any(part.is_contiguous() for part in scattered)
    assert_close(cell(x, scattered), cell(x, state))


def test_steps_act_as_the_sequence(device):
    cell = scrambled(FastWeightsCell(I, H, decay=0.8, window=1)).to(device)
    x, starts = rand(4, B, I, seed=3).to(device), signals_of("starts", 4)["episode_starts"].to(device)
    expected, last = cell(x, cell.initial_state(B), starts)
    stepper = cell.stepper(cell.initial_state(B))
    assert_close(torch.stack([stepper.step(x[t], starts[t]) for t in range(4)]), expected)
    assert_close(cell.unroll(x, stepper.state)[0], cell.unroll(x, last)[0])


def test_more_units_than_a_program_holds_take_plain_torch(device):
    cell = FastWeightsCell(I, 1025).to(device)
    assert not isinstance(cell.backend(torch.zeros(1, 1, I, device=device)), TritonFastWeights)


def test_a_second_derivative_is_refused(device):
    cell, x = FastWeightsCell(I, H).to(device), rand(T, B, I).float().to(device)
    with pytest.raises(RuntimeError, match=r"^create_graph must be False for the kernels of a cell"):
        torch.autograd.functional.hvp(lambda x: cell(x)[0].square().sum(), x, x)
