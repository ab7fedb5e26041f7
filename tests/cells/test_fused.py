"""The ReLU net, the LSTM and the GRU beside PyTorch's own layers and beside their equations."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fw_rl.cells import GRUCell, LSTMCell, RNNCell, gated_numba
from tests.cells.reference import rand, scrambled

T, B, I, H = 9, 3, 4, 5  # noqa: E741

LAYERS = {
    RNNCell: lambda: nn.RNN(I, H, nonlinearity="relu"),
    LSTMCell: lambda: nn.LSTM(I, H),
    GRUCell: lambda: nn.GRU(I, H),
}

EVERY_FUSED_CELL = pytest.mark.parametrize("cell_class", LAYERS)


def cell_and_layer(cell_class):
    """A cell with random weights and an `nn` layer with the same."""
    cell, layer = scrambled(cell_class(I, H)), LAYERS[cell_class]().double()
    layer.load_state_dict(cell.core.state_dict())
    return cell, layer


@EVERY_FUSED_CELL
@pytest.mark.parametrize("steps", [1, 2, T])
def test_without_starts_the_cell_is_the_layer_of_torch(cell_class, steps):
    cell, layer = cell_and_layer(cell_class)
    x = rand(steps, B, I, seed=1)
    y, state = cell(x, cell.initial_state(B))
    expected, last = layer(x)
    assert_close(y, expected)
    last = last if isinstance(last, tuple) else (last,)
    assert_close(state, tuple(part.squeeze(0) for part in last))


@EVERY_FUSED_CELL
def test_each_episode_is_that_of_the_torch_layer(cell_class):
    cell, layer = cell_and_layer(cell_class)
    x, starts = rand(T, B, I, seed=1), rand(T, B, seed=2) > 0.7
    assert starts.any()
    y, _ = cell(x, cell.initial_state(B), starts)
    for row in range(B):
        edges = sorted({0, T, *starts[:, row].nonzero().flatten().tolist()})
        for begin, end in pairwise(edges):
            expected, _ = layer(x[begin:end, row])
            assert_close(y[begin:end, row], expected)


@EVERY_FUSED_CELL
def test_gradients_are_those_of_the_layer_of_torch(cell_class):
    cell, layer = cell_and_layer(cell_class)
    x, target = rand(T, B, I, seed=1), rand(T, B, H, seed=2)
    (cell(x, cell.initial_state(B))[0] - target).square().sum().backward()
    (layer(x)[0] - target).square().sum().backward()
    for ours, theirs in zip(cell.core.parameters(), layer.parameters(), strict=True):
        assert_close(ours.grad, theirs.grad)


@EVERY_FUSED_CELL
def test_a_sequence_is_cut_only_at_its_starts(cell_class, monkeypatch):
    cell, lengths = scrambled(cell_class(I, H)), []
    run = cell._run
    monkeypatch.setattr(cell, "_run", lambda x, state: (lengths.append(len(x)), run(x, state))[1])
    starts = torch.zeros(T, B, dtype=torch.bool)
    starts[[0, 4, 4, 7], [0, 1, 2, 0]] = True
    for episode_starts, expected in ((None, [T]), (torch.zeros_like(starts), [T]), (starts, [4, 3, 2])):
        lengths.clear()
        cell.unroll(rand(T, B, I), cell.initial_state(B), episode_starts)
        assert lengths == expected


@pytest.mark.parametrize("starts_at", [None, 0.7, -9.0], ids=["no start", "some starts", "starts everywhere"])
@pytest.mark.parametrize("most", [0, gated_numba.MOST], ids=["products of Torch", "products of the kernel"])
@pytest.mark.parametrize("make", [LSTMCell, GRUCell, RNNCell, partial(RNNCell, bound=0.4)])
def test_kernels_have_the_numbers_and_gradients_of_torch(make, most, starts_at, monkeypatch):
    monkeypatch.setattr(gated_numba, "MOST", most)
    cell, x = scrambled(make(I, H)), rand(T, B, I, seed=1).requires_grad_()
    starts = None if starts_at is None else rand(T, B, seed=2) > starts_at
    state = tuple(rand(B, H, seed=3 + part).requires_grad_() for part in range(len(cell.initial_state(B))))
    wanted, found = (x, *cell.parameters(), *state), []
    for run in (cell.unroll, cell):
        y, last = run(x, state, starts)
        loss = sum((part * rand(*part.shape, seed=6)).sum() for part in (y, *last))
        found.append((y, *last, *torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)))
    assert_close(*found)
    replayed = cell.replay(x, state, starts, found[0][0].detach())
    gradients = [
        torch.autograd.grad((y * rand(T, B, H, seed=6)).sum(), wanted, materialize_grads=True)
        for y in (cell.unroll(x, state, starts)[0], replayed)
    ]
    assert_close(replayed, found[0][0])
    assert_close(*gradients)


@EVERY_FUSED_CELL
def test_kernels_in_float32_are_near_those_of_torch(cell_class):
    torch.manual_seed(0)
    cell, x = cell_class(64, 64), torch.randn(100, B, 64)
    assert_close(cell(x, cell.initial_state(B)), cell.unroll(x, cell.initial_state(B)), rtol=0, atol=2e-6)


@EVERY_FUSED_CELL
@pytest.mark.parametrize(
    "changes", [{}, {(3, 1): False}, {(4, 1): True}, {(0, 0): False}], ids=["whole", "late", "early", "goes on"]
)
def test_episodes_of_one_length_run_side_by_side(cell_class, changes, monkeypatch):
    cell, shapes = scrambled(cell_class(I, H)), []
    run = cell._run
    starts = torch.zeros(T, B, dtype=torch.bool)
    starts[::3] = True
    for place, begins in changes.items():
        starts[place] = begins
    x, state = rand(T, B, I, seed=1), tuple(rand(*part.shape, seed=2) for part in cell.initial_state(B))
    expected, before = [], state
    for t in range(T):
        y, before = cell(x[t : t + 1], before, starts[t : t + 1])
        expected.append(y)
    monkeypatch.setattr(cell, "_run", lambda x, state: (shapes.append(tuple(x.shape[:2])), run(x, state))[1])
    y, last = cell.unroll(x, state, starts)
    assert (shapes == [(3, 3 * B)]) == (not changes)
    assert_close(y, torch.cat(expected))
    assert_close(last, before)
    assert_close(cell(x, state, starts), (y, last))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("bound", [20.0, 0.4])
def test_rnn_is_its_equation(bound):
    cell, x = scrambled(RNNCell(I, H, bound=bound)), rand(T, I, seed=1)
    W, C = cell.core.weight_hh_l0.detach().numpy(), cell.core.weight_ih_l0.detach().numpy()
    bias = (cell.core.bias_ih_l0 + cell.core.bias_hh_l0).detach().numpy()
    h, expected = np.zeros(H), []
    for t in range(T):
        h = np.minimum(np.maximum(0, W @ h + C @ x[t].numpy() + bias), bound)
        expected.append(h)
    assert (np.max(expected) == bound) == (bound < 1)
    assert_close(cell(x[:, None], cell.initial_state(1))[0][:, 0], torch.tensor(np.array(expected)))


def test_a_state_that_is_stretched_does_not_grow_without_end():
    x = torch.ones(400, 1, I)
    ends = []
    for bound in (20.0, math.inf):
        torch.manual_seed(0)
        cell = RNNCell(I, H, recurrent_scale=2.0, bound=bound)
        y, _ = cell(x, cell.initial_state(1))
        ends.append(y[-1].max())
        gradient = torch.autograd.grad(y[-1].sum(), list(cell.parameters()), allow_unused=True)
        assert all(part.isfinite().all() for part in gradient) == (bound == 20)
    assert ends[0] == 20
    assert not ends[1].isfinite()


def test_a_bound_must_be_above_0():
    with pytest.raises(ValueError, match=r"^bound must be above 0, got 0$"):
        RNNCell(I, H, bound=0)


def test_lstm_is_its_equations_with_state_h_and_c():
    cell, x = scrambled(LSTMCell(I, H)), rand(T, I, seed=1)
    W, C = cell.core.weight_hh_l0.detach().numpy(), cell.core.weight_ih_l0.detach().numpy()
    bias = (cell.core.bias_ih_l0 + cell.core.bias_hh_l0).detach().numpy()
    h, c = np.zeros(H), np.zeros(H)
    for t in range(T):
        i, f, g, o = np.split(W @ h + C @ x[t].numpy() + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    _, state = cell(x[:, None], cell.initial_state(1))
    assert_close(state, (torch.tensor(h)[None], torch.tensor(c)[None]))


@EVERY_FUSED_CELL
def test_the_first_part_of_the_state_is_the_last_output(cell_class):
    cell = scrambled(cell_class(I, H))
    for steps in (1, T):
        y, state = cell(rand(steps, B, I), cell.initial_state(B))
        assert len(state) == (2 if cell_class is LSTMCell else 1)
        assert torch.equal(state[0], y[-1])


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_irnn_starts_at_a_scaled_identity(scale):
    core = (RNNCell(40, 100) if scale == 0.5 else RNNCell(40, 100, recurrent_scale=scale)).core
    assert torch.equal(core.weight_hh_l0, scale * torch.eye(100))
    assert not core.bias_ih_l0.any()
    assert not core.bias_hh_l0.any()
    assert 0.095 < core.weight_ih_l0.abs().max() <= 0.1
    assert core.weight_ih_l0.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("bias", [None, 0.0, 2.5])
def test_lstm_starts_with_a_bias_on_its_forget_gate_only(bias):
    torch.manual_seed(0)
    core = (LSTMCell(I, 50) if bias is None else LSTMCell(I, 50, forget_bias=bias)).core
    total = (core.bias_ih_l0 + core.bias_hh_l0).detach()
    assert torch.equal(total[50:100], torch.full((50,), 1.0 if bias is None else bias))
    others = torch.cat([total[:50], total[100:]])
    assert others.abs().max() <= 2 / math.sqrt(50)
    assert others.abs().min() > 0


@pytest.mark.parametrize("bias", [0.0, 1.0, 20.0])
def test_the_forget_bias_is_what_c_keeps_of_itself(bias):
    cell = LSTMCell(I, H, forget_bias=bias)
    with torch.no_grad():
        for name, parameter in cell.core.named_parameters():
            if name.startswith("weight"):
                parameter.zero_()
            else:
                parameter[2 * H : 3 * H] = 0.0  # the candidate, so that nothing is added to c
    _, (_, c) = cell(torch.zeros(T, 1, I), (torch.zeros(1, H), torch.full((1, H), 3.0)))
    assert_close(c, torch.full((1, H), 3.0 * float(sigmoid(bias)) ** T))


@EVERY_FUSED_CELL
@pytest.mark.parametrize("sizes, name", [((0, H), "input_size"), ((I, 0), "hidden_size"), ((-2, H), "input_size")])
def test_a_size_below_one_is_named_in_one_line(cell_class, sizes, name):
    with pytest.raises(ValueError, match=rf"^{name} must be at least 1, got (0|-2)$"):
        cell_class(*sizes)
