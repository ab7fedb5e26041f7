"""`Cell.replay`: the outputs that acting found, with the gradient of the sequential pass and without its cost."""

import copy

import pytest
import torch
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from fw_rl.cells import make_cell
from tests.cells.reference import scrambled
from tests.pairwise import pairwise

B, I, H = 3, 3, 5  # noqa: E741

STATES = {
    "nothing yet": (32, 0),
    "pending writes": (32, 4),
    "pending writes of a short window": (3, 3),
    "matrix": (3, 4),
    "matrix and pending writes": (3, 6),
    "matrix at every step": (0, 3),
}
STARTS = ["none", "random", "at step 0", "at step 0 of one row", "everywhere"]
GENTLE = {"eta": 0.2}
FALLBACK = {
    "delta": dict(rule="delta"),
    "oja": dict(rule="oja", window=2),
    "method 2": dict(method=2, eta=0.1, activation="tanh"),
    "norm of the recall": dict(norm_placement="recall"),
    "learned eta": dict(learn_eta=True),
    "learned decay": dict(learn_decay=True, window=2),
}
OTHERS = {
    **{f"fast-weights, {label}": ("fast-weights", options) for label, options in FALLBACK.items()},
    **{name: (name, {}) for name in ("rnn", "lstm", "gru")},
}

EVERY_START = pytest.mark.parametrize("starts", STARTS)
EVERY_STATE = pytest.mark.parametrize("window, history", STATES.values(), ids=STATES)


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build(name="fast-weights", *, input_size=I, hidden_size=H, scale=0.5, **options):
    return scrambled(make_cell(name, input_size, hidden_size, **options), scale=scale)


def marks(kind, steps, rows=B):
    if kind == "none":
        return None
    starts = torch.zeros(steps, rows, dtype=torch.bool)
    if kind == "random":
        starts = torch.rand(steps, rows, generator=torch.Generator().manual_seed(3)) < 0.3
    elif kind == "at step 0":
        starts[0] = True
    elif kind == "at step 0 of one row":
        starts[0, 1] = True
    elif kind == "everywhere":
        starts[:] = True
    return starts


@torch.no_grad()
def used_state(cell, steps, rows=B):
    """The state in the middle of an episode, after this many steps."""
    state = cell.initial_state(rows)
    for x in rand(steps, rows, cell.input_size, seed=20, dtype=state[0].dtype):
        _, state = cell(x[None], state)
    return state


@torch.no_grad()
def acted(cell, x, state, starts):
    """What acting puts out: one step after another, and no graph."""
    outputs = []
    for t in range(len(x)):
        y, state = cell(x[t : t + 1], state, None if starts is None else starts[t : t + 1])
        outputs.append(y)
    return torch.cat(outputs)


def gradients(cell, x, y, *more):
    loss = (y * rand(*y.shape, seed=10).to(y)).sum()
    return torch.autograd.grad(loss, [x, *cell.parameters(), *more], materialize_grads=True, retain_graph=True)


def assert_replays(cell, x, state, starts, *more, tolerance=1e-9):
    """The replay has the outputs and the gradient of autograd's way through `forward`."""
    outputs = acted(cell, x.detach(), state, starts)
    expected, _ = cell(x, state, starts)
    y = cell.replay(x, state, starts, outputs)
    assert expected.isfinite().all()
    assert y.dtype == x.dtype
    assert_close(y, expected, rtol=tolerance, atol=tolerance)
    assert_close(cell.replay(x, state, starts, None), expected, rtol=0, atol=0)
    expected = gradients(cell, x, expected, *more)
    assert expected[0].any()
    assert_close(gradients(cell, x, y, *more), expected, rtol=tolerance, atol=tolerance)


@pairwise(
    state=STATES,
    starts=STARTS,
    activation=["relu", "tanh"],
    layer_norm={"layer norm": True, "no layer norm": False},
    inner_steps=[1, 2, 3],
    decay=[0.95, 0.05],
)
def test_the_gradient_is_that_of_the_sequential_pass(inner_steps, layer_norm, activation, state, starts, decay):
    window, history = state
    tame = {} if layer_norm else dict(eta=0.05, scale=0.3)
    cell = build(inner_steps=inner_steps, layer_norm=layer_norm, activation=activation, window=window, decay=decay, **tame)
    state = used_state(cell, history)
    for steps in (1, 6):
        assert_replays(cell, rand(steps, B, I, seed=1).requires_grad_(), state, marks(starts, steps))


@pairwise(state=STATES, eta=[0.0, 1.5], decay=[0.0, 0.1, 0.5, 1.0])
def test_any_rates(eta, decay, state):
    window, history = state
    cell = build(eta=eta, decay=decay, window=window)
    assert_replays(cell, rand(5, B, I, seed=1).requires_grad_(), used_state(cell, history), marks("random", 5))


