"""The figure5 command: which trainings count and how, one table and picture of whatever is there, and bad input."""

import json
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from PIL import Image

from fw_rl.commands.figure5 import main
from fw_rl.experiments.figure5 import read_sweeps, summarise
from fw_rl.experiments.figure5_report import describe, draw
from fw_rl.experiments.search.learning import Learning, write_learnings
from tests.commands.helpers import rows

CATCH, LARGE = "Catch-16-3", "Catch-24-5"


def training(*returns, seed=0, greedy=1.0, diverged=False, timesteps=1000, **parameters):
    """A training that came to this curve, without having been one."""
    settings = dict(env=CATCH, timesteps=timesteps, seed=seed) | parameters
    return Learning(settings, parameters, list(returns), None if diverged else greedy, 1.0, diverged)


def store(data, env, cell, trials, seeds=None, finals=None):
    folder = data / env / cell
    folder.mkdir(parents=True)
    write_learnings(folder / "trials.json", trials)
    if seeds is not None:
        write_learnings(folder / "seeds.json", seeds)
    if finals is not None:
        write_learnings(folder / "finals.json", finals)


def trials_with(areas):
    return [training(area, area, seed=seed, eta=seed / 10) for seed, area in enumerate(areas)]


def seeds_with(areas, eta=0.0):
    return [training(area, area, seed=100 + i, eta=eta) for i, area in enumerate(areas)]


