"""The associative LSTM beside plain loops over complex numbers."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fw_rl.cells import make_cell
from tests.cells.reference import scrambled

T, B, I = 6, 3, 4  # noqa: E741


def bound(z):
    return z / max(1.0, abs(z))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def reference(cell, x):
    """The outputs [T, B, H] of Danihelka et al. 2016, one row, unit, head and copy after the other."""
    weight, bias = cell.input_map.weight.detach().numpy(), cell.input_map.bias.detach().numpy()
    recurrent = cell.recurrent_map.weight.detach().numpy()
    permutations, units, heads = cell.permutations.tolist(), cell.units, cell.heads
    y = np.zeros((*x.shape[:2], cell.hidden_size))
    for row in range(x.shape[1]):
        h = np.zeros(cell.hidden_size)
        cells = [[0j] * units for _ in permutations]
        for t in range(len(x)):
            numbers = list(weight @ x[t, row].numpy() + bias + recurrent @ h)
            forget, store, show = ([sigmoid(numbers.pop(0)) for _ in range(units)] for _ in range(3))
            vectors = []
            for _ in range(3 * heads):
                real, imaginary = ([numbers.pop(0) for _ in range(units)] for _ in range(2))
                vectors.append([bound(complex(*pair)) for pair in zip(real, imaginary, strict=True)])
            keys, queries, values = vectors[:heads], vectors[heads : 2 * heads], vectors[2 * heads :]
            recalled = [0j] * units
            for s, order in enumerate(permutations):
                for j in range(units):
                    written = sum(keys[k][order[j]] * store[j] * values[k][j] for k in range(heads))
                    cells[s][j] = forget[j] * cells[s][j] + written
                    recalled[j] += sum(queries[k][order[j]] * cells[s][j] for k in range(heads)) / len(permutations)
            shown = [gate * bound(z) for gate, z in zip(show, recalled, strict=True)]
            h = np.array([z.real for z in shown] + [z.imag for z in shown])[: cell.hidden_size]
            y[t, row] = h
    return torch.from_numpy(y)


@pytest.mark.parametrize("hidden_size, options", [(8, {}), (10, dict(copies=1, heads=1)), (7, dict(copies=3, heads=2))])
def test_it_is_the_equations_in_complex_numbers(hidden_size, options):
    cell = scrambled(make_cell("associative-lstm", I, hidden_size, **options), seed=3)
    x = 3 * torch.randn(T, B, I, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y, _ = cell(x, cell.initial_state(B))
    assert_close(y, reference(cell, x), rtol=1e-10, atol=1e-12)
    moduli = cell.units - hidden_size % 2  # those whose both parts are shown
    assert (y[..., :moduli].square() + y[..., cell.units :].square()).max() <= 1


def test_a_value_comes_back_under_its_key():
    """A key and its conjugate give the value back: |key| = 1, so that conjugate(key) key value = value."""
    cell = make_cell("associative-lstm", 1, 2, copies=1, heads=1).double()
    key, value = complex(math.cos(0.7), math.sin(0.7)), complex(0.3, -0.4)
    store = [50.0, 50.0, 50.0, key.real, key.imag, 0.0, 0.0, value.real, value.imag]
    recall = [50.0, -50.0, 50.0, 0.0, 0.0, key.real, -key.imag, 0.0, 0.0]
    with torch.no_grad():
        cell.recurrent_map.weight.zero_()
        cell.input_map.bias.copy_(torch.tensor(store))
        cell.input_map.weight.copy_(torch.tensor(recall).unsqueeze(1) - torch.tensor(store).unsqueeze(1))
        y, _ = cell(torch.tensor([0.0, 1.0]).view(2, 1, 1).double(), cell.initial_state(1))
    assert_close(y[1, 0], torch.tensor([value.real, value.imag]).double(), rtol=1e-6, atol=1e-6)


def test_every_copy_has_an_order_of_its_own_that_a_state_dict_carries():
    cell, other = make_cell("associative-lstm", 1, 40), make_cell("associative-lstm", 1, 40)
    assert all(sorted(order) == list(range(20)) for order in cell.permutations.tolist())
    assert len({tuple(order) for order in cell.permutations.tolist()}) == 4
    other.load_state_dict(cell.state_dict())
    assert torch.equal(other.permutations, cell.permutations)


def test_a_silent_start_has_a_finite_gradient():
    cell = make_cell("associative-lstm", 2, 6)
    with torch.no_grad():
        cell.input_map.bias.zero_()
    y, _ = cell(torch.zeros(3, 2, 2), cell.initial_state(2))
    y.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in cell.parameters())


@pytest.mark.parametrize("options", [dict(copies=0), dict(heads=0), dict(heads=1.5), dict(copies=True)])
def test_counts_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must be a whole number from 1"):
        make_cell("associative-lstm", 2, 4, **options)
