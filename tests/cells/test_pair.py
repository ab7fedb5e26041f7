"""A pair of cells is two cells that know nothing of each other."""

import doctest

import pytest
import torch
from torch.testing import assert_close

from fw_rl.cells import CellPair, make_cell, pair
from tests.cells.reference import scrambled
from tests.cells.test_protocol import CELLS, marks, rand

STARTS = marks((0, 0), (2, 1), (3, 0), (3, 2), (6, 1))
EVERY_CELL = pytest.mark.parametrize("name, options", CELLS.values(), ids=CELLS)


def build(name, options):
    first, second = (scrambled(make_cell(name, 3, 5, **options), seed=seed) for seed in (0, 1))
    return first, second, CellPair(first, second)


@EVERY_CELL
def test_each_half_is_that_of_its_cell(name, options):
    first, second, both = build(name, options)
    assert (both.input_size, both.hidden_size) == (6, 10)
    x1, x2 = rand(7, 3, 3), rand(7, 3, 3, seed=1)
    y1, state1 = first(x1, first.initial_state(3), STARTS)
    y2, state2 = second(x2, second.initial_state(3), STARTS)
    y, state = both(torch.cat([x1, x2], dim=2), both.initial_state(3), STARTS)
    assert_close(y, torch.cat([y1, y2], dim=2))
    assert_close(state, state1 + state2)


@EVERY_CELL
def test_steps_and_a_replay_are_the_sequence(name, options):
    _, _, both = build(name, options)
    x = rand(7, 3, 6)
    with torch.no_grad():
        expected, after = both(x, both.initial_state(3), STARTS)
    stepper = both.stepper(both.initial_state(3))
    outputs = torch.stack([stepper.step(one, starts) for one, starts in zip(x, STARTS, strict=True)])
    assert_close(outputs, expected)
    again, _ = both(x, stepper.state, STARTS)
    assert_close(again, both(x, after, STARTS)[0])
    whole, replayed = both(x, both.initial_state(3), STARTS)[0], both.replay(x, both.initial_state(3), STARTS, outputs)
    assert_close(replayed, whole)
    weights, parameters = rand(7, 3, 10, seed=2), [part for part in both.parameters() if part.requires_grad]
    gradients = [torch.autograd.grad((y * weights).sum(), parameters, allow_unused=True) for y in (whole, replayed)]
    assert_close(*([part for part in gradient if part is not None] for gradient in gradients))


def test_the_diagnostics_of_both_have_their_names():
    first, second, both = build("fast-weights", {})
    x, state = rand(7, 3, 6), both.initial_state(3)
    of_first = first.diagnostics(x[..., :3], first.initial_state(3), STARTS)
    of_second = second.diagnostics(x[..., 3:], second.initial_state(3), STARTS)
    expected = {f"first_{name}": value for name, value in of_first.items()}
    expected |= {f"second_{name}": value for name, value in of_second.items()}
    assert len(expected) == 2 * len(of_first) > 0
    assert both.diagnostics(x, state, STARTS) == pytest.approx(expected)


def test_options_may_differ():
    first, second = (scrambled(make_cell("fast-weights", 3, 5, decay=decay)) for decay in (0.3, 0.99))
    both, x = CellPair(first, second), rand(7, 3, 6)
    y, state = both(x)
    for half, cell in zip((slice(0, 3), slice(3, 6)), (first, second), strict=True):
        own = slice(0, 5) if cell is first else slice(5, 10)
        assert_close(y[..., own], cell(x[..., half])[0])
    assert len(state) == len(first.initial_state(1)) + len(second.initial_state(1))
    assert_close(both(x, state)[0][0], both.stepper(state).step(x[0], torch.zeros(3, dtype=torch.bool)))


def test_the_documentation_is_true():
    result = doctest.testmod(pair, extraglobs=dict(make_cell=make_cell))
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("other", [("lstm", 3, 5), ("gru", 4, 5), ("gru", 3, 6)])
def test_a_cell_of_another_kind_or_of_other_sizes_is_refused(other):
    with pytest.raises(ValueError, match=r"^second must be a cell of the kind and the sizes of the first"):
        CellPair(make_cell("gru", 3, 5), make_cell(*other))
