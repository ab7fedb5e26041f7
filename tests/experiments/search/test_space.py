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
        (
            "shared: {gamma: {low: 0.5, high: 2}}",
            "the range of gamma must have allowed values, got 2: --gamma .* between 0 and 1",
        ),
        ("shared: {n_envs: {low: 0, high: 4}}", "the range of n_envs must have allowed values, got 0: --n-envs .* at least 1"),
        ("shared: {n_envs: {low: 2.0, high: 4.0}}", "n_envs must have allowed values, got 2.0: n_envs must be of type int"),
        (
            "shared: {learning_rate: {low: -1, high: 0.1}}",
            "learning_rate must have allowed values, got -1: --learning-rate .*-1",
        ),
        ("shared: {optimizer: {choices: [adam, sgd]}}", "optimizer must have allowed values, got sgd: --optimizer .*'sgd'"),
        ("shared: {anneal: {choices: [true, 1]}}", "anneal must have allowed values, got 1: anneal must be of type bool"),
        ("cells: {rnn: {elephant: {low: 1, high: 2}}}", "elephant must have allowed values, got 1: .*elephant"),
    ],
)
def test_a_range_with_a_forbidden_value_is_refused(text, message, write):
    with pytest.raises(ValueError, match=message):
        search_space("rnn", write(text)).check(resolve(cell="rnn"))


@pytest.mark.parametrize("env", ["Catch-16-3", "Catch-24-5", "CartPole-v1"])
@pytest.mark.parametrize("cell", available_cells())
def test_what_is_not_searched_is_the_same_for_all_cells(env, cell):
    """Else a comparison would be of what was tuned before as well."""
    of_cell = resolve(env=env, cell=cell, tuned_for_cell=False)
    of_lstm = resolve(env=env, cell="lstm", tuned_for_cell=False)
    assert dataclasses.replace(of_cell, cell="lstm", cell_options={}) == of_lstm


def test_draws_take_the_place_of_settings_and_options():
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
    "not YAML": ("{", "must be a YAML file"),
    "a list": ("[1]", "must have the entries shared and cells"),
    "another entry": ("{shared: {}, more: 1}", "must have the entries shared and cells"),
    "no such setting": ("shared: {speed: {low: 1, high: 2}}", "shared, must be some of .*, got 'speed'"),
    "the seed": ("shared: {seed: {low: 1, high: 2}}", "shared, must be some of .*, got 'seed'"),
    "the engine": ("shared: {engine: {choices: [local, ray]}}", "shared, must be some of .*, got 'engine'"),
    "all options of a cell": ("shared: {cell_options: {choices: [1]}}", "shared, must be some of .*, got 'cell_options'"),
    "twice": (
        "{shared: {gamma: {low: 0, high: 1}}, cells: {rnn: {gamma: {low: 0, high: 1}}}}",
        "must have each range once, got 'gamma' for every cell and",
    ),
    "nothing": ("cells: {gru: {a: {choices: [1]}}}", "must have ranges to search for rnn, got none"),
    "no range": ("shared: {gamma: 0.5}", "the range of gamma must be .*, got 0.5"),
    "half a range": ("shared: {gamma: {low: 0.5}}", "the range of gamma must be .*, got {'"),
    "no choices": ("shared: {gamma: {choices: []}}", "the range of gamma must be .*, got {'"),
    "upside down": ("shared: {gamma: {low: 1.0, high: 0.5}}", "the range of gamma must be .*, got {'"),
    "a logarithm of zero": ("shared: {gamma: {low: 0.0, high: 0.5, log: true}}", "the range of gamma must be .*, got {'"),
    "a word": ("shared: {gamma: {low: small, high: 0.5}}", "the range of gamma must be .*, got {'"),
    "no finite number": ("shared: {gamma: {low: 0.5, high: .inf}}", "the range of gamma must be .* finite numbers, got {'low"),
    "truths as numbers": ("shared: {n_envs: {low: true, high: true}}", "the range of n_envs must be .*, got {'"),
    "a word for the logarithm": ("shared: {gamma: {low: 0.1, high: 0.5, log: 'no'}}", "the range of gamma must be .*, got {'"),
    "a list of settings": ("shared: [gamma]", "shared, must be entries by name, as in .*, got \\['gamma'"),
    "a number for the cells": (
        "{shared: {gamma: {low: 0, high: 1}}, cells: 3}",
        "cells, must be entries by name, as in .*, got 3",
    ),
    "a list of options": ("cells: {rnn: [a]}", "cells, rnn, must be entries by name, as in .*, got \\['a'"),
    "a number as a name": ("shared: {3: {low: 1, high: 2}}", "must be entries by name"),
    "a date": ("shared: {gamma: {choices: [2026-01-01]}}", "the range of gamma must be .*, got {'"),
    "a list as a choice": ("shared: {gamma: {choices: [[1]]}}", "the range of gamma must be .*, got {'"),
    "a misspelt cell": (
        "{shared: {gamma: {low: 0, high: 1}}, cells: {rnnn: {a: {choices: [1]}}}}",
        "cells, must be some of .*, got 'rnnn'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_form_is_refused(case, write):
    text, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        search_space("rnn", write(text))