@pytest.fixture
def data(tmp_path):
    """Two environments, three cells; the RNN has few trials and no new seeds on the larger screen."""
    folder = tmp_path / "sweep"
    store(folder, CATCH, "lstm", trials_with([0.1, 0.3, 0.2, 0.5, 0.4, 0.6]), seeds_with([0.0, 0.2, 0.4, 0.6], eta=0.5))
    store(folder, CATCH, "fast-weights", trials_with([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), seeds_with([0.5, 0.6, 0.7, 0.8]))
    store(folder, CATCH, "rnn", trials_with([0.3, 0.2]), seeds_with([0.1, 0.1]))
    store(folder, LARGE, "lstm", trials_with([0.1] * 5), seeds_with([0.1, 0.3]))
    store(folder, LARGE, "fast-weights", trials_with([0.2] * 5), seeds_with([0.2, 0.4]))
    store(folder, LARGE, "rnn", trials_with([-0.5, -0.7, -0.9]))
    return folder


def of_cell(tmp_path, trials, seeds=None, finals=None):
    """What is reported of one cell."""
    store(tmp_path / "one", CATCH, "lstm", trials, seeds, finals)
    return summarise(read_sweeps(tmp_path / "one"))["environments"][CATCH]


def test_the_top_five_are_those_with_the_largest_areas(tmp_path):
    found = of_cell(tmp_path, trials_with([0.1, 0.7, 0.3, 0.6, 0.5, 0.4, -0.2]))["cells"]["lstm"]
    assert [best["parameters"]["eta"] for best in found["top"]["trainings"]] == [0.1, 0.3, 0.4, 0.5, 0.2]
    assert found["top"]["area"] == pytest.approx((0.7 + 0.6 + 0.5 + 0.4 + 0.3) / 5)
    assert found["trials"] == 7


def test_the_area_counts_not_the_end(tmp_path):
    late, early = training(0.0, 0.0, 1.0, seed=1), training(0.8, 0.8, 0.8, seed=2)
    top = of_cell(tmp_path, [late, early])["cells"]["lstm"]["top"]
    assert [best["seed"] for best in top["trainings"]] == [2, 1]
    assert top["curve"] == pytest.approx([0.4, 0.4, 0.9])


def test_trials_that_diverged_are_counted_but_not_averaged(tmp_path):
    diverged = training(1.0, None, seed=9, diverged=True)
    nothing = training(None, None, seed=10)
    found = of_cell(tmp_path, [*trials_with([0.1, 0.2]), diverged, nothing])["cells"]["lstm"]
    assert (found["trials"], found["diverged"]) == (4, 1)
    assert [best["seed"] for best in found["top"]["trainings"]] == [1, 0]


def test_a_search_in_which_all_diverged_has_a_report(tmp_path, capsys):
    store(tmp_path / "one", CATCH, "rnn", [training(0.5, None, diverged=True)])
    assert main(["--data", str(tmp_path / "one"), "--out", str(tmp_path / "out")]) == 0
    assert f"| {CATCH} | rnn | 1 | 1 | 0 | best 0 | | |" in rows(capsys.readouterr().out)


def test_trials_that_were_pruned_are_below_all_others(tmp_path):
    pruned = replace(training(None, None, seed=9), greedy=None, pruned=True)
    found = of_cell(tmp_path, [*trials_with([0.1, 0.2]), pruned])["cells"]["lstm"]
    assert (found["trials"], found["pruned"], found["areas"]) == (3, 1, [0.2, 0.1])
    lines = rows(describe(dict(command="") | summarise(read_sweeps(tmp_path / "one"))))
    assert f"| {CATCH} | lstm | 3 | 0 | 1 | best 2 | 0.150 | 1.000 |" in lines
    assert f"| {CATCH} | lstm | 3 | 0.200 | 0.100 | none | 2 of 3 | 2 of 3 |" in lines


def test_equal_settings_of_two_trials_are_one_finalist(tmp_path):
    trials = [training(0.5, 0.5, seed=seed, eta=0.1) for seed in range(2)]
    finals = [training(area, area, seed=200 + i, eta=0.1) for i, area in enumerate((0.1, 0.3))]
    found = of_cell(tmp_path, trials, finals=finals)["cells"]["lstm"]["finals"]
    assert (found["settings"], found["area"][0]) == (1, 0.2)


def test_seeds_that_diverged_count_and_stay_where_they_were(tmp_path):
    seeds = [training(0.0, 0.4, seed=100), training(0.2, None, seed=101, diverged=True)]
    found = of_cell(tmp_path, [training(0.1, 0.1)], seeds)
    assert found["areas"]["lstm"][0] == pytest.approx(0.2)
    assert [point[0] for point in found["cells"]["lstm"]["seeds"]["curve"]] == pytest.approx([0.1, 0.3])
    assert found["cells"]["lstm"]["seeds"]["diverged"] == 1
    assert found["cells"]["lstm"]["seeds"]["greedy"] == 1


def test_frames_to_a_level_are_the_median_over_seeds(tmp_path):
    seeds = [training(*[0.0] * late, *[0.9] * (10 - late), seed=100 + late) for late in (1, 4, 10)]
    found = of_cell(tmp_path, [training(*[0.0] * 10)], seeds)["cells"]["lstm"]["seeds"]
    assert [seed["frames_to"] for seed in found["trainings"]] == [200, 500, None]
    assert (found["frames_to"], found["reached"]) == (500, 2)


def test_a_level_that_half_of_seeds_miss_is_not_reached(tmp_path):
    seeds = [training(0.9, 0.9, seed=100), training(0.0, 0.8999, seed=101)]
    found = of_cell(tmp_path, [training(0.1, 0.1)], seeds)["cells"]["lstm"]["seeds"]
    assert (found["frames_to"], found["reached"]) == (None, 1)


def test_greedy_returns_are_counted_at_both_levels(tmp_path):
    seeds = [training(0.0, 0.0, seed=100 + i, greedy=greedy) for i, greedy in enumerate([0.89, 0.9, 0.95, 1.0])]
    found = of_cell(tmp_path, [training(0.1, 0.1)], seeds)["cells"]["lstm"]["seeds"]
    assert found["greedy_reached"] == [3, 2]
    assert found["greedy"] == pytest.approx((0.89 + 0.9 + 0.95 + 1) / 4)


def test_the_best_settings_are_those_of_the_best_finalist(tmp_path):
    finals = [training(area, area, seed=50, eta=eta) for eta, area in ((0.0, 0.2), (0.1, 0.1))]
    found = of_cell(tmp_path, trials_with([0.3, 0.4]), seeds_with([0.5, 0.6], eta=0.0), finals)
    assert found["areas"]["lstm"][0] == pytest.approx(0.55)
    text = describe(dict(command="fw-rl figure5") | summarise(read_sweeps(tmp_path / "one")))
    assert "of the 2 best trials those with the largest mean area over seeds of their own" in text


def test_finalists_tell_what_the_best_trials_are_worth(tmp_path):
    finals = [
        training(area, area, seed=50 + i, eta=eta, greedy=area)
        for i, (eta, area) in enumerate(((0.0, 0.8), (0.0, 0.1), (0.1, 0.9), (0.1, 0.95)))
    ]
    found = of_cell(tmp_path, trials_with([0.97, 0.99, 0.1]), finals=finals)["cells"]["lstm"]["finals"]
    assert found["settings"] == 2
    assert found["area"][0] == pytest.approx((0.8 + 0.9) / 2)  # of 0.1, 0.8, 0.9 and 0.95, one is left out at each end
    assert found["area"][1] < found["area"][0] < found["area"][2]
    assert found["greedy_reached"] == [2, 1]
    lines = rows(describe(dict(command="fw-rl figure5") | summarise(read_sweeps(tmp_path / "one"))))
    assert "| Catch-16-3 | lstm | 2 | 4 | 0.850 (0.500 to 0.875) | 2 of 4 | 1 of 4 |" in lines


def test_cells_are_compared_wherever_all_have_seeds(data):
    record = summarise(read_sweeps(data))
    small, large = (
        {(row["x"], row["y"]): row["probability"][0] for row in record["environments"][env]["improvement"]}
        for env in (CATCH, LARGE)
    )
    assert small == pytest.approx({("fast-weights", "lstm"): 14.5 / 16, ("fast-weights", "rnn"): 1, ("lstm", "rnn"): 0.75})
    assert large == {("fast-weights", "lstm"): 0.75}
    (over_all,) = record["over_all"]["improvement"]
    assert over_all["probability"][0] == pytest.approx((small["fast-weights", "lstm"] + 0.75) / 2)
    # Of the pooled 0, .1, .2, .3, .4, .6 of the LSTM, one is left out at each end.
    assert record["over_all"]["areas"]["lstm"][0] == pytest.approx(0.25)
    assert set(record["over_all"]["areas"]) == {"fast-weights", "lstm"}


def test_the_table_has_frames_cells_and_numbers_of_trials(data):
    lines = rows(describe(dict(command="fw-rl figure5") | summarise(read_sweeps(data))))
    assert f"- {CATCH}: trainings of 1,000 frames, fast-weights, lstm, rnn" in lines
    assert f"| {CATCH} | fast-weights | 6 | 0 | 0 | best 5 | 0.700 | 1.000 |" in lines
    assert f"| {LARGE} | rnn | 3 | 0 | 0 | best 3 | -0.700 | 1.000 |" in lines
    assert sum(line.startswith(f"| {LARGE} | rnn |") for line in lines) == 2  # it has no new seeds
    (row,) = (line for line in lines if line.startswith(f"| {CATCH} | lstm | 4 |"))
    assert row.startswith(f"| {CATCH} | lstm | 4 | 0 | 0.300 (")
    assert row.endswith("| not reached | 0 of 4 | 1.000 | 4 of 4 | 4 of 4 |")
    assert any(line.startswith("| all | lstm | | | 0.250 (") for line in lines)
    assert f"| | {CATCH} | {LARGE} | all |" in lines
    assert any(line.startswith("| lstm over rnn | 0.750 (") and line.endswith("| | |") for line in lines)


def test_rows_are_as_wide_as_the_head_of_their_table(data):
    widths = [line.count("|") for line in describe(dict(command="") | summarise(read_sweeps(data))).splitlines() if "|" in line]
    assert sorted(set(widths)) == [5, 9, 11]


def test_all_trials_count_and_those_that_diverged_are_last(tmp_path):
    diverged = training(0.9, None, seed=9, diverged=True)
    trials = [*trials_with([0.4, 0.1, 0.3]), diverged]
    found = of_cell(tmp_path, trials)["cells"]["lstm"]
    assert found["areas"] == [0.4, 0.3, 0.1]
    assert found["greedy_reached"] == [3, 3]
    lines = rows(describe(dict(command="") | summarise(read_sweeps(tmp_path / "one"))))
    assert f"| {CATCH} | lstm | 4 | 0.400 | 0.300 | 0.100 | 3 of 4 | 3 of 4 |" in lines
    store(tmp_path / "one", LARGE, "lstm", [*trials[:1], diverged])
    lines = rows(describe(dict(command="") | summarise(read_sweeps(tmp_path / "one"))))
    assert f"| {LARGE} | lstm | 2 | 0.400 | 0.400 | none | 1 of 2 | 1 of 2 |" in lines


def test_one_environment_without_seeds_is_enough(tmp_path, capsys):
    store(tmp_path / "one", CATCH, "lstm", trials_with([0.5, 0.1]))
    assert main(["--data", str(tmp_path / "one"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert f"| {CATCH} | lstm | 2 | 0 | 0 | best 2 | 0.300 | 1.000 |" in rows(printed)
    assert "No settings have been trained with new seeds yet" in printed
    assert "Probability of improvement" not in printed
    assert (tmp_path / "out" / "figure5.png").exists()


def test_a_search_that_has_not_begun_is_no_row(tmp_path):
    store(tmp_path / "one", CATCH, "lstm", trials_with([0.5]))
    store(tmp_path / "one", CATCH, "rnn", [])
    assert list(read_sweeps(tmp_path / "one")[CATCH]) == ["lstm"]


def test_the_command_leaves_a_picture_a_table_and_numbers(data, tmp_path, capsys):
    out = tmp_path / "new" / "figure5"
    assert main(["--data", str(data), "--out", str(out)]) == 0
    text = (out / "figure5.md").read_text()
    assert text in capsys.readouterr().out
    assert f"fw-rl figure5 --data {data} --out {out}" in text
    record = json.loads((out / "figure5.json").read_text(), parse_constant=pytest.fail)
    assert describe(record) == text
    assert draw(record) == (out / "figure5.png").read_bytes()
    with Image.open(out / "figure5.png") as picture:
        assert picture.size[0] >= 1500
        assert picture.size[1] >= 1000


@pytest.mark.processes
def test_the_same_trainings_leave_the_same_files(data, tmp_path):
    out = tmp_path / "out"
    left = []
    for _ in range(2):
        assert main(["--data", str(data), "--out", str(out)]) == 0
        left.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert set(left[0]) == {"figure5.json", "figure5.md", "figure5.png"}
    assert left[0] == left[1]


@pytest.mark.processes
def test_the_picture_shows_the_curves_and_their_band(data, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "savefig.dpi", 50)
    record = summarise(read_sweeps(data))
    del record["environments"][CATCH]
    cell = record["environments"][LARGE]["cells"]["fast-weights"]
    pictures = [draw(record)]
    for part, change in (("top", 0.1), ("seeds", [0.1, 0, 0]), ("seeds", [0, -0.1, 0]), ("seeds", [0, 0, 0.1])):
        before = cell[part]["curve"]
        cell[part]["curve"] = (np.array(before) + change).tolist()
        pictures.append(draw(record))
        cell[part]["curve"] = before
    cell["areas"][0] += 0.1
    pictures.append(draw(record))
    cell["top"]["curves"][0] = [0.9, 0.9]
    pictures.append(draw(record))
    assert len(set(pictures)) == 7


def bad_input(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    store(tmp_path / "nothing yet", CATCH, "lstm", [])
    store(tmp_path / "broken", CATCH, "lstm", [])
    (tmp_path / "broken" / CATCH / "lstm" / "trials.json").write_text("{")
    store(tmp_path / "other", CATCH, "lstm", [])
    (tmp_path / "other" / CATCH / "lstm" / "trials.json").write_text('[{"accuracy": 1}]')
    store(tmp_path / "no settings", CATCH, "lstm", [Learning({}, {}, [1.0], 1.0, 1.0)])
    store(tmp_path / "no curve", CATCH, "lstm", [training()])
    store(tmp_path / "lengths", CATCH, "lstm", [training(1.0)])
    store(tmp_path / "lengths", CATCH, "rnn", [training(1.0, timesteps=2_000)])
    trials = trials_with([0.2, 0.1])
    store(tmp_path / "twice", CATCH, "lstm", trials, seeds_with([0.1]) * 2)
    store(tmp_path / "searched", CATCH, "lstm", trials, trials[:1])
    store(tmp_path / "second best", CATCH, "lstm", trials, seeds_with([0.2, 0.2], eta=0.1))
    store(tmp_path / "finalist", CATCH, "lstm", trials, seeds_with([0.2]), seeds_with([0.2]))
    store(tmp_path / "all diverged", CATCH, "lstm", [training(0.1, None, diverged=True)], seeds_with([0.1]))
    store(tmp_path / "trial twice", CATCH, "lstm", trials_with([0.1]) * 2)
    store(tmp_path / "finals of other lengths", CATCH, "lstm", trials, finals=[training(0.2, seed=9, timesteps=2000, eta=0.0)])
    elsewhere = [replace(seed, settings=seed.settings | dict(gamma=0.5)) for seed in seeds_with([0.1])]
    store(tmp_path / "other gamma", CATCH, "lstm", trials, elsewhere)
    store(tmp_path / "no episode", CATCH, "lstm", trials, [training(None, None, seed=100, eta=0.0)])


CASES = {
    "absent": "--data must be a folder with ENV/CELL/trials.json",
    "file": "--data must be a folder with ENV/CELL/trials.json",
    "empty": "--data must be a folder with ENV/CELL/trials.json",
    "nothing yet": "--data must be a folder with ENV/CELL/trials.json",
    "broken": "trials.json must hold trainings",
    "other": "trials.json must hold trainings",
    "no settings": "must hold trainings, got settings",
    "no curve": "must hold trainings, got returns",
    "lengths": "1,000 frames (1 points) and 2,000 frames (1 points)",
    "twice": "must have new seeds, got 100 twice",
    "searched": "must have new seeds, got 0 twice, or it had a part in the choice of the settings",
    "finalist": "must have new seeds, got 100 twice, or it had a part in the choice of the settings",
    "second best": "must have the settings of the best trial, got seed 100 with others",
    "all diverged": "must have the settings of the best trial, got seed 100 with others",
    "trial twice": "trials.json must have every trial once",
    "finals of other lengths": "1,000 frames (2 points) and 2,000 frames (1 points)",
    "other gamma": "must have the settings of the best trial, got seed 100 with others",
    "no episode": "must have learning curves, got seed 100 without one",
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_leaves_the_old_files(case, tmp_path, capsys):
    bad_input(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "figure5.md").write_text("the last one")
    assert main(["--data", str(tmp_path / case), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fw-rl figure5: error: ")
    assert CASES[case] in line
    assert [path.name for path in out.iterdir()] == ["figure5.md"]
    assert (out / "figure5.md").read_text() == "the last one"


def test_a_file_where_the_folder_should_be_gets_one_line(data, tmp_path, capsys):
    (tmp_path / "mine").write_text("mine")
    assert main(["--data", str(data), "--out", str(tmp_path / "mine")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "mine" in line
    assert (tmp_path / "mine").read_text() == "mine"
