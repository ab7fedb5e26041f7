"""Search spaces are data: what the package's say, and what is refused in a user's."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fw_rl.cells import available_cells, make_cell
from fw_rl.commands.config import TrainOptions, resolve
from fw_rl.commands.search.space import search_space


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
def test_both_ends_of_a_cells_own_ranges_are_options_of_it(cell):
    own = search_space(cell).own
    for end in (0, -1):
        chosen = {
            name: entry["choices"][end] if "choices" in entry else entry[("low", "high")[end]] for name, entry in own.items()
        }
        make_cell(cell, 3, 4, **chosen)


def test_what_is_drawn_takes_the_place_of_settings_and_options():
    space = search_space("fast-weights")
    config = resolve(TrainOptions(cell="fast-weights"))
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
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_form_is_refused(case, write):
    text, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        search_space("rnn", write(text))
