"""The curves command: which runs are of one kind, the mean and interval of a kind, and what bad input is answered with."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from fw_rl.commands.curves import main
from fw_rl.experiments.curves import FRAMES, RETURN, group, mean_curve, read_run
from fw_rl.experiments.run_folder import RunFolder, write_json
from fw_rl.experiments.settings import resolve


def make_run(folder, returns, frames=None, **options):
    """A run folder with this learning curve, without any training."""
    config = resolve(**dict(env="Catch-5-2") | options)
    folder.mkdir(parents=True)
    write_json(RunFolder(folder).config, dict(settings=dataclasses.asdict(config)))
    frames = range(100, 100 * len(returns) + 1, 100) if frames is None else frames
    lines = [f"{RETURN},{FRAMES}", *(f"{value},{frame}" for value, frame in zip(returns, frames, strict=True))]
    RunFolder(folder).progress.write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    """Three seeds of one cell, one of another, and two of the first cell with another option."""
    constant = {"a": 0.1, "b": 0.2, "c": 0.6}
    folders = [make_run(tmp_path / name, [value] * 5, seed=seed) for seed, (name, value) in enumerate(constant.items())]
    folders.append(make_run(tmp_path / "lstm", [0.9] * 5, cell="lstm"))
    folders += [make_run(tmp_path / f"eta{seed}", [0.3] * 5, seed=seed, cell_options=dict(eta=0.7)) for seed in (0, 1)]
    return folders


def test_runs_that_differ_only_by_seed_are_of_one_kind(runs):
    (kinds,) = group([read_run(path) for path in runs]).values()
    assert {label: len(kind) for label, kind in kinds.items()} == {
        "fast-weights, eta=0.1": 3,
        "lstm": 1,
        "fast-weights, eta=0.7": 2,
    }


def test_a_cell_of_one_kind_needs_only_its_name(runs):
    (kinds,) = group([read_run(path) for path in runs[:4]]).values()
    assert list(kinds) == ["fast-weights", "lstm"]


def test_algorithms_are_told_apart_and_environments_have_own_panels(tmp_path, runs):
    asynchronous = make_run(tmp_path / "a3c", [0.5] * 5, algo="a3c")
    elsewhere = make_run(tmp_path / "cartpole", [20.0] * 5, env="CartPole-v1", cell="gru")
    panels = group([read_run(path) for path in (runs[0], asynchronous, elsewhere)])
    assert {env: list(kinds) for env, kinds in panels.items()} == {
        "Catch-5-2": ["fast-weights, a2c", "fast-weights, a3c"],
        "CartPole-v1": ["gru"],
    }


def test_a_curve_is_the_mean_with_students_interval(runs):
    _, mean, low, high = mean_curve([read_run(path) for path in runs[:3]])
    margin = 4.303 * np.std([0.1, 0.2, 0.6], ddof=1) / np.sqrt(3)
    assert mean == pytest.approx(0.3)
    assert low == pytest.approx(0.3 - margin, rel=1e-3)
    assert high == pytest.approx(0.3 + margin, rel=1e-3)


def test_a_curve_reaches_as_far_as_every_run_has_come(tmp_path):
    short = make_run(tmp_path / "short", [0.0, 1.0], frames=[200, 400])
    long = make_run(tmp_path / "long", [0.0, 2.0, 2.0], frames=[100, 300, 900], seed=1)
    frames, mean, _, _ = mean_curve([read_run(short), read_run(long)])
    assert (frames[0], frames[-1]) == (200, 400)
    assert (mean[0], mean[-1]) == pytest.approx((0.5, 1.5))


def test_a_curve_is_smoothed(tmp_path):
    run = read_run(make_run(tmp_path / "jagged", [0.0, 1.0] * 50))
    assert np.abs(run.returns - 0.5).max() < 0.2
    assert (run.frames == np.arange(100, 10_001, 100)).all()


def test_the_command_leaves_a_picture_and_says_how_kinds_ended(runs, tmp_path, capsys):
    out = tmp_path / "new" / "curves.png"
    assert main([*map(str, runs), "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert min(picture.size) >= 600
    printed = capsys.readouterr().out
    assert "Catch-5-2, fast-weights, eta=0.1: 3 seeds, return 0.300 (-0.357 to 0.957) at the end" in printed
    assert "Catch-5-2, lstm: 1 seed, return 0.900 at the end" in printed
    assert str(out) in printed


def test_what_is_no_run_is_left_out_with_a_line(runs, tmp_path, capsys):
    (tmp_path / "sweep").mkdir()
    empty = make_run(tmp_path / "empty", [])
    out = tmp_path / "curves.png"
    assert main([str(runs[0]), str(tmp_path / "sweep"), str(empty), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("Left out: ") for line in lines) == 2
    assert any("1 seed" in line for line in lines)


def bad_input(tmp_path, runs):
    empty = make_run(tmp_path / "empty", [])
    (tmp_path / "file").write_text("mine")
    picture = tmp_path / "curves.png"
    return {
        "no runs": ([], picture, "RUN must be the folder of at least one run, got none"),
        "no run": ([tmp_path / "nothing"], picture, "RUN must be the folder of a run"),
        "a run without a curve": ([empty], picture, "must have a learning curve, got none yet"),
        "no PNG": ([runs[0]], tmp_path / "curves.jpg", "--out must be a file whose name ends in .png"),
        "a file as folder": ([runs[0]], tmp_path / "file" / "curves.png", "file"),
    }


@pytest.mark.parametrize("case", ["no runs", "no run", "a run without a curve", "no PNG", "a file as folder"])
def test_bad_input_gets_one_line_and_exit_code_2(case, tmp_path, runs, capsys):
    folders, out, expected = bad_input(tmp_path, runs)[case]
    assert main([*map(str, folders), "--out", str(out)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("fw-rl curves: error: ")
    assert expected in printed
    assert printed.count("\n") == 1
    assert not out.exists()


def test_of_two_runs_alike_the_longer_is_drawn(runs, tmp_path, capsys):
    shorter = shutil.copytree(runs[0], tmp_path / "shorter")
    rows = (shorter / "progress.csv").read_text().splitlines(keepends=True)
    (shorter / "progress.csv").write_text("".join(rows[: len(rows) // 2]))
    assert main([str(runs[0]), str(shorter), str(runs[1]), "--out", str(tmp_path / "a.png")]) == 0
    assert f"Left out: {shorter} has the settings and the seed of {runs[0]}" in capsys.readouterr().out
    assert main([str(runs[0]), str(runs[1]), "--out", str(tmp_path / "b.png")]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