@pytest.mark.parametrize("rows, input_size, hidden_size", [(1, 1, 1), (1, 4, 7), (6, 2, 3)])
def test_any_sizes(rows, input_size, hidden_size):
    cell = build(input_size=input_size, hidden_size=hidden_size, layer_norm=hidden_size > 1, window=2, **GENTLE)
    x = rand(5, rows, input_size, seed=1).requires_grad_()
    assert_replays(cell, x, used_state(cell, 4, rows), marks("random", 5, rows))


@EVERY_START
def test_a_long_sequence(starts):
    cell = build(inner_steps=2, window=8)
    assert_replays(cell, rand(60, B, I, seed=1).requires_grad_(), used_state(cell, 20), marks(starts, 60), tolerance=1e-8)


@EVERY_STATE
def test_float32_is_near_float64(window, history):
    cell = build(window=window, inner_steps=2)
    x, starts = rand(6, B, I, seed=1).requires_grad_(), marks("random", 6)
    state = used_state(cell, history)
    expected = gradients(cell, x, cell(x, state, starts)[0])
    single = copy.deepcopy(cell).float()
    single_x, single_state = x.detach().float().requires_grad_(), tuple(part.float() for part in state)
    y = single.replay(single_x, single_state, starts, acted(single, single_x.detach(), single_state, starts))
    actual = gradients(single, single_x, y)
    assert {part.dtype for part in (y, *actual)} == {torch.float32}
    for approximate, exact in zip(actual, expected, strict=True):
        assert (approximate.double() - exact).norm() <= 1e-4 * exact.norm() + 1e-6


