"""Search spaces are data: what the package's say, and what is refused in a user's."""

import dataclasses

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fw_rl.cells import available_cells
from fw_rl.experiments.search.space import search_space
from fw_rl.experiments.settings import resolve


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "spaces.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("cell", ["fast-weights", "lstm", "rnn", "gru"])
def test_every_cell_shares_the_same_ranges(cell):
    space, other = search_space(cell), search_space("lstm")
    assert space.shared == other.shared
    assert {"learning_rate", "ent_coef", "n_envs", "optimizer"} <= set(space.distributions)


@pytest.mark.parametrize("cell", available_cells())
def test_all_ranges_are_allowed(cell):
    search_space(cell).check(resolve(cell=cell))


@pytest.mark.parametrize(
    "text, message",
    [
        ("shared: {gamma: {low: 0.5, high: 2}}", "the range of gamma holds 2: --gamma must be between 0 and 1, got 2"),
        ("shared: {n_envs: {low: 0, high: 4}}", "the range of n_envs holds 0: --n-envs must be at least 1, got 0"),
        ("shared: {n_envs: {low: 2.0, high: 4.0}}", "the range of n_envs holds 2.0: it must be of type int"),
        (
            "shared: {learning_rate: {low: -1, high: 0.1}}",
            "the range of learning_rate holds -1: --learning-rate must be above 0 and finite, got -1",
        ),
        (
            "shared: {optimizer: {choices: [adam, sgd]}}",
            "the range of optimizer holds sgd: --optimizer must be one of rmsprop, adam, got 'sgd'",
        ),
        ("shared: {anneal: {choices: [true, 1]}}", "the range of anneal holds 1: it must be of type bool"),
        ("cells: {rnn: {elephant: {low: 1, high: 2}}}", "the range of elephant holds 1: cell 'rnn' has no option 'elephant'"),
    ],
)
def test_a_range_with_what_is_not_allowed_is_refused(text, message, write):
    with pytest.raises(ValueError, match=message):
        search_space("rnn", write(text)).check(resolve(cell="rnn"))


@pytest.mark.parametrize("env", ["Catch-16-3", "Catch-24-5", "CartPole-v1"])
@pytest.mark.parametrize("cell", available_cells())
def test_what_is_not_searched_is_the_same_for_all_cells(env, cell):
    """Else a comparison would be of what was tuned before as well."""
    of_cell = resolve(env=env, cell=cell, tuned_for_cell=False)
    of_lstm = resolve(env=env, cell="lstm", tuned_for_cell=False)
    assert dataclasses.replace(of_cell, cell="lstm", cell_options={}) == of_lstm


def test_what_is_drawn_takes_the_place_of_settings_and_options():
    space = search_space("fast-weights")
    config = resolve(cell="fast-weights")
    drawn = space.apply(config, dict(learning_rate=0.5, eta=0.25))
    assert (drawn.learning_rate, drawn.cell_options) == (0.5, config.cell_options | dict(eta=0.25))
    assert (drawn.n_envs, drawn.env) == (config.n_envs, config.env)


def test_a_file_of_ones_own(write):
    space = search_space(
        "rnn",
        write(
            "{shared: {n_steps: {low: 2, high: 8, log: true}, gamma: {low: 0.9, high: 1}},"
            " cells: {rnn: {a: {choices: [1, b]}}}}"
        ),
    )
    assert space.distributions == dict(
        n_steps=IntDistribution(2, 8, log=True), gamma=FloatDistribution(0.9, 1.0), a=CategoricalDistribution([1, "b"])
    )
    assert search_space("lstm", write("shared: {n_steps: {low: 2, high: 8}}")).own == {}


REFUSED = {
    "not YAML": ("{", "is not a YAML file"),
    "a list": ("[1]", "must have the entries shared and cells"),
    "another entry": ("{shared: {}, more: 1}", "must have the entries shared and cells"),
    "no such setting": ("shared: {speed: {low: 1, high: 2}}", "has no setting 'speed' to search: choose from"),
    "the seed": ("shared: {seed: {low: 1, high: 2}}", "has no setting 'seed' to search"),
    "the engine": ("shared: {engine: {choices: [local, ray]}}", "has no setting 'engine' to search"),
    "all options of a cell": ("shared: {cell_options: {choices: [1]}}", "has no setting 'cell_options' to search"),
    "twice": (
        "{shared: {gamma: {low: 0, high: 1}}, cells: {rnn: {gamma: {low: 0, high: 1}}}}",
        "has 'gamma' for every cell and",
    ),
    "nothing": ("cells: {gru: {a: {choices: [1]}}}", "has nothing to search for rnn"),
    "no range": ("shared: {gamma: 0.5}", "the range of gamma is 0.5: it must be"),
    "half a range": ("shared: {gamma: {low: 0.5}}", "the range of gamma is .*: it must be"),
    "no choices": ("shared: {gamma: {choices: []}}", "the range of gamma is .*: it must be"),
    "upside down": ("shared: {gamma: {low: 1.0, high: 0.5}}", "the range of gamma is"),
    "a logarithm of zero": ("shared: {gamma: {low: 0.0, high: 0.5, log: true}}", "the range of gamma is"),
    "a word": ("shared: {gamma: {low: small, high: 0.5}}", "the range of gamma is"),
    "no finite number": ("shared: {gamma: {low: 0.5, high: .inf}}", "the range of gamma is .* finite"),
    "truths as numbers": ("shared: {n_envs: {low: true, high: true}}", "the range of n_envs is"),
    "a word for the logarithm": ("shared: {gamma: {low: 0.1, high: 0.5, log: 'no'}}", "the range of gamma is"),
    "a list of settings": ("shared: [gamma]", "shared: .* must be entries by name"),
    "a number for the cells": ("{shared: {gamma: {low: 0, high: 1}}, cells: 3}", "cells: 3 must be entries by name"),
    "a list of options": ("cells: {rnn: [a]}", "cells, rnn: .* must be entries by name"),
    "a number as a name": ("shared: {3: {low: 1, high: 2}}", "must be entries by name"),
    "a date": ("shared: {gamma: {choices: [2026-01-01]}}", "the range of gamma is"),
    "a list as a choice": ("shared: {gamma: {choices: [[1]]}}", "the range of gamma is"),
    "a misspelt cell": ("{shared: {gamma: {low: 0, high: 1}}, cells: {rnnn: {a: {choices: [1]}}}}", "unknown cell 'rnnn'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_form_is_refused(case, write):
    text, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        search_space("rnn", write(text))
