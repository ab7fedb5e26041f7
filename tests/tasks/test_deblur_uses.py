"""HP87 §1: temporary learning in one trial, and temporary bindings."""

from dataclasses import replace

import pytest
import torch

from fw_rl.tasks.deblur.simulation import Protocol, Rates, draw_task, layered_nets, learn
from fw_rl.tasks.deblur.uses import bind, learn_in_one_trial

SMALL = Protocol(associations=20, hidden=60, seeds=3)


@pytest.fixture(scope="module")
def trial():
    nets, task = layered_nets(SMALL), draw_task(SMALL)
    learn(nets, task.old, replace(Rates(), slow_lr=0.05), 300)
    return learn_in_one_trial(nets, task, decay=0.99, times=[1, 100, 1000])


def test_one_presentation_stores_a_new_association(trial):
    assert trial["untaught"].max() < 0.8
    assert torch.equal(trial["new"][0], torch.ones(3, dtype=torch.float64))


def test_it_is_gone_after_the_decay(trial):
    assert (trial["new"][1] < trial["new"][0]).all()
    assert torch.equal(trial["new"][2], trial["untaught"])


def test_old_associations_are_as_before_after_the_decay(trial):
    assert trial["blank"].min() > 0.95
    assert (trial["old"][0] < trial["blank"]).all()
    assert trial["old"][0].min() > 0.6
    assert torch.equal(trial["old"][2], trial["blank"])


def bindings(**options):
    settings = dict(scenes=50, objects=4, vocabulary=8, size=128, decay=0.99, later=300) | options
    return bind(**settings, generator=torch.Generator().manual_seed(0))


def test_each_shape_is_bound_to_one_colour_then_another():
    bound = bindings()
    assert bound["first"] > 0.99
    assert bound["second"] > 0.99
    assert bound["stale"] < 0.01
    assert bound["chance"] == 1 / 8


def test_bindings_last_for_a_while_only():
    assert bindings(later=0)["answered"] > 0.99
    assert bindings()["answered"] == 0


def test_short_vectors_interfere():
    assert bindings(size=4)["first"] < 0.9
