"""The associative LSTM beside plain loops over complex numbers."""

import math

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.testing import assert_close

from fw_rl.cells import associative_lstm, make_cell
from fw_rl.cells.associative_lstm import _bound
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


def test_a_state_dict_carries_the_order_of_every_copy():
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


@pytest.mark.parametrize("options", [dict(copies=0), dict(heads=0), dict(heads=1.5)])
def test_counts_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"must be a whole number from 1|must be of type int"):
        make_cell("associative-lstm", 2, 4, **options)


# The compiled form beside the plain one, which is what runs on other devices, in other dtypes and in ONNX.


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def build(hidden_size=8, *, seed=3, dtype=torch.float64, **options):
    return scrambled(make_cell("associative-lstm", I, hidden_size, **options), seed=seed).to(dtype)


def leaves(cell, steps, rows, dtype=torch.float64):
    """An input and a state in the middle of an episode, which ask for their gradient; some vectors of the input are bounded."""
    x = 2 * rand(steps, rows, I, seed=1, dtype=dtype)
    _, state = cell(rand(3, rows, I, seed=2, dtype=dtype), cell.initial_state(rows))
    return [part.detach().requires_grad_() for part in (x, *state)]


def gradients(cell, tensors, y, state):
    loss = sum((part * rand(*part.shape, seed=n, dtype=part.dtype)).sum() for n, part in enumerate((y, *state)))
    return torch.autograd.grad(loss, [*tensors, *cell.parameters()])


def some_starts(steps, rows):
    return torch.rand(steps, rows, generator=torch.Generator().manual_seed(4)) < 0.3


SHAPES = {
    "as by default": (8, {}, 6, 3),
    "odd": (7, dict(copies=3, heads=2), 6, 3),
    "one unit": (1, {}, 4, 2),
    "one copy and one head": (6, dict(copies=1, heads=1), 6, 3),
    "one row": (9, {}, 5, 1),
    "one step": (8, {}, 1, 3),
    "one row and one step": (5, dict(copies=2), 1, 1),
    "many rows": (10, {}, 3, 37),
}


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 2e-4)], ids=["float64", "float32"])
@pytest.mark.parametrize("with_starts", [False, True], ids=["one episode", "episodes"])
@pytest.mark.parametrize("hidden_size, options, steps, rows", SHAPES.values(), ids=SHAPES)
def test_the_compiled_form_is_the_plain_one(hidden_size, options, steps, rows, with_starts, dtype, tolerance, monkeypatch):
    cell = build(hidden_size, dtype=dtype, **options)
    x, *state = tensors = leaves(cell, steps, rows, dtype)
    starts = some_starts(steps, rows) if with_starts else None
    expected = cell.unroll(x, state, starts)
    expected_gradients = gradients(cell, tensors, *expected)
    assert any(gradient.any() for gradient in expected_gradients)
    monkeypatch.delattr(type(cell), "unroll")
    actual = cell(x, state, starts)
    assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    assert_close(gradients(cell, tensors, *actual), expected_gradients, rtol=tolerance, atol=tolerance)
    with torch.no_grad():
        assert_close(cell(x, state, starts), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("hidden_size, options", [(4, {}), (5, dict(copies=2, heads=2)), (3, dict(copies=1, heads=1))])
def test_gradients_of_state_and_outputs_are_finite_differences(hidden_size, options):
    cell = build(hidden_size, **options)
    names, parameters = zip(*cell.named_parameters(), strict=True)
    tensors = leaves(cell, 4, 2)

    def run(x, h, cells, *values):
        y, state = functional_call(cell, dict(zip(names, values, strict=True)), (x, (h, cells), some_starts(4, 2)))
        return y, *state

    assert torch.autograd.gradcheck(run, [*tensors, *(part.detach().clone().requires_grad_() for part in parameters)])


def test_both_sides_of_the_bound_are_tried():
    """What the tests above compare has moduli on both sides of 1, among the vectors and among what is recalled."""
    cell, bounded = build(), []
    x, *state = leaves(cell, 6, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(associative_lstm, "_bound", lambda z: bounded.append(z) or _bound(z))
        cell.unroll(x, tuple(state))
    for kind in (bounded[::2], bounded[1::2]):
        moduli = torch.cat([z.square().sum(-2).flatten() for z in kind]).sqrt()
        assert 0.1 < (moduli > 1).double().mean() < 0.9


def test_an_output_may_be_written_over_before_the_way_back():
    cell = build()
    x, *state = tensors = leaves(cell, 5, 3)
    y, last = cell(x, state)
    expected = gradients(cell, tensors, 2 * y, last)
    y, last = cell(x, state)
    assert_close(gradients(cell, tensors, y.mul_(2), last), expected)


def test_the_way_back_can_be_taken_twice():
    cell = build()
    x, *state = leaves(cell, 5, 3)
    y, _ = cell(x, state, some_starts(5, 3))
    first, second = (torch.autograd.grad(y.sum(), [x, *state], retain_graph=True) for _ in range(2))
    assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("frozen", ["input_map.weight", "input_map.bias", "recurrent_map.weight"])
def test_a_frozen_parameter_leaves_the_others_their_gradient(frozen):
    cell = build()
    x, *state = leaves(cell, 5, 3)
    cell.get_parameter(frozen).requires_grad_(False)
    learned = [parameter for parameter in cell.parameters() if parameter.requires_grad]
    expected, actual = (torch.autograd.grad(run(x, state)[0].square().sum(), learned) for run in (cell.unroll, cell))
    assert_close(actual, expected)


def test_the_layout_in_memory_does_not_matter():
    cell = build()
    x, *state = tensors = leaves(cell, 5, 3)
    expected = gradients(cell, tensors, *cell(x, state))
    scattered = [torch.stack([part, part], dim=-1)[..., 0] for part in tensors]
    assert not any(part.is_contiguous() for part in scattered)
    y, last = cell(scattered[0], scattered[1:])
    assert_close(gradients(cell, tensors, y.transpose(0, 1).contiguous().transpose(0, 1), last), expected)


def test_torch_func_and_autocast_and_a_compiler_see_every_operation():
    cell = build(dtype=torch.float32)
    x = rand(4, 5, 2, I, dtype=torch.float32)

    def run(part):
        return cell(part, cell.initial_state(2))[0]

    each = torch.stack([run(part) for part in x])
    assert_close(torch.func.vmap(run)(x), each)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (torch.stack([run(part) for part in x]) - each).norm() < 0.03 * each.norm()
    assert_close(torch.compile(run, backend="eager", fullgraph=True)(x[0]), each[0])
