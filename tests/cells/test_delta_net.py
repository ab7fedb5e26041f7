"""The delta net beside plain loops over its equations, and its compiled form beside plain Torch."""

import doctest
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fw_rl.cells import DeltaNetCell, delta_net, delta_net_numba, make_cell
from tests.cells.reference import rand, scrambled
from tests.pairwise import pairwise

T, B, I = 6, 2, 3  # noqa: E741


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def unit(x):
    return x / math.sqrt((x**2).sum() + 1e-6)


def reference(cell, x, starts):
    """The outputs [T, B, H] of the equations, one row and head after the other, each with an explicit matrix."""
    weight, bias = (part.detach().numpy() for part in (cell.input_map.weight, cell.input_map.bias))
    rate_weight, rate_bias = (part.detach().numpy() for part in (cell.rate_map.weight, cell.rate_map.bias))
    gain, output = cell.norm.weight.detach().numpy(), cell.output_map.weight.detach().numpy()
    skip, skip_bias = cell.skip_map.weight.detach().numpy(), cell.skip_map.bias.detach().numpy()
    outputs = np.zeros((*x.shape[:2], cell.hidden_size))
    for b in range(x.shape[1]):
        for t in range(len(x)):
            now = x[t, b].numpy()
            if t == 0 or starts[t, b]:
                A, y, last = np.zeros((cell.heads, cell.units, cell.units)), np.zeros(cell.hidden_size), np.zeros_like(now)
            seen = now if cell.mix is None else now + cell.mix.detach().numpy() * (last - now)
            seen, last = np.concatenate([seen, np.tanh(y)]) if cell.keys == "output" else seen, now
            queries, keys, gates, values = (weight @ seen + bias).reshape(4, cell.heads, cell.units)
            rates = sigmoid(rate_weight @ seen + rate_bias).reshape(-1, cell.heads)
            shown = []
            for n in range(cell.heads):
                key, query, decay = unit(silu(keys[n])), unit(silu(queries[n])), rates[1, n] if len(rates) > 1 else 1.0
                correction = values[n] - decay * A[n] @ key if cell.rule == "delta" else values[n]
                A[n] = decay * A[n] + rates[0, n] * np.outer(correction, key)
                read = A[n] @ query
                shown.append(gain * read / np.sqrt((read**2).mean() + 1e-5) * silu(gates[n]))
            outputs[t, b] = y = output @ np.concatenate(shown) + skip @ now + skip_bias
    return torch.from_numpy(outputs)


@pairwise(
    rule=["delta", "sum"],
    gated=[False, True],
    keys=["input", "output"],
    shift=[False, True],
    hidden_size=[8, 5],
    heads=[1, 2, 4],
)
def test_it_is_its_equations(rule, gated, keys, shift, hidden_size, heads):
    cell = scrambled(DeltaNetCell(I, hidden_size, heads=heads, rule=rule, gated=gated, keys=keys, shift=shift))
    x, starts = rand(T, B, I, seed=1), torch.zeros(T, B, dtype=torch.bool)
    starts[3, 1] = starts[4, 0] = True
    expected = reference(cell, x, starts)
    for run in (cell, cell.unroll):
        assert_close(run(x, cell.initial_state(B), starts)[0], expected, rtol=1e-9, atol=1e-9)


def gradients(run, cell, x, state, starts):
    y, last = run(x, state, starts)
    loss = sum((part * rand(*part.shape, seed=6)).sum() for part in (y, *last))
    return y, *last, *torch.autograd.grad(loss, [x, *state, *cell.parameters()])


@pairwise(
    rule=["delta", "sum"],
    gated=[False, True],
    keys=["input", "output"],
    shift=[False, True],
    units=[1, 3, 32],
    steps=[1, 9],
    starts=["none", "random", "everywhere"],
)
def test_kernels_have_the_numbers_and_gradients_of_plain_torch(rule, gated, keys, shift, units, steps, starts, monkeypatch):
    monkeypatch.setattr(delta_net_numba, "_EVERY", 4)
    cell = scrambled(DeltaNetCell(I, 2 * units, heads=2, rule=rule, gated=gated, keys=keys, shift=shift), scale=0.3)
    marks = {"none": None, "random": rand(steps, B, seed=4) < -0.7, "everywhere": torch.ones(steps, B, dtype=torch.bool)}
    state = tuple(rand(*part.shape, seed=3).requires_grad_() for part in cell.initial_state(B))
    given = cell, rand(steps, B, I, seed=2).requires_grad_(), state, marks[starts]
    found, expected = gradients(cell, *given), gradients(cell.unroll, *given)
    assert_close(found, expected, rtol=1e-8, atol=1e-9)


