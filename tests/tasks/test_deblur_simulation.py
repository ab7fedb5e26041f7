"""The simulation of HP87 §4: data, nets side by side, and the effects that the paper states."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fw_rl.fast_slow import FastSlowSGD, fast_weights
from fw_rl.tasks.deblur.simulation import (
    Associations,
    Protocol,
    Rates,
    choose,
    draw_task,
    forget,
    layered_nets,
    learn,
    recurrent_nets,
    rehearse,
)
from fw_rl.tasks.deblur.study import blur, part_of

SHORT = Protocol(learning_sweeps=600, interfering_sweeps=300, seeds=3)
SMALL = Protocol(associations=20, hidden=30, seeds=3)
RATES = Rates()


@pytest.fixture(scope="module")
def study():
    return blur(layered_nets(SHORT), draw_task(SHORT), SHORT, RATES)


def test_the_defaults_are_those_of_the_paper():
    protocol, rates = Protocol(), Rates()
    assert (protocol.inputs, protocol.hidden, protocol.outputs) == (10, 100, 10)
    assert (protocol.associations, protocol.interfering) == (100, 5)
    assert (protocol.learning_sweeps, protocol.interfering_sweeps, protocol.rehearsal_sweeps) == (1300, 400, 20)
    assert (rates.slow_lr, rates.slow_momentum, rates.decay) == (0.02, 0.9, 0.99)


@pytest.mark.parametrize("steps, shape", [(None, (10,)), (4, (4, 10))])
def test_inputs_are_binary_and_all_different(steps, shape):
    protocol = Protocol(seeds=3)
    old, new = draw_task(protocol, steps)
    assert old.inputs.shape == (3, 100, *shape)
    assert new.inputs.shape == (3, 5, *shape)
    assert old.targets.shape == (3, 100, 10)
    inputs = torch.cat([old.inputs, new.inputs], dim=1).flatten(2)
    for part in (inputs, old.targets):
        assert set(part.unique().tolist()) == {0.0, 1.0}
        assert part.mean().item() == pytest.approx(0.5, abs=0.05)
    assert all(len(seed.unique(dim=0)) == 105 for seed in inputs)
    assert not torch.equal(inputs[0], inputs[1])


def test_all_inputs_there_are_can_be_used():
    old, new = draw_task(replace(SMALL, inputs=3, associations=6, interfering=2))
    codes = torch.cat([old.inputs, new.inputs], dim=1) @ torch.tensor([1.0, 2.0, 4.0])
    assert torch.equal(codes.sort(dim=1).values, torch.arange(8.0).expand(3, -1))


def test_a_seed_gives_the_same_whatever_its_neighbours_are():
    first, shifted = Protocol(seeds=3), Protocol(seeds=2, seed=1)
    assert torch.equal(draw_task(first).old.inputs[1:], draw_task(shifted).old.inputs)
    assert torch.equal(choose(first, 50)[1:], choose(shifted, 50))
    ours, theirs = layered_nets(first).weights, layered_nets(shifted).weights
    assert all(torch.equal(ours[name][1:], theirs[name]) for name in ours)


def test_slow_weights_start_within_a_range_fast_ones_at_zero():
    for name, part in layered_nets(Protocol(seeds=3, init=0.2)).weights.items():
        if name.endswith("fast"):
            assert not part.any()
        else:
            assert 0.1 < part.abs().max() <= 0.2


def test_subsets_have_their_size_and_lie_within_larger_ones():
    small, large = (choose(Protocol(seeds=4), count) for count in (10, 60))
    assert small.sum(1).tolist() == [10] * 4
    assert large.sum(1).tolist() == [60] * 4
    assert (large | ~small).all()
    assert not torch.equal(small[0], small[1])


@pytest.mark.parametrize("percent, count", [(10, 10), (50, 50), (99, 99)])
def test_a_percentage_is_a_number_of_associations(percent, count):
    assert part_of(Protocol(), percent) == count


@pytest.mark.parametrize("percent", [0, 100, 120, -5])
def test_a_subset_is_neither_none_nor_all(percent):
    with pytest.raises(ValueError, match="must be neither none nor all, got"):
        part_of(Protocol(), percent)


@pytest.mark.parametrize("build", [layered_nets, lambda protocol: recurrent_nets(protocol, eta=0.5, decay=0.9)])
def test_nets_side_by_side_learn_like_each_by_itself(build):
    protocol = replace(SMALL, hidden=6, associations=8)
    task = draw_task(protocol, steps=None if build is layered_nets else 3)
    nets, shown = build(protocol), choose(protocol, 5)
    alone = [nets.member(seed) for seed in range(protocol.seeds)]
    learn(nets, task.old, replace(RATES, fast_lr=0.0), 5, shown)
    for seed, net in enumerate(alone):
        x, target = (part[seed][shown[seed]] for part in task.old)
        optimizer = torch.optim.SGD(net.parameters(), lr=RATES.slow_lr, momentum=RATES.slow_momentum)
        for _ in range(5):
            optimizer.zero_grad()
            ((net(x) - target).square().sum() / 2).backward()
            optimizer.step()
        assert_close(nets(task.old.inputs)[seed], net(task.old.inputs[seed]), rtol=1e-4, atol=1e-5)


def test_slow_and_fast_weights_learn_side_by_side_too():
    nets, task = layered_nets(SMALL), draw_task(SMALL)
    net = nets.net
    learn(nets, task.old, RATES, 5)
    optimizer = FastSlowSGD(net.named_parameters(), **vars(RATES))
    for _ in range(5):
        optimizer.zero_grad()
        ((net(task.old.inputs[0]) - task.old.targets[0]).square().sum() / 2).backward()
        optimizer.step()
    for name, part in net.named_parameters():
        assert_close(nets.weights[name][0], part, rtol=1e-4, atol=1e-6)
    assert all(part.any() for part in fast_weights(net).values())


def test_a_copy_learns_apart_from_the_original(study):
    before = {name: part.clone() for name, part in study.blurred.weights.items()}
    rehearse(study.blurred, study.task, choose(SHORT, 10), RATES, 3)
    assert all(torch.equal(part, before[name]) for name, part in study.blurred.weights.items())


def test_errors_are_means_over_output_units():
    protocol = replace(SMALL, seeds=2)
    nets, data = layered_nets(protocol), draw_task(protocol).old
    miss = (nets(data.inputs) - data.targets).detach().numpy()
    errors = nets.errors(data)
    np.testing.assert_allclose(errors[..., 0], np.abs(miss).mean(2), rtol=1e-5)
    np.testing.assert_allclose(errors[..., 1], (miss**2).mean(2), rtol=1e-5)


def test_a_course_splits_the_old_associations(study):
    shown = choose(SHORT, 30)
    nets, course = rehearse(study.blurred, study.task, shown, RATES, 4)
    assert course.retrained.shape == course.unretrained.shape == course.new.shape == (5, 3, 2)
    for time, looked_at in ((0, study.blurred), (4, nets)):
        errors = looked_at.errors(study.task.old)
        for seed in range(3):
            assert_close(course.retrained[time, seed], errors[seed][shown[seed]].mean(0))
            assert_close(course.unretrained[time, seed], errors[seed][~shown[seed]].mean(0))
        assert_close(course.new[time], looked_at.errors(study.task.new).mean(1))


def test_forgetting_fades_the_fast_weights_alone(study):
    shown = choose(SHORT, 50)
    nets, course = rehearse(study.blurred, study.task, shown, RATES, 5)
    later = forget(nets, study.task, shown, 0.9, [0, 3])
    assert_close(later.new[0], course.new[-1])
    slow = {name: part for name, part in nets.weights.items() if not name.endswith("fast")}
    faded = nets.faded(0.9**3)
    assert all(torch.equal(faded.weights[name], part) for name, part in slow.items())
    fast = [name for name in nets.weights if name.endswith("fast")]
    assert all(torch.equal(faded.weights[name], nets.weights[name] * 0.9**3) for name in fast)
    assert_close(later.new[1], faded.errors(study.task.new).mean(1))


def mean(errors):
    return errors[..., 0].mean().item()


def test_old_associations_are_learned_and_then_blurred(study):
    assert mean(study.learned.errors(study.task.old)) < 0.1
    assert mean(study.blurred.errors(study.task.old)) > 0.2
    assert mean(study.blurred.errors(study.task.new)) < 0.1


def test_rehearsing_a_half_restores_the_other_half(study):
    _, course = rehearse(study.blurred, study.task, choose(SHORT, 50), RATES, 20)
    gains = [(part[0] - part[-1])[:, 0].mean() for part in (course.unretrained, course.retrained)]
    assert gains[1] > 0.15
    assert gains[0] > 0.5 * gains[1]


def test_the_new_associations_return_as_the_fast_weights_decay(study):
    shown = choose(SHORT, 50)
    before = mean(study.blurred.faded(0.0).errors(study.task.new))
    after = {}
    for name, rates in (("fast", replace(RATES, slow_lr=0.0)), ("slow", replace(RATES, fast_lr=0.0))):
        nets, course = rehearse(study.blurred, study.task, shown, rates, 20)
        assert mean(course.new[-1]) > 2 * before
        after[name] = mean(forget(nets, study.task, shown, 0.99, [1000]).new)
    assert after["fast"] == pytest.approx(before, rel=0.01)
    assert after["slow"] > 2 * before


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_recurrent_nets_tell_sequences_apart_by_their_order(eta):
    protocol = replace(SMALL, hidden=8, seeds=2)
    nets, task = recurrent_nets(protocol, eta, 0.9), draw_task(protocol, steps=3)
    x = task.old.inputs
    assert nets(x).shape == (2, 20, 10)
    assert (nets(x) - nets(x.flip(2))).abs().max() > 1e-3
    before = mean(nets.errors(task.old))
    learn(nets, Associations(*task.old), replace(RATES, slow_lr=0.01), 30)
    assert mean(nets.errors(task.old)) < before
    assert isinstance(nets.member(0), nn.Module)


def test_recurrent_nets_leave_the_global_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    recurrent_nets(SMALL, 0.5, 0.9)
    assert torch.equal(torch.rand(1), expected)
