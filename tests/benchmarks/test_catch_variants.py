"""Variants of the best settings of a sweep differ from them in what their name says, and are trained once."""

import dataclasses
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from fw_rl.experiments.search.learning import Learning, write_learnings
from fw_rl.experiments.settings import resolve

PATH = Path(__file__).parents[2] / "benchmarks" / "catch_variants.py"
RATES = dict(eta=0.1, decay=0.5, inner_steps=1, recurrent_scale=0.3)


CHANGES = {
    "no fast weights (eta 0)": (dict(eta=0.0), {}),
    "no layer norm": (dict(layer_norm=False), {}),
    "layer norm of h_0 as well": (dict(norm_placement="all"), {}),
    "layer norm of the recall alone": (dict(norm_placement="recall"), {}),
    "one inner step": (dict(inner_steps=1), {}),
    "two inner steps": (dict(inner_steps=2), {}),
    "three inner steps": (dict(inner_steps=3), {}),
    "eta 0.5, decay 0.95 (the paper's)": (dict(eta=0.5, decay=0.95), {}),
    "decay 0.9": (dict(decay=0.9), {}),
    "the delta rule, eta 1, decay 0.5": (dict(rule="delta", eta=1.0, decay=0.5), {}),
    "eta and decay learned": (dict(learn_eta=True, learn_decay=True), {}),
    "W at 0.05 I (the paper's)": (dict(recurrent_scale=0.05), {}),
    "W at 0.5 I": (dict(recurrent_scale=0.5), {}),
    "Adam": ({}, dict(optimizer="adam")),
    "RMSprop": ({}, dict(optimizer="rmsprop")),
    "16 environments": ({}, dict(n_envs=16)),
    "sees its previous step": ({}, dict(previous_step=True)),
}
"""By name, which options of the cell are different, and which other settings."""


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("catch_variants", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["catch_variants"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def settings(script, tmp_path):
    for cell in script.CELLS:
        own = dict(cell_options=RATES) if cell == "fast-weights" else {}
        small = resolve(env="Catch-5-2", cell=cell, timesteps=200, n_envs=4, n_steps=4, hidden_size=8, optimizer="adam")
        config = dataclasses.replace(small, **own)
        seeds = [Learning(dataclasses.asdict(config) | dict(seed=seed), {}, [float(seed)], 0.0, 1.0) for seed in range(3)]
        write_learnings(tmp_path / "sweep" / "Catch-5-2" / cell / "seeds.json", seeds)
    return script.Settings(sweep=tmp_path / "sweep", env="Catch-5-2", seeds=2, jobs=2, eval_episodes=4, out=tmp_path / "out")


def test_an_ablation_changes_what_its_name_says(script, settings):
    variants = dict(script.ablations(settings))
    found = variants.pop("as found")
    assert found.cell_options == RATES
    for name, changed in variants.items():
        options, others = CHANGES[name]
        assert changed == dataclasses.replace(found, cell_options=RATES | options, **others), name
    assert set(CHANGES) - set(variants) == {"Adam", "one inner step"}  # they are so already


def test_every_cell_plays_every_harder_game_for_whole_episodes(script, settings):
    variants = dict(script.harder(settings))
    assert len(variants) == len(script.HARDER) * len(script.CELLS)
    assert variants["Catch-48-3, lstm"].n_steps == 47
    for name, config in variants.items():
        game, cell = name.split(", ")
        assert (config.env, config.cell, config.seed) == (f"fw_rl/{game}-v0", cell, 0)
        assert config.timesteps == 200_000 * config.n_steps


@pytest.mark.processes
def test_variants_are_trained_once_and_in_the_table(script, settings, capsys):
    wanted = {name: config for name, config in script.ablations(settings) if name in ("as found", "RMSprop")}
    learnings = script.train("ablations", wanted, settings)
    assert [known.parameters["variant"] for known in learnings] == ["as found", "RMSprop"] * 2
    assert [known.settings["seed"] for known in learnings] == [20_000, 20_000, 20_001, 20_001]
    capsys.readouterr()
    assert script.train("ablations", wanted, settings) == learnings
    assert capsys.readouterr().out == ""
    (row,) = (" ".join(line.split()) for line in script.table(learnings).splitlines() if "RMSprop" in line)
    assert row.startswith("| RMSprop | 200 | 2 |")
    assert row.endswith("of 2 |")


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(jobs=0), "--jobs .*at least 1"),
        (dict(seeds=0), "--seeds .*at least 1"),
        (dict(kinds=("foo",)), "--kinds must be some of ablations, harder, got 'foo'"),
        (dict(sweep=Path("nowhere")), "seeds.json, which `fw-rl sweep` leaves with --retrain, got none"),
        (dict(env="Catch-7-3"), "seeds.json, which `fw-rl sweep` leaves with --retrain, got none"),
    ],
)
def test_bad_input_is_one_line(change, message, script, settings, capsys):
    assert script.main(dataclasses.replace(settings, **change)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert not settings.out.exists()