@pytest.mark.parametrize("starts", ["none", "random"])
@pytest.mark.parametrize("options", [{}, dict(layer_norm=False, activation="tanh")], ids=["default", "tanh"])
@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("window, history", [(32, 2), (1, 4)], ids=["pending writes", "matrix"])
def test_gradients_are_finite_differences(inner_steps, options, window, history, starts):
    cell = build(input_size=2, hidden_size=3, inner_steps=inner_steps, window=window, **GENTLE, **options)
    names, parameters = zip(*cell.named_parameters(), strict=True)
    state, starts = used_state(cell, history, 2), marks(starts, 4, 2)

    class Replay(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = cell

        def forward(self, x):
            return self.cell.replay(x, state, starts, acted(self.cell, x, state, starts))

    def outputs(x, *values):
        return functional_call(Replay(), {f"cell.{name}": value for name, value in zip(names, values, strict=True)}, (x,))

    leaves = [tensor.detach().clone().requires_grad_() for tensor in (rand(4, 2, 2, seed=1), *parameters)]
    assert torch.autograd.gradcheck(outputs, leaves)


@pairwise(starts=STARTS, label=list(OTHERS))
def test_a_cell_without_a_shortcut_has_the_same_gradient(label, starts):
    name, options = OTHERS[label]
    cell = build(name, **options)
    for steps in (1, 6):
        assert_replays(cell, rand(steps, B, I, seed=1).requires_grad_(), used_state(cell, 3), marks(starts, steps))


@pairwise(state=STATES, starts=STARTS, inner_steps=[1, 2], decay=[0.95, 0.1])
def test_a_state_with_a_gradient_gets_it(inner_steps, state, starts, decay):
    window, history = state
    cell, starts = build(inner_steps=inner_steps, window=window, decay=decay), marks(starts, 5)
    x, state = rand(5, B, I, seed=1).requires_grad_(), tuple(part.requires_grad_() for part in used_state(cell, history))
    y, after = cell(x, state, starts)
    expected, expected_after = cell.unroll(x, state, starts)
    replayed = cell.replay(x, state, starts, y.detach())

    def with_read(outputs, state):
        """What a next step would read is an output too."""
        return torch.cat([outputs, cell(rand(1, B, I, seed=2), state)[0]])

    for found, truth in ((replayed, expected), (with_read(y, after), with_read(expected, expected_after))):
        assert_close(gradients(cell, x, found, *state), gradients(cell, x, truth, *state), rtol=1e-9, atol=1e-9)


def test_a_chain_of_rollouts_has_the_gradient_of_each():
    cell, x, starts = build(window=4), rand(12, B, I, seed=1), marks("random", 12)
    state, total, expected = cell.initial_state(B), 0.0, 0.0
    for begin in range(0, 12, 4):
        part, part_starts = x[begin : begin + 4], starts[begin : begin + 4]
        outputs = acted(cell, part, state, part_starts)
        total = total + (cell.replay(part, state, part_starts, outputs) * rand(4, B, H, seed=begin)).sum()
        y, after = cell(part, state, part_starts)
        expected = expected + (y * rand(4, B, H, seed=begin)).sum()
        state = tuple(part.detach() for part in after)
    parameters = list(cell.parameters())
    assert_close(torch.autograd.grad(total, parameters), torch.autograd.grad(expected, parameters), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("starts", ["none", "random"])
def test_the_layout_in_memory_does_not_matter(starts):
    cell, starts = build(window=2, inner_steps=2), marks(starts, 6)
    state = used_state(cell, 4)
    x = rand(B, I, 6, seed=1).permute(2, 0, 1)
    outputs = acted(cell, x, state, starts).permute(2, 1, 0).contiguous().permute(2, 1, 0)
    scattered = tuple(torch.stack([part, part], dim=-1)[..., 0] for part in state)
    assert not any(tensor.is_contiguous() for tensor in (x, outputs, scattered[0]))
    parameters = list(cell.parameters())
    actual = torch.autograd.grad(cell.replay(x, scattered, starts, outputs).sum(), parameters)
    assert_close(actual, torch.autograd.grad(cell(x, state, starts)[0].sum(), parameters), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("frozen", ["recurrent_map.weight", "input_map.weight", "norm.weight", "norm.bias"])
def test_a_frozen_parameter_leaves_the_others_their_gradient(frozen):
    cell, x = build(), rand(5, B, I, seed=1)
    cell.get_parameter(frozen).requires_grad_(False)
    state = used_state(cell, 3)
    learned = [parameter for parameter in cell.parameters() if parameter.requires_grad]
    y = cell.replay(x, state, None, acted(cell, x, state, None))
    expected = torch.autograd.grad(cell(x, state)[0].square().sum(), learned)
    assert_close(torch.autograd.grad(y.square().sum(), learned), expected, rtol=1e-9, atol=1e-9)


def test_a_replay_leaves_its_arguments_as_they_were():
    cell, x, starts = build(window=2), rand(5, B, I, seed=1).requires_grad_(), marks("random", 5)
    state = used_state(cell, 4)
    outputs = acted(cell, x.detach(), state, starts)
    arguments = (x, starts, outputs, *state, *cell.parameters())
    copies = [tensor.detach().clone() for tensor in arguments]
    y = cell.replay(x, state, starts, outputs)
    y.sum().backward()
    with torch.no_grad():
        y.fill_(7.0)
    assert all(torch.equal(tensor, copied) for tensor, copied in zip(arguments, copies, strict=True))


def test_a_replay_takes_the_outputs_as_they_are_told():
    cell, x, told = build(), rand(5, B, I, seed=1), rand(5, B, H, seed=2)
    y = cell.replay(x, used_state(cell, 3), None, told)
    assert_close(y, told, rtol=0, atol=0)
    y.detach().zero_()
    assert told.ne(0).all()


def test_a_second_derivative_is_refused():
    cell, x = build(), rand(5, B, I, seed=1).requires_grad_()
    y = cell.replay(x, cell.initial_state(B), None, acted(cell, x.detach(), cell.initial_state(B), None))
    with pytest.raises(RuntimeError, match=r"^create_graph must be False for the kernels of a cell; torch.func has its second"):
        torch.autograd.grad(y.square().sum(), x, create_graph=True)


class Sizes(TorchDispatchMode):
    """How many elements every tensor has that an operation makes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.seen += [part.numel() for part in torch.utils._pytree.tree_leaves(result) if isinstance(part, torch.Tensor)]
        return result


class Cost:
    """One replay, or one sequential pass, with its way back: the sizes of all tensors made, and the sum of those saved."""

    def __init__(self, steps, *, window, rows=2, size=128, inner_steps=1, sequential=False):
        cell = build(input_size=4, hidden_size=size, window=window, inner_steps=inner_steps)
        x, state = rand(steps, rows, 4, seed=1), cell.initial_state(rows)
        outputs = acted(cell, x, state, None)
        saved = {}

        def keep(tensor):
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 8
            return tensor

        with Sizes() as sizes, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = cell(x, state)[0] if sequential else cell.replay(x, state, None, outputs)
            y.sum().backward()
        self.sizes, self.saved, self.weight = sizes.seen, sum(saved.values()), size * size


@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("window", [0, 32])
@pytest.mark.parametrize("sequential", [False, True], ids=["replay", "forward"])
def test_no_matrix_is_built_for_a_step(window, inner_steps, sequential):
    costs = [Cost(steps, window=window, inner_steps=inner_steps, sequential=sequential) for steps in (4, 8)]
    few, many = (sum(size > cost.weight for size in cost.sizes) for cost in costs)
    assert few == many
    assert many == 0 or sequential


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_what_is_saved_grows_like_the_outputs(inner_steps):
    lengths = (8, 16, 32)
    costs = [Cost(steps, window=32, inner_steps=inner_steps) for steps in lengths]
    sizes = [cost.saved - cost.weight for cost in costs]
    for saved, steps in zip(sizes, lengths, strict=True):
        assert saved < (4 + 3 * inner_steps) * steps * 2 * 128
    assert sizes[2] - sizes[1] < 2.5 * (sizes[1] - sizes[0])
