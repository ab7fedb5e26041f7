"""What does not fit is refused before a kernel reads it, and whatever looks at a cell's operations or modules sees them."""

import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.testing import assert_close

from fw_rl.cells import Cell, CellPair, available_cells, make_cell
from fw_rl.cells.backends import AcceleratedCell, Backend
from fw_rl.cells.gru import GRUCell
from fw_rl.cells.min_gru import MinGRUCell
from tests.cells.reference import rand
from tests.cells.test_protocol import EVERY_CELL, STARTS, B, H, I, T, build, used_state

COMPILED = pytest.mark.parametrize("name", available_cells())


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
        x = 30 * rand(T, B, I, seed=2)  # far beyond the bound of the ReLU net
        assert_close(traced(x), outputs(x), rtol=1e-8, atol=1e-8)


@COMPILED
def test_hooks_of_the_modules_inside_are_called(name):
    cell, x, calls = build(name), rand(T, B, I), []
    expected, once = cell(x), cell(x[:1])
    for own, module in cell.named_children():
        handle = module.register_forward_hook(lambda *_, own=own: calls.append(own))
        assert_close(cell(x), expected, rtol=1e-9, atol=1e-9)
        before = len(calls)
        assert_close(cell(x[:1]), once, rtol=1e-9, atol=1e-9)
        assert_close(cell.stepper(cell.initial_state(B)).step(x[0], STARTS["none"][0]), once[0][0], rtol=1e-9, atol=1e-9)
        if own in calls and not isinstance(module, Cell):  # whose stepper may act in place of the module
            assert len(calls) == before + 2
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


@pytest.mark.parametrize(
    "name, inner, other",
    [
        ("fast-weights", "norm", nn.RMSNorm(H)),
        ("fast-weights", "norm", nn.LayerNorm(H, bias=False)),
        ("fast-weights", "recurrent_map", nn.Linear(H, H)),
        ("delta-net", "norm", nn.RMSNorm(-(-H // 4))),
        ("delta-net", "norm", nn.RMSNorm(-(-H // 4), eps=1e-5, elementwise_affine=False)),
        ("min-gru", "gate", nn.Linear(I, H, bias=False)),
    ],
)
def test_another_module_is_the_one_that_is_computed(name, inner, other):
    cell, calls = build(name), []
    setattr(cell, inner, other.double())
    y = cell(rand(T, B, I))[0]
    getattr(cell, inner).register_forward_hook(lambda *_: calls.append(1))  # from here on plain Torch
    assert_close(cell(rand(T, B, I))[0], y, rtol=1e-9, atol=1e-9)
    assert calls


def test_a_forward_of_the_instance_and_backward_hooks_are_called():
    cell, calls = build("min-gru"), []
    cell.gate.register_full_backward_pre_hook(lambda *_: calls.append(1))
    cell(rand(T, B, I).requires_grad_())[0].sum().backward()
    assert calls == [1]
    cell = build("min-gru")
    before = cell(rand(T, B, I))[0]
    cell.gate.forward = lambda x: 2 * torch.ones(*x.shape[:-1], H, dtype=x.dtype)
    assert (cell(rand(T, B, I))[0] - before).abs().max() > 1e-3


class Sevens(MinGRUCell):
    def unroll(self, x, state, episode_starts=None):
        y = x.new_full((*x.shape[:2], self.hidden_size), 7.0)
        return y, (y[-1],)


class StepsOfSevens(GRUCell):
    def step(self, x, state):
        return (torch.full_like(state[0], 7.0),)


class Renamed(MinGRUCell):
    pass


def test_a_derived_cell_computes_what_it_says():
    for own in (Sevens(I, H), StepsOfSevens(I, H)):
        assert cell_of_sevens(own)
    assert type(Renamed(I, H).backend(torch.zeros(T, B, I))) is not Backend


def cell_of_sevens(cell):
    y = cell(torch.zeros(1, B, I))[0]
    acted = cell.stepper(cell.initial_state(B)).step(torch.zeros(B, I), torch.zeros(B, dtype=torch.bool))
    return (y == 7).all() and (acted == 7).all() and type(cell.backend(torch.zeros(T, B, I))) is Backend


@EVERY_CELL
def test_a_state_of_another_dtype_is_for_plain_torch(label):
    cell = build(label).float()
    x, state = rand(T, B, I).float(), tuple(part.double() for part in cell.initial_state(B))
    if isinstance(cell, AcceleratedCell):
        assert type(cell.backend(x, *state)) is Backend


@pytest.mark.parametrize("shape", [(T - 1, B, H), (T, 1, H), (T, B, H + 1)])
@COMPILED
def test_outputs_of_another_shape_are_not_replayed(name, shape):
    cell = build(name)
    if isinstance(cell, AcceleratedCell):
        message = re.escape(f"outputs must be of the shape [{T}, {B}, {H}], got {list(shape)}")
        with pytest.raises(ValueError, match=f"^{message}$"):
            cell.replay(rand(T, B, I), cell.initial_state(B), None, rand(*shape))


@COMPILED
def test_options_may_be_numbers_of_numpy(name):
    options = {"fast-weights": dict(eta=np.float32(0.5), inner_steps=np.int64(2), window=np.int64(4))}
    options |= {"delta-net": dict(heads=np.int64(2)), "lru": dict(states=np.int64(5)), "shm": dict(memory_size=np.int64(3))}
    cell = make_cell(name, I, H, layers=np.int64(1), **options.get(name, {}))
    assert cell(torch.zeros(T, B, I))[0].shape == (T, B, H)


def test_a_pair_is_of_one_kind():
    gru = partial(make_cell, "gru")
    for second in (gru(5, 8), gru(3, 9), make_cell("lstm", 3, 8)):
        with pytest.raises(ValueError, match="second must be a cell of the kind and the sizes of the first, GRU"):
            CellPair(gru(3, 8), second)
