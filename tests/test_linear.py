"""Products by oneDNN, which this processor may not prefer: they and their gradients are those of Torch."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fw_rl import linear as module
from fw_rl.cells import make_cell
from fw_rl.linear import Linear, linear

INPUTS, OUTPUTS = 12, 7


@pytest.fixture
def onednn(monkeypatch):
    """A processor that prefers oneDNN for every product; gives how many it has made."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("Torch is built without oneDNN")
    made, multiply = [], module._multiply

    def count(*parts):
        made.append(parts)
        return multiply(*parts)

    monkeypatch.setattr(module, "LEAST", 0)
    monkeypatch.setattr(module, "_prefers_onednn", lambda: True)
    monkeypatch.setattr(module, "_multiply", count)
    return made


def parts(*, shape=(5, 3, INPUTS), bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = (shape, (OUTPUTS, INPUTS), (OUTPUTS,)) if bias else (shape, (OUTPUTS, INPUTS))
    return [torch.randn(size, generator=generator, requires_grad=True) for size in sizes]


@pytest.mark.parametrize("shape", [(INPUTS,), (4, INPUTS), (5, 3, INPUTS)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_and_gradients_are_those_of_torch(onednn, shape, bias):
    given = parts(shape=shape, bias=bias)
    ours, theirs = linear(*given), F.linear(*given)
    assert_close(ours, theirs)
    weights = torch.linspace(-1, 1, ours.numel()).view_as(ours)
    slopes = (torch.autograd.grad((product * weights).sum(), given) for product in (ours, theirs))
    for mine, other in zip(*slopes, strict=True):
        assert_close(mine, other)
    assert len(onednn) == 3  # forward, and the gradients of inputs and weights


def test_tensors_of_any_layout_are_taken(onednn):
    sliced, turned = torch.randn(6, 2 * INPUTS)[:, ::2], torch.randn(INPUTS, 6).T
    for x in (sliced, turned):
        for weight in (torch.randn(INPUTS, 2 * OUTPUTS)[:, ::2].T, torch.randn(INPUTS, OUTPUTS).T):
            assert_close(linear(x, weight), F.linear(x, weight))


def test_gradients_have_gradients(onednn):
    x, weight, bias = parts()

    def penalty(product):
        (slope,) = torch.autograd.grad(product(x, weight, bias).tanh().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (x, weight, bias))

    for ours, theirs in zip(penalty(linear), penalty(F.linear), strict=True):
        assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_only_what_is_asked_for_gets_a_gradient(onednn):
    x, weight, bias = parts()
    weight.requires_grad_(False)
    linear(x, weight, bias).sum().backward()
    assert weight.grad is None
    assert len(onednn) == 2
    with torch.no_grad():
        assert not linear(x, weight, bias).requires_grad


@pytest.mark.parametrize("others", ["float64", "autocast", "torch.func", "small"])
def test_other_products_stay_with_torch(onednn, others, monkeypatch):
    x, weight, bias = (part.detach() for part in parts())
    if others == "float64":
        x, weight, bias = x.double(), weight.double(), bias.double()
    if others == "small":
        monkeypatch.setattr(module, "LEAST", x.numel() * OUTPUTS + 1)
    with torch.autocast("cpu", enabled=others == "autocast"):
        product = torch.func.vmap(linear, (0, None, None)) if others == "torch.func" else linear
        assert product(x, weight, bias).shape == (5, 3, OUTPUTS)
    assert not onednn


@pytest.mark.parametrize("name", ["lru", "min-gru", "ffm", "shm", "delta-net", "lru-delta-net", "fast-weights", "lstm", "gru"])
def test_cells_learn_the_same(onednn, name, monkeypatch):
    torch.manual_seed(0)
    cell, x, starts = make_cell(name, INPUTS, 16), torch.randn(6, 4, INPUTS), torch.zeros(6, 4, dtype=torch.bool)
    starts[3, 1] = True

    def learn():
        y, _ = cell(x, cell.initial_state(4), starts)
        return torch.autograd.grad(y.square().sum(), list(cell.parameters()), allow_unused=True)

    ours = learn()
    assert onednn
    monkeypatch.setattr(module, "_prefers_onednn", lambda: False)
    for mine, other in zip(ours, learn(), strict=True):
        assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_a_linear_is_the_one_of_torch():
    ours = Linear(INPUTS, OUTPUTS)
    theirs = torch.nn.Linear(INPUTS, OUTPUTS)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, INPUTS)
    assert_close(ours(x), theirs(x))
    assert repr(ours) == repr(theirs)
