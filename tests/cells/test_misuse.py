"""What does not fit is refused before a kernel reads it, and whatever looks at a cell's operations or modules sees them."""

import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.testing import assert_close

from fw_rl.cells import CellPair, available_cells, make_cell
from tests.cells.reference import rand
from tests.cells.test_protocol import CELLS, EVERY_CELL, STARTS, B, H, I, T, build, used_state

COMPILED = pytest.mark.parametrize("name", [name for name in available_cells() if name != "rnn"])


@EVERY_CELL
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_state_of_other_rows_is_refused(label, rows):
    cell, x = build(label), rand(T, B, I)
    message = re.escape(f"state must have {B} rows, as x has, got [[{rows}, ")
    with pytest.raises(ValueError, match=f"^{message}"):
        cell(x, cell.initial_state(rows))
    with pytest.raises(ValueError, match=f"^{message}"):
        cell.stepper(cell.initial_state(rows)).step(x[0], torch.zeros(B, dtype=torch.bool))
    with pytest.raises(ValueError, match=f"^{message}"):
        cell.replay(x, cell.initial_state(rows), None, torch.zeros(T, B, H, dtype=x.dtype))


@EVERY_CELL
@pytest.mark.parametrize("starts", [torch.zeros(B, T), torch.zeros(T, 1), torch.zeros(T), torch.zeros(T + 1, B)])
def test_episode_starts_of_another_shape_are_refused(label, starts):
    cell, x = build(label), rand(T, B, I)
    message = re.escape(f"episode_starts must be [{T}, {B}] of bool, got {list(starts.shape)} of bool")
    with pytest.raises(ValueError, match=f"^{message}$"):
        cell(x, cell.initial_state(B), starts.bool())


@EVERY_CELL
def test_inputs_and_starts_of_another_kind_are_refused(label):
    cell, state = build(label), build(label).initial_state(B)
    with pytest.raises(ValueError, match=re.escape(f"episode_starts must be [{T}, {B}] of bool, got [{T}, {B}] of float32")):
        cell(rand(T, B, I), state, torch.zeros(T, B))
    for shape in ((B, I), (T, B, I + 1), (0, B, I)):
        message = f"x must be of the shape [T, B, {I}], with T of at least 1, got {list(shape)}"
        with pytest.raises(ValueError, match=re.escape(message)):
            cell(rand(*shape), state)


@EVERY_CELL
def test_without_a_state_it_begins_at_the_initial_one(label):
    cell, x = build(label), rand(T, B, I)
    assert_close(cell(x), cell(x, cell.initial_state(B)), rtol=0, atol=0)
    assert_close(cell(x, episode_starts=STARTS["anywhere"]), cell(x, cell.initial_state(B), STARTS["anywhere"]))


@EVERY_CELL
def test_torch_func_differentiates_by_the_state(label):
    cell, x, state = build(label), rand(T, B, I), used_state(build(label))
    state = tuple(part.detach() for part in state)
    expected = tuple(part.clone().requires_grad_() for part in state)
    wanted = torch.autograd.grad(cell(x, expected)[0].square().sum(), expected, materialize_grads=True)
    actual = torch.func.grad(lambda state: cell(x, state)[0].square().sum())(state)
    assert_close(actual, wanted, rtol=1e-8, atol=1e-8)


@COMPILED
def test_torch_func_differentiates_by_any_parameter(name):
    cell, x = build(name), rand(T, B, I)
    for own, parameter in cell.named_parameters():
        if not parameter.requires_grad:
            continue

        def loss(value, own=own):
            return torch.func.functional_call(cell, {own: value}, (x, cell.initial_state(B)))[0].square().sum()

        (wanted,) = torch.autograd.grad(loss(parameter), [parameter])
        assert_close(torch.func.grad(loss)(parameter.detach()), wanted, rtol=1e-8, atol=1e-8)