def test_kernels_in_float32_are_near_plain_torch():
    cell = DeltaNetCell(I, 128, gated=True)
    x, state = rand(40, B, I).float().requires_grad_(), cell.initial_state(B)
    found, expected = (
        torch.autograd.grad(run(x, state)[0].square().sum(), [x, *cell.parameters()]) for run in (cell, cell.unroll)
    )
    assert all((one - other).norm() < 1e-4 * other.norm() for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("keys", ["input", "output"])
def test_a_stepper_gives_the_sequence_and_leaves_states_alone(keys, shift):
    cell, x, starts = scrambled(DeltaNetCell(I, 8, keys=keys, shift=shift)), rand(T, B, I, seed=1), rand(T, B, seed=4) < -0.7
    state = tuple(rand(*part.shape, seed=3) for part in cell.initial_state(B))
    copies, stepper = [part.clone() for part in state], cell.stepper(state)
    expected, last = cell(x, state, starts)
    outputs, states = [], []
    for t in range(T):
        outputs.append(stepper.step(x[t], starts[t]))
        states.append((stepper.state, [part.clone() for part in stepper.state]))
    assert_close(torch.stack(outputs), expected)
    assert_close(stepper.state, last)
    assert_close(state, tuple(copies), rtol=0, atol=0)
    assert all(torch.equal(one, other) for kept, copied in states for one, other in zip(kept, copied, strict=True))


@pytest.mark.parametrize("keys", ["input", "output"])
def test_a_step_attends_to_the_step_that_wrote_its_key(keys):
    """Three keys, the inputs' own directions, are written and then asked for in another order."""
    cell = scrambled(DeltaNetCell(4, 4, heads=1, keys=keys), scale=0.0)
    with torch.no_grad():
        for part in (cell.input_map.weight[:4], cell.input_map.weight[4:8]):
            part[:, :4] = 20 * torch.eye(4)
        cell.rate_map.bias += 10.0
        cell.rate_map.weight[: cell.heads, 3] = -80.0  # a step that asks writes next to nothing
    asked = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 1, 2, 0]]
    asked[3:, 3] = 0.2
    attention = cell.attention(asked.unsqueeze(1), cell.initial_state(1))[:, 0]
    assert attention[3:, :3].argmax(1).tolist() == [1, 2, 0]
    assert attention[3:, :3].max(1).values.min() > 0.9
    assert not attention.triu().any()


def test_attention_ends_at_an_episode_start():
    cell, starts = scrambled(DeltaNetCell(I, 8, gated=True)), torch.zeros(T, B, dtype=torch.bool)
    starts[4, 0] = True
    attention = cell.attention(rand(T, B, I, seed=1), cell.initial_state(B), starts)
    assert attention.shape == (T, B, T)
    assert not attention[4:, 0, :4].any()
    assert attention[4:, 1, :4].all()


def test_the_first_input_of_an_episode_has_none_before_it():
    cell, starts = scrambled(DeltaNetCell(I, 8)), torch.zeros(1, B, dtype=torch.bool)
    starts[0, 1] = True
    x = rand(1, B, I, seed=1)
    state = tuple(rand(*part.shape, seed=3) for part in cell.initial_state(B))
    y, fresh = cell(x, state, starts)[0][0], cell(x, cell.initial_state(B))[0][0]
    assert_close(y[1], fresh[1])
    assert not torch.allclose(y[0], fresh[0])


def test_a_gated_memory_lasts_at_the_start():
    cell = DeltaNetCell(I, 8, gated=True)
    _, rates = cell._programme(torch.zeros(1, 1, I))
    assert_close(rates[0, 0, 1], torch.full((4,), 1 / (1 + math.exp(-5))))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(heads=0), "heads must be a whole number from 1, got 0"),
        (dict(heads=True), "heads must be of type int, got True"),
        (dict(rule="hebb"), "rule must be one of delta, sum, got 'hebb'"),
        (dict(keys="state"), "keys must be one of input, output, got 'state'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make_cell("delta-net", I, 8, **options)


def test_examples_in_the_docstrings():
    tested = doctest.testmod(delta_net)
    assert tested.attempted and not tested.failed


def test_the_units_of_a_head_are_rounded_up():
    cell = DeltaNetCell(I, 6, heads=4)
    assert cell.initial_state(B)[-1].shape == (B, 4, 2, 2)
