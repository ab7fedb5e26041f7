"""Cells on top of each other are these cells, with norms and sums between them."""

import doctest

import pytest
import torch
from torch.testing import assert_close

from fw_rl.cells import Stack, available_cells, make_cell, stack
from tests.cells.reference import rand, scrambled
from tests.cells.test_protocol import B, H, I, T, marks

STARTS = marks((0, 0), (2, 1), (3, 0), (3, 2), (6, 1))
EVERY_CELL = pytest.mark.parametrize("name", available_cells())


@EVERY_CELL
def test_each_layer_adds_to_the_normalised_one_below(name):
    cell, x = scrambled(make_cell(name, I, H, layers=3)), rand(T, B, I, seed=1)
    y, state = x, ()
    for layer, own in enumerate(cell.layers):
        assert type(own) is type(make_cell(name, I, H))
        seen = cell.norms[layer - 1](y) if layer else y
        added, after = own(seen, own.initial_state(B), STARTS)
        y, state = (y + added if layer else added), state + after
    found, last = cell(x, cell.initial_state(B), STARTS)
    assert_close((found, last), (y, state), rtol=1e-10, atol=1e-10)


@EVERY_CELL
def test_one_layer_is_the_plain_cell(name):
    torch.manual_seed(0)
    plain = make_cell(name, I, H)
    torch.manual_seed(0)
    single = make_cell(name, I, H, layers=1)
    assert type(single) is type(plain)
    assert all(torch.equal(one, other) for one, other in zip(single.parameters(), plain.parameters(), strict=True))


@EVERY_CELL
def test_steps_and_a_replay_are_the_sequence(name):
    cell, x = scrambled(make_cell(name, I, H, layers=2)), rand(T, B, I, seed=1)
    expected, last = cell(x, cell.initial_state(B), STARTS)
    stepper = cell.stepper(cell.initial_state(B))
    outputs = torch.stack([stepper.step(each, starts) for each, starts in zip(x, STARTS, strict=True)])
    assert_close(outputs, expected, rtol=1e-10, atol=1e-10)
    more = rand(T, B, I, seed=2)
    assert_close(cell(more, stepper.state)[0], cell(more, last)[0], rtol=1e-10, atol=1e-10)
    replayed = cell.replay(x, cell.initial_state(B), STARTS, outputs)
    gradients = [torch.autograd.grad(y.square().sum(), list(cell.parameters())) for y in (expected, replayed)]
    assert_close(*gradients)


def test_attention_is_the_mean_of_the_layers_that_attend():
    bottom, middle, top = (make_cell(name, H, H) for name in ("delta-net", "gru", "fast-weights"))
    cell, x = scrambled(Stack([bottom, middle, top])), rand(T, B, H, seed=1)
    between, _ = bottom(x, bottom.initial_state(B), STARTS)
    above = between + middle(cell.norms[0](between), middle.initial_state(B), STARTS)[0]
    expected = bottom.attention(x, bottom.initial_state(B), STARTS)
    expected = (expected + top.attention(cell.norms[1](above), top.initial_state(B), STARTS)) / 2
    assert cell.attends and not Stack([middle]).attends
    assert_close(cell.attention(x, cell.initial_state(B), STARTS), expected)


def test_diagnostics_are_those_of_the_layers():
    cell, x = scrambled(make_cell("fast-weights", I, H, layers=2)), rand(T, B, I, seed=1)
    first, second = cell.layers
    between, _ = first(x, first.initial_state(B), STARTS)
    expected = {f"layer1_{name}": value for name, value in first.diagnostics(x, first.initial_state(B), STARTS).items()}
    of_second = second.diagnostics(cell.norms[0](between), second.initial_state(B), STARTS)
    expected |= {f"layer2_{name}": value for name, value in of_second.items()}
    assert len(expected) == 4
    assert cell.diagnostics(x, cell.initial_state(B), STARTS) == pytest.approx(expected)


def test_kernels_are_named_once(monkeypatch):
    assert set(make_cell("lru", I, H, layers=3).kernels(replays=False)) == set(make_cell("lru", I, H).kernels(replays=False))
    monkeypatch.setattr("fw_rl.cells.gated_numba.NumbaRNN.kernels", lambda *_: ())
    assert not make_cell("rnn", I, H, layers=2).kernels(replays=False)
    every = make_cell("fast-weights", I, H, layers=2).kernels(replays=True)  # a replay of layers runs them
    assert set(every) == set(make_cell("fast-weights", I, H).kernels(replays=False))


@pytest.mark.parametrize("layers", [0, -1, True, 1.5, "2"])
def test_a_wrong_number_of_layers_is_refused(layers):
    with pytest.raises(ValueError, match=f"^layers must be a whole number from 1 to 1000000, got {layers!r}$"):
        make_cell("gru", I, H, layers=layers)


def test_layers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"^cells must be at least one, got none$"):
        Stack([])
    with pytest.raises(ValueError, match=r"^a cell above the first must have 5 inputs and outputs, got GRUCell"):
        Stack([make_cell("gru", I, H), make_cell("gru", I, H)])


def test_the_documentation_is_true():
    result = doctest.testmod(stack, extraglobs=dict(make_cell=make_cell))
    assert result.attempted
    assert not result.failed
