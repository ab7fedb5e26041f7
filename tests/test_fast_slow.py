"""Slow and fast weights on any module, their optimiser, and the linear layer whose fast weights are a memory."""

import copy
import doctest

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.testing import assert_close

from fw_rl import fast_slow as module_under_test
from fw_rl import memory
from fw_rl.cells import make_cell
from fw_rl.fast_slow import (
    FastSlowSGD,
    associate,
    decay_fast_weights,
    fast_slow,
    fast_weights,
    is_fast,
    load_fast_weights,
    merge,
    recall,
)
from tests.cells.reference import scrambled

T, B, I, H = 6, 3, 4, 5  # noqa: E741


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Recurrent(nn.Module):
    """A cell or a layer of Torch as a function of x alone."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        if isinstance(self.layer, nn.RNNBase):
            return self.layer(x)[0]
        starts = torch.zeros(x.shape[:2], dtype=torch.bool)
        starts[3, 1] = starts[5, 0] = True  # Pieces of three steps, of two and of one.
        return self.layer(x, self.layer.initial_state(x.shape[1]), starts)[0]


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(I, I), nn.Linear(I, I)
        self.down.weight = self.up.weight

    def forward(self, x):
        return self.down(torch.tanh(self.up(x)))


MODULES = {
    "layers": lambda: nn.Sequential(nn.Linear(I, H), nn.Sigmoid(), nn.Linear(H, 2)),
    "tied": Tied,
    "fast-weights": lambda: Recurrent(make_cell("fast-weights", I, H, inner_steps=2, window=2)),
    "learned rates": lambda: Recurrent(make_cell("fast-weights", I, H, learn_eta=True, learn_decay=True)),
    "rnn": lambda: Recurrent(make_cell("rnn", I, H)),
    "lstm": lambda: Recurrent(make_cell("lstm", I, H)),
    "gru": lambda: Recurrent(make_cell("gru", I, H)),
    "lstm of torch": lambda: Recurrent(nn.LSTM(I, H, num_layers=2)),
}
EVERY_MODULE = pytest.mark.parametrize("name", MODULES)
CELLS = ("fast-weights", "rnn", "lstm", "gru")


def build(name):
    return scrambled(MODULES[name]())


def with_fast(net, seed=5):
    """The net with random fast weights."""
    fast_slow(net)
    for number, part in enumerate(fast_weights(net).values()):
        with torch.no_grad():
            part.copy_(0.3 * rand(*part.shape, seed=seed + number))
    return net


def test_a_module_with_two_names_has_one_fast_weight():
    layer = nn.Linear(I, I, bias=False)
    slow = layer.weight.detach().clone()
    net = with_fast(nn.Sequential(layer, layer))
    (fast,) = fast_weights(net).values()
    both = slow + fast.detach()
    assert_close(layer.weight, both)
    merge(net)
    assert_close(layer.weight, both)


@EVERY_MODULE
def test_a_module_computes_the_same_while_fast_is_zero(name):
    net, x = build(name), rand(T, B, I, seed=1)
    expected = net(x)
    assert fast_slow(net) is net
    assert torch.equal(net(x), expected)


@EVERY_MODULE
def test_slow_and_fast_have_the_gradient_of_the_plain_weight(name):
    x = rand(T, B, I, seed=1)
    net = with_fast(build(name))
    plain = merge(copy.deepcopy(net))
    net(x).square().sum().backward()
    plain(x).square().sum().backward()
    expected = dict(plain.named_parameters(remove_duplicate=False))
    pairs = {label: (chain.original.grad, chain[0].fast.grad) for label, chain in chains(net)}
    assert set(pairs) == set(expected)
    for label, (slow, fast) in pairs.items():
        assert torch.equal(slow, fast)
        assert_close(slow, expected[label].grad)
        assert slow.abs().max() > 0


def chains(net):
    for prefix, owner in net.named_modules():
        if parametrize.is_parametrized(owner):
            for name, chain in owner.parametrizations.items():
                yield f"{prefix}.{name}".lstrip("."), chain


@EVERY_MODULE
def test_the_effective_weight_is_the_sum(name):
    net, x = build(name), rand(T, B, I, seed=1)
    before = net(x)
    slow = {label: part.detach().clone() for label, part in net.named_parameters(remove_duplicate=False)}
    with_fast(net)
    plain = build(name)
    plain.load_state_dict({label: slow[label] + part for label, part in fast_weights(net).items()})
    assert_close(net(x), plain(x))
    assert (net(x) - before).abs().max() > 1e-3
    with parametrize.cached():
        assert_close(net(x), plain(x))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("steps", [1, T])
def test_a_replay_sees_the_sum_too(name, steps):
    cell, x = with_fast(build(name)).layer, rand(steps, B, I, seed=1)
    outputs, _ = cell(x, cell.initial_state(B))
    weights = rand(*outputs.shape, seed=2)
    parameters = list(cell.parameters())
    expected = torch.autograd.grad((outputs * weights).sum(), parameters, materialize_grads=True)
    replayed = cell.replay(x, cell.initial_state(B), None, outputs.detach())
    assert_close(replayed, outputs)
    assert_close(torch.autograd.grad((replayed * weights).sum(), parameters, materialize_grads=True), expected)


def test_only_the_chosen_parameters_get_a_fast_weight():
    net = fast_slow(build("layers"), names=["0.weight", "2.bias"])
    assert list(fast_weights(net)) == ["0.weight", "2.bias"]
    fast_slow(net, names=["0.bias"])
    assert set(fast_weights(net)) == {"0.weight", "0.bias", "2.bias"}
    fast_slow(net)
    assert len(fast_weights(net)) == 4


def test_tied_parameters_stay_tied():
    for names in (None, ["down.weight"]):
        net = fast_slow(Tied(), names)
        own = fast_weights(net)
        assert own["up.weight"] is own["down.weight"]
        with torch.no_grad():
            own["up.weight"].add_(1.0)
        assert torch.equal(net.up.weight, net.down.weight)
        weight = net.up.weight.detach().clone()
        merge(net)
        assert net.up.weight is net.down.weight
        assert torch.equal(net.up.weight, weight)


def test_a_name_that_is_no_plain_parameter_gets_one_line():
    net = build("layers")
    with pytest.raises(ValueError, match=r"^names must be among 0.weight, 0.bias, 2.weight, 2.bias, got '1.weight'$"):
        fast_slow(net, names=["0.weight", "1.weight"])
    assert not fast_weights(net)
    fast_slow(net)
    with pytest.raises(ValueError, match=r"plain parameter.*, got"):
        fast_slow(net)
    with pytest.raises(ValueError, match=r"plain parameter.*, got"):
        fast_slow(net, names=["0.weight"])


@EVERY_MODULE
def test_merging_leaves_a_plain_module_with_the_sums(name):
    plain, x = build(name), rand(T, B, I, seed=1)
    names, kind = list(plain.state_dict()), [type(part) for part in plain.modules()]
    net = with_fast(copy.deepcopy(plain))
    expected = net(x)
    assert merge(net) is net
    assert (list(net.state_dict()), [type(part) for part in net.modules()]) == (names, kind)
    assert_close(net(x), expected)


def test_merging_a_copy_leaves_the_original_alone():
    net, x = with_fast(build("layers")), rand(B, I)
    expected = net(x)
    for _ in range(2):
        assert_close(merge(copy.deepcopy(net))(x), expected)
        assert len(fast_weights(net)) == 4
        assert torch.equal(net(x), expected)


@EVERY_MODULE
def test_a_state_dict_carries_both_over(name):
    net, other, x = with_fast(build(name)), with_fast(build(name), seed=50), rand(T, B, I, seed=1)
    assert (net(x) - other(x)).abs().max() > 1e-3
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x), net(x))
    assert all(torch.equal(part, fast_weights(net)[label]) for label, part in fast_weights(other).items())


def test_fast_weights_can_be_saved_and_loaded_by_themselves():
    net, x = with_fast(build("layers")), rand(B, I)
    context, expected = {label: part.detach().clone() for label, part in fast_weights(net).items()}, net(x)
    decay_fast_weights(net, 0.0)
    assert not any(part.any() for part in fast_weights(net).values())
    assert (net(x) - expected).abs().max() > 1e-3
    load_fast_weights(net, context)
    assert torch.equal(net(x), expected)
    for wrong in ({}, context | {"1.bias": torch.zeros(1)}, context | {"0.bias": torch.zeros(1)}):
        with pytest.raises(
            ValueError, match=r"^values must be the fast weights of this module \(0\.weight, 0\.bias, 2.*\) .*, got .*$"
        ):
            load_fast_weights(net, wrong)


@pytest.mark.parametrize("name", ["layers", "tied"])
@pytest.mark.parametrize("steps", [1, 3])
def test_decay_is_exact_and_leaves_the_slow_weights(name, steps):
    net = with_fast(build(name))
    before = {label: part.detach().clone() for label, part in net.named_parameters()}
    decay_fast_weights(net, 0.5, steps)
    for label, part in net.named_parameters():
        assert torch.equal(part, before[label] * 0.5**steps if is_fast(label) else before[label])


def test_names_of_fast_weights():
    net = fast_slow(nn.ModuleDict(dict(fast=nn.Linear(1, 1))), names=["fast.weight"])
    assert [label for label, _ in net.named_parameters() if is_fast(label)] == ["fast.parametrizations.weight.0.fast"]
    assert not is_fast("fast.weight")
    assert not is_fast("net.fast")


def optimizer_of(net, **options):
    rates = dict(slow_lr=0.1, slow_momentum=0.5, fast_lr=0.2, fast_momentum=0.25, decay=0.5) | options
    return FastSlowSGD(net.named_parameters(), **rates)


def test_the_optimiser_makes_the_changes_of_section_3():
    net = fast_slow(nn.Linear(1, 1, bias=False))
    (chain,) = (chain for _, chain in chains(net))
    slow, fast = chain.original, chain[0].fast
    with torch.no_grad():
        slow.fill_(1.0)
    optimizer = optimizer_of(net)
    # E = w^2 / 2 with w = slow + fast, so that dE/dw = w.
    expected_slow, expected_fast, slow_change, fast_change = 1.0, 0.0, 0.0, 0.0
    for _ in range(4):
        optimizer.zero_grad()
        (net(torch.ones(1, 1)).square() / 2).sum().backward()
        optimizer.step()
        w = expected_slow + expected_fast
        slow_change, fast_change = 0.5 * slow_change - 0.1 * w, 0.25 * fast_change - 0.2 * w
        expected_slow, expected_fast = expected_slow + slow_change, 0.5 * (expected_fast + fast_change)
        assert slow.item() == pytest.approx(expected_slow, abs=1e-6)
        assert fast.item() == pytest.approx(expected_fast, abs=1e-6)


def test_without_a_fast_weight_a_parameter_learns_like_slow_ones():
    one, other = build("layers"), build("layers")
    fast_slow(other, names=["0.weight"])
    optimizer, plain = optimizer_of(other, fast_lr=0.0), torch.optim.SGD(one.parameters(), lr=0.1, momentum=0.5)
    for _ in range(3):
        for net, descent in ((one, plain), (other, optimizer)):
            descent.zero_grad()
            net(rand(B, I)).square().sum().backward()
            descent.step()
    assert_close(merge(other).state_dict(), one.state_dict())


def test_fast_weights_decay_in_a_step_without_a_gradient():
    net = with_fast(build("layers"))
    before = {label: part.detach().clone() for label, part in fast_weights(net).items()}
    optimizer_of(net).step()
    assert all(torch.equal(part, 0.5 * before[label]) for label, part in fast_weights(net).items())


def test_an_optimiser_goes_on_from_its_state():
    nets = [with_fast(build("layers")) for _ in range(2)]
    optimizers = [optimizer_of(net) for net in nets]

    def step(number):
        optimizers[number].zero_grad()
        nets[number](rand(B, I)).square().sum().backward()
        optimizers[number].step()

    step(0)
    step(0)
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    step(0)
    step(1)
    assert_close(nets[1].state_dict(), nets[0].state_dict(), rtol=0, atol=0)


def test_what_does_not_learn_has_fast_weights_that_do_not():
    cell = make_cell("fast-weights", 3, 8, learn_recurrent=False, recurrent_scale=0.0)
    fast_slow(cell)
    optimizer = optimizer_of(cell)
    for _ in range(3):
        optimizer.zero_grad()
        cell(torch.ones(4, 2, 3))[0].square().sum().backward()
        optimizer.step()
    assert not cell.recurrent_map.weight.any() and not cell.recurrent_map.weight.requires_grad
    assert cell.input_map.weight.requires_grad


def test_a_change_keeps_its_length_when_the_rate_changes():
    """change(t) = momentum change(t-1) - lr gradient, by hand: -0.1, then 0.9 (-0.1) - 0.01 = -0.1."""
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(net.weight)
    optimizer = FastSlowSGD(net.named_parameters(), slow_lr=0.1, slow_momentum=0.9, fast_lr=0.0, fast_momentum=0.0)
    for expected, rate in ((-0.1, 0.01), (-0.2, 0.01)):
        net.weight.grad = torch.ones_like(net.weight)
        optimizer.step()
        assert net.weight.item() == pytest.approx(expected)
        optimizer.param_groups[0]["lr"] = rate


def test_a_hook_of_a_step_is_called_once():
    net, calls = torch.nn.Linear(2, 2), []
    torch.optim.SGD(net.parameters(), lr=0.1)  # from which on Torch calls the hooks of all
    optimizer = optimizer_of(fast_slow(net))
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert calls == [1]


@pytest.mark.parametrize(
    "option", [dict(decay=1.5), dict(decay=-0.1), dict(slow_lr=-1.0), dict(fast_lr=float("nan")), dict(fast_momentum=-1.0)]
)
def test_the_optimiser_names_what_is_out_of_range(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"^{name} must be .*, got {value}$"):
        optimizer_of(fast_slow(nn.Linear(1, 1)), **option)


DECAY, LR = 0.9, 0.1


@pytest.mark.parametrize("fold_after", [None, 0, 2])
def test_fast_weights_of_a_layer_are_a_memory_of_presentations(fold_after):
    """Gradient descent through a parametrization, and writes to the memory of the fast-weight cell, end in the same weights."""
    layer = nn.Linear(I, 2).double()
    trained, fast = fast_slow(copy.deepcopy(layer), names=["weight"]), memory.empty(1, I, value_size=2, like=layer.weight)
    optimizer = optimizer_of(trained, slow_lr=0.0, fast_lr=LR, fast_momentum=0.0, decay=DECAY)
    for number in range(5):
        x, target = rand(1, I, seed=number), rand(1, 2, seed=10 + number)
        assert_close(recall(layer, fast, x, DECAY), trained(x))
        optimizer.zero_grad()
        ((trained(x) - target).square().sum() / 2).backward()
        optimizer.step()
        fast = associate(layer, fast, x, target, LR, DECAY)
        if number == fold_after:
            fast = memory.fold(fast)
    assert_close(DECAY * memory.fold(fast).matrix[0], fast_weights(trained)["weight"])
    assert fast.keys.shape[1] == (5 if fold_after is None else 4 - fold_after)


def test_fast_weights_of_a_hidden_layer_remember_error_signals():
    net = build("layers")
    fast_slow(net, names=["0.weight"])
    optimizer = optimizer_of(net, slow_lr=0.0, fast_lr=LR, fast_momentum=0.0, decay=DECAY)
    fast = memory.empty(1, I, value_size=H, like=rand(1))
    for number in range(4):
        x = rand(1, I, seed=number)
        driven = net[0](x).detach().requires_grad_()
        (signal,) = torch.autograd.grad(net[1:](driven).square().sum() / 2, driven)
        fast = memory.write(fast, -signal, x, torch.full((1,), LR, dtype=x.dtype), DECAY)
        optimizer.zero_grad()
        (net(x).square().sum() / 2).backward()
        optimizer.step()
    query = rand(1, I, seed=9)
    assert_close(DECAY * memory.read(fast, query), F.linear(query, fast_weights(net)["0.weight"]))


def test_with_input_as_target_it_is_the_delta_rule():
    layer = nn.Linear(H, H, bias=False).double()
    nn.init.zeros_(layer.weight)
    ours = theirs = memory.empty(B, H, separate_values=True, like=layer.weight)
    strength = torch.full((B,), LR, dtype=torch.float64)
    for number in range(4):
        value, unit = memory.delta(theirs, rand(B, H, seed=number), DECAY)
        theirs = memory.write(theirs, value, unit, strength, DECAY)
        ours = associate(layer, ours, unit, unit, LR, DECAY)
    assert_close(tuple(ours), tuple(theirs))


def test_one_presentation_stores_an_association_and_rows_do_not_mix():
    layer, x, target = nn.Linear(I, 2).double(), rand(B, I), rand(B, 2, seed=1)
    fast = associate(layer, memory.empty(B, I, value_size=2, like=x), x, target, 1 / x.square().sum(1), DECAY)
    assert_close(recall(layer, fast, x, decay=1.0), target)
    gone = memory.fade(fast, DECAY**1000)
    assert_close(recall(layer, gone, x, DECAY), layer(x))
    alone = associate(layer, memory.empty(1, I, value_size=2, like=x), x[:1], target[:1], 1 / x[0].square().sum(), DECAY)
    assert_close(recall(layer, alone, x[:1], DECAY), recall(layer, fast, x, DECAY)[:1])


def test_examples_in_the_docstrings():
    result = doctest.testmod(module_under_test)
    assert result.attempted > 0
    assert result.failed == 0
