"""A delta net that also sees a linear recurrence is these two cells, one after the other."""

import pytest
import torch
from torch.testing import assert_close

from fw_rl.cells import make_cell
from tests.cells.reference import rand, scrambled
from tests.cells.test_protocol import B, H, I, T, marks

STARTS = marks((0, 0), (2, 1), (3, 0), (3, 2), (6, 1))


def build(**options):
    cell, x = scrambled(make_cell("lru-delta-net", I, H, **options)), rand(T, B, I, seed=1)
    when, _ = cell.recurrence(x, cell.recurrence.initial_state(B), STARTS)
    return cell, x, torch.cat([x, when], dim=2)


@pytest.mark.parametrize("options", [{}, dict(heads=2, rule="sum", gated=True, states=3)], ids=["default", "all"])
def test_the_memory_sees_the_input_and_the_recurrence(options):
    cell, x, seen = build(**options)
    expected, A = cell.memory(seen, cell.memory.initial_state(B), STARTS)
    y, (h, matrix) = cell(x, cell.initial_state(B), STARTS)
    assert_close((y, matrix), (expected, *A))
    assert h.shape == (B, 2, options.get("states", H))


def test_a_stepper_gives_the_sequence():
    cell, x, _ = build()
    expected, last = cell(x, cell.initial_state(B), STARTS)
    stepper = cell.stepper(cell.initial_state(B))
    assert_close(torch.stack([stepper.step(each, starts) for each, starts in zip(x, STARTS, strict=True)]), expected)
    assert_close(stepper.state, last)


def test_attention_is_that_of_the_memory():
    cell, x, seen = build()
    expected = cell.memory.attention(seen, cell.memory.initial_state(B), STARTS)
    assert_close(cell.attention(x, cell.initial_state(B), STARTS), expected)


def test_queries_and_keys_begin_with_the_input_alone():
    cell = make_cell("lru-delta-net", I, H, heads=2)
    addresses = 2 * cell.memory.heads * cell.memory.units
    by_recurrence = cell.memory.input_map.weight[:, I:]
    assert not by_recurrence[:addresses].any()
    assert by_recurrence[addresses:].all()


@pytest.mark.parametrize("options, named", [(dict(heads=0), "heads"), (dict(states=0), "states"), (dict(r_max=2.0), "r_max")])
def test_wrong_options_are_refused(options, named):
    with pytest.raises(ValueError, match=f"{named} must be"):
        make_cell("lru-delta-net", I, H, **options)