@COMPILED
def test_a_second_derivative_is_refused_or_right(name):
    cell, x, way = build(name), rand(T, B, I), rand(T, B, I, seed=3)

    def loss(x):
        return cell(x)[0].square().sum()

    with pytest.raises(RuntimeError, match=r"^create_graph must be False for the kernels of a cell"):
        torch.autograd.functional.hvp(loss, x, way)
    slope = torch.func.grad(loss)
    found = torch.func.grad(lambda x: (slope(x) * way).sum())(x)
    eps = 1e-5
    assert_close(found, (slope(x + eps * way) - slope(x - eps * way)) / (2 * eps), rtol=1e-3, atol=1e-3)


@COMPILED
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_trace_has_the_operations_and_not_their_results(name):
    cell = build(name).requires_grad_(False)

    def outputs(x):
        return cell(x, cell.initial_state(B))[0]

    with torch.no_grad():
        traced = torch.jit.trace(outputs, rand(T, B, I, seed=1), check_trace=False)
        assert_close(traced(rand(T, B, I, seed=2)), outputs(rand(T, B, I, seed=2)), rtol=1e-8, atol=1e-8)


@COMPILED
def test_hooks_of_the_modules_inside_are_called(name):
    cell, x, calls = build(name), rand(T, B, I), []
    expected = cell(x)
    for own, module in cell.named_children():
        handle = module.register_forward_hook(lambda *_, own=own: calls.append(own))
        assert_close(cell(x), expected, rtol=1e-9, atol=1e-9)
        handle.remove()
    scaled = {"input_map"} if name == "lru" else set()  # its weight is, before the product
    assert set(calls) == {own for own, _ in cell.named_children()} - scaled


@pytest.mark.parametrize("name, inner", [("fast-weights", "recurrent_map"), ("min-gru", "gate"), ("delta-net", "output_map")])
def test_a_pruned_weight_learns_step_by_step(name, inner):
    cell = build(name)
    prune.l1_unstructured(cell.get_submodule(inner), "weight", 0.5)
    for _ in range(2):
        cell(rand(T, B, I))[0].sum().backward()
    mask = cell.get_submodule(inner).weight_mask
    assert not cell.get_submodule(inner).weight_orig.grad[mask == 0].any()


class Adapted(nn.Linear):
    """A map with a change of its own, as those of low rank."""

    def forward(self, x):
        return super().forward(x) + 0.5 * x.sum(dim=-1, keepdim=True)


def test_a_map_with_a_forward_of_its_own_is_called():
    for name, inner in (("fast-weights", "recurrent_map"), ("min-gru", "gate")):
        cell = build(name)
        plain = cell.get_submodule(inner)
        own = Adapted(plain.in_features, plain.out_features, bias=plain.bias is not None).double()
        own.load_state_dict(plain.state_dict())
        before = cell(rand(T, B, I))[0]
        setattr(cell, inner, own)
        assert (cell(rand(T, B, I))[0] - before).abs().max() > 1e-3


@pytest.mark.parametrize("norm", [nn.RMSNorm(H), nn.LayerNorm(H, bias=False)], ids=["RMSNorm", "no bias"])
def test_another_norm_is_the_one_that_is_computed(norm):
    cell, calls = build("fast-weights"), []
    cell.norm = norm.double()
    y = cell(rand(T, B, I))[0]
    cell.norm.register_forward_hook(lambda *_: calls.append(1))  # from here on plain Torch
    assert_close(cell(rand(T, B, I))[0], y, rtol=1e-9, atol=1e-9)
    assert calls


def test_a_pair_is_of_one_kind():
    gru = partial(make_cell, "gru")
    for second in (gru(5, 8), gru(3, 9), make_cell("lstm", 3, 8)):
        with pytest.raises(ValueError, match="second must be a cell of the kind and the sizes of the first, GRU"):
            CellPair(gru(3, 8), second)


def test_all_cells_are_here():
    assert set(available_cells()) <= set(CELLS)
