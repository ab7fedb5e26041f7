"""The deblur command as a user meets it: its report folder, its options, and what bad input is answered with."""

import json
from contextlib import redirect_stdout
from io import StringIO

import pytest
from PIL import Image

from fw_rl.commands.deblur import main
from fw_rl.experiments.deblur_pictures import PICTURES

SMALL = [
    *("--hidden", "12", "--associations", "20", "--learning-sweeps", "40", "--interfering-sweeps", "20", "--seeds", "2"),
    *("--rehearsal-sweeps", "3", "--pairs", "3", "--linear-nets", "10", "--subsets", "25", "50"),
    *("--sequences", "8", "--sequence-units", "6", "--sequence-sweeps", "5", "--sequence-seeds", "2"),
]


@pytest.fixture(scope="module")
def shown_report(tmp_path_factory):
    """The folder of a report, and what the command printed."""
    out, printed = tmp_path_factory.mktemp("reports") / "a" / "b", StringIO()
    with redirect_stdout(printed):
        assert main([*SMALL, "--out", str(out)]) == 0
    return out, printed.getvalue()


@pytest.fixture
def report(shown_report):
    return shown_report[0]


def test_a_report_has_a_text_the_numbers_and_the_pictures(report):
    assert {path.name for path in report.iterdir()} == {"report.txt", "report.json", *PICTURES}
    for name in PICTURES:
        with Image.open(report / name) as picture:
            assert min(picture.size) >= 400


def test_the_numbers_come_with_the_command_and_every_setting(report):
    record = json.loads((report / "report.json").read_text())
    assert record["command"] == f"fw-rl deblur {' '.join(SMALL)} --out {report}"
    settings = record["settings"]
    assert (settings["protocol"]["hidden"], settings["rates"]["slow_lr"], settings["subsets"]) == (12, 0.02, [25, 50])


def test_figure_2_has_every_subset_and_sweep_with_its_interval(report):
    figure = json.loads((report / "report.json").read_text())["figure_2"]
    assert list(figure["subsets"]) == ["25", "50"]
    for subset in figure["subsets"].values():
        for measure in ("absolute", "squared"):
            curves = subset[measure]
            assert [len(curves[name]) for name in ("retrained", "unretrained", "ratio")] == [4, 4, 3]
            assert all(low <= mean <= high for mean, low, high in curves["retrained"] + curves["unretrained"])


def test_the_text_has_all_sections_and_their_numbers(report):
    text, record = (report / "report.txt").read_text(), json.loads((report / "report.json").read_text())
    assert text.startswith("fw-rl deblur --hidden 12")
    for heading in ("THE SIMULATION", "WHAT THE FAST WEIGHTS ADD", "THE THEORY", "TEMPORARY LEARNING", "A RECURRENT CELL"):
        assert heading in text
    for way in record["rehearsal"].values():
        assert f"{way['new_after_over_before']:.3f}" in text
    for cell in record["recurrent"].values():
        assert f"{cell['learned'][0]:.3f}" in text
    assert max(map(len, text.splitlines()[1:])) <= 128


@pytest.mark.processes
def test_the_settings_decide_the_report_and_so_does_the_seed(report, tmp_path):
    def numbers(out):
        record = json.loads((out / "report.json").read_text())
        return {name: part for name, part in record.items() if name not in ("command", "settings")}

    assert main([*SMALL, "--out", str(tmp_path / "again"), "--quiet"]) == 0
    assert numbers(tmp_path / "again") == numbers(report)
    assert (tmp_path / "again" / "figure_2.png").read_bytes() == (report / "figure_2.png").read_bytes()
    assert main([*SMALL, "--out", str(tmp_path / "other"), "--quiet", "--seed", "5"]) == 0
    assert numbers(tmp_path / "other")["figure_2"] != numbers(report)["figure_2"]


def test_the_text_is_shown(shown_report):
    report, printed = shown_report
    assert printed.startswith((report / "report.txt").read_text())
    assert str(report) in printed.splitlines()[-1]


BAD_INPUT = {
    "no units": (["--hidden", "0"], "--hidden must be at least 1, got 0"),
    "no sweeps": (["--learning-sweeps", "-1"], "--learning-sweeps must be at least 1, got -1"),
    "one seed": (["--seeds", "1"], "--seeds must be at least 2, got 1"),
    "one cell": (["--sequence-seeds", "1"], "--sequence-seeds must be at least 2, got 1"),
    "a negative seed": (["--seed", "-1"], "--seed must be at least 0, got -1"),
    "no threads": (["--threads", "0"], "--threads must be at least 1, got 0"),
    "no pairs": (["--pairs", "0"], "--pairs must be at least 2, got 0"),
    "no rate": (["--slow-lr", "0"], "--slow-lr must be above 0, got 0"),
    "a negative rate": (["--fast-lr", "-0.1"], "--fast-lr must be at least 0 and finite, got -0.1"),
    "no number": (["--init", "nan"], "--init must be at least 0 and finite, got nan"),
    "momentum": (["--fast-momentum", "1"], "--fast-momentum must be below 1, got 1.0"),
    "decay": (["--decay", "1.1"], "--decay must be between 0 and 1, got 1.1"),
    "decay of the cell": (["--cell-decay", "2"], "--cell-decay must be between 0 and 1, got 2.0"),
    "too few inputs": (["--inputs", "6"], "--inputs must be enough for 105 different inputs, got 6 bits"),
    "too short sequences": (
        ["--sequence-length", "1", "--sequences", "2000"],
        "--sequence-length must be enough for 2005 different inputs, got 10 bits",
    ),
    "no subsets": (["--subsets"], "--subsets must be one or more percentages, got"),
    "an empty subset": (["--subsets", "0"], "0 % of 100 associations must be neither none nor all, got 0"),
    "a whole subset": (["--subset", "100"], "100 % of 100 associations must be neither none nor all, got 100"),
    "an empty subset of sequences": (["--sequences", "4"], "10 % of 4 associations must be neither none nor all, got 0"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_line_and_exit_code_2(case, tmp_path, capsys):
    arguments, expected = BAD_INPUT[case]
    assert main([*arguments, "--out", str(tmp_path / "report")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("fw-rl deblur: error: ")
    assert expected in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_a_folder_that_cannot_be_made_gets_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main([*SMALL, "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_nets_that_diverge_get_one_line(tmp_path, capsys):
    assert main([*SMALL, "--out", str(tmp_path), "--slow-lr", "1e30"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "not finite" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--seeds", "many"], ["--no-such-option"]])
def test_words_that_do_not_parse_exit_with_code_2(arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
