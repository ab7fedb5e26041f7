"""Tables that grow from day to day: what is there is not made again, and what was killed goes on."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from fw_rl.commands.task import main
from fw_rl.experiments.table import _workers

SMALL = ["--examples", "300", "--pairs", "1", "--epochs", "2", "--learning-rate", "0.01", "--quiet"]


def retrieval(folder, *arguments):
    return main("retrieval", [*SMALL, "--out", str(folder), "--log-dir", str(folder / "logs"), *arguments])


def names(folder):
    return sorted(path.stem for path in folder.glob("*.json"))


def losses(path):
    return [epoch["test_loss"] for epoch in json.loads(path.read_text())["epochs"]]


def only_line(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_table_grows_and_nothing_is_made_twice(tmp_path, capsys):
    assert retrieval(tmp_path, "--cell", "lstm", "--hidden-size", "4", "--seed", "0") == 0
    assert names(tmp_path / "runs") == ["lstm-4-seed0"]
    before = (tmp_path / "runs" / "lstm-4-seed0.json").read_bytes()
    capsys.readouterr()
    assert retrieval(tmp_path, "--cells", "lstm", "gru", "--hidden-sizes", "4", "5", "--seeds", "0", "1") == 0
    assert len(names(tmp_path / "runs")) == 8
    assert (tmp_path / "runs" / "lstm-4-seed0.json").read_bytes() == before
    printed = capsys.readouterr().out
    assert "[7/7]" in printed
    assert "| GRU | 5 |" in " ".join(printed.split())
    assert {path.name for path in tmp_path.iterdir()} >= {"table.md", "table.json", "table.png", "curves.png"}
    assert all(
        row["seeds"] if "seeds" in row else row["results"] for row in json.loads((tmp_path / "table.json").read_text())["rows"]
    )


def test_a_table_is_made_of_records_alone(tmp_path, capsys):
    assert retrieval(tmp_path, "--cell", "lstm", "--hidden-size", "4", "--seed", "0") == 0
    text = (tmp_path / "table.md").read_text()
    (tmp_path / "table.md").unlink()
    capsys.readouterr()
    assert retrieval(tmp_path, "--table") == 0
    assert "[1/" not in capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() == text
    assert retrieval(tmp_path / "nothing", "--table") == 2
    assert "must hold runs of which to make a table, got none" in only_line(capsys)


def test_the_rate_with_the_lowest_validation_error_is_taken(tmp_path):
    options = ["--cell", "lstm", "--hidden-size", "8", "--learning-rates", "1e-6", "0.02", "--seeds", "0", "1", "--epochs", "4"]
    assert retrieval(tmp_path, *options) == 0
    assert names(tmp_path / "search") == ["lstm-8-seed0-rate0.02-decay0.1", "lstm-8-seed0-rate1e-06-decay0.1"]
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "search").iterdir()}
    errors = [min(epoch["valid_error"] for epoch in record["epochs"]) for record in found.values()]
    assert errors[0] != errors[1]
    for seed in (0, 1):
        record = json.loads((tmp_path / "runs" / f"lstm-8-seed{seed}.json").read_text())
        assert record["settings"]["learning_rate"] == 0.02
        assert record["settings"]["weight_decay"] == 0.1  # the task's, as nothing else was said
    # The candidate of seed 0 is the run of seed 0: it was not trained again.
    assert found["lstm-8-seed0-rate0.02-decay0.1"] == json.loads((tmp_path / "runs" / "lstm-8-seed0.json").read_text())


def test_the_weight_decay_is_chosen_with_the_learning_rate(tmp_path, capsys):
    # A decay of 100 keeps every weight near 0, so that nothing is learned.
    options = ["--cell", "lstm", "--hidden-size", "8", "--seed", "1", "--epochs", "4"]
    assert retrieval(tmp_path, *options, "--learning-rate", "0.02", "--weight-decays", "100", "0.01") == 0
    assert names(tmp_path / "search") == ["lstm-8-seed0-rate0.02-decay0.01", "lstm-8-seed0-rate0.02-decay100"]
    assert json.loads((tmp_path / "runs" / "lstm-8-seed1.json").read_text())["settings"]["weight_decay"] == 0.01
    assert "lstm-8-seed1, learning rate 0.02, weight decay 0.01: test error" in capsys.readouterr().out


def test_a_shorter_search_is_no_run_of_the_table(tmp_path):
    options = ["--cell", "lstm", "--hidden-size", "4", "--learning-rates", "1e-3", "1e-2", "--search-epochs", "1"]
    assert retrieval(tmp_path, *options, "--seed", "0") == 0
    assert {len(losses(path)) for path in (tmp_path / "search").iterdir()} == {1}
    assert len(losses(tmp_path / "runs" / "lstm-4-seed0.json")) == 2


def test_a_diverged_net_is_not_chosen_but_in_the_table(tmp_path, capsys):
    wild = ["--cell", "rnn", "--hidden-size", "4", "--seed", "0"]
    assert retrieval(tmp_path, *wild, "--learning-rates", "1e30", "0.01") == 0
    assert json.loads((tmp_path / "runs" / "rnn-4-seed0.json").read_text())["settings"]["learning_rate"] == 0.01
    assert retrieval(tmp_path / "wild", *wild, "--learning-rate", "1e30") == 0
    assert "0 (1 diverged)" in capsys.readouterr().out


@pytest.mark.processes
def test_jobs_side_by_side_give_the_same_records(tmp_path):
    options = ["--cells", "lstm", "associative-lstm", "--hidden-size", "4", "--seed", "0"]
    assert retrieval(tmp_path / "a", *options) == 0
    assert retrieval(tmp_path / "b", *options, "--jobs", "2") == 0
    for name in names(tmp_path / "a" / "runs"):
        assert losses(tmp_path / "a" / "runs" / f"{name}.json") == losses(tmp_path / "b" / "runs" / f"{name}.json")


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_command_goes_on_to_the_same_numbers(number, tmp_path, capsys):
    options = ["--cells", "lstm", "gru", "--hidden-size", "8", "--seed", "0", "--examples", "5000", "--epochs", "6"]
    assert retrieval(tmp_path / "whole", *options) == 0
    stopped = tmp_path / "stopped"
    command = [sys.executable, "-m", "fw_rl", "retrieval", *SMALL, *options, "--out", stopped, "--log-dir", stopped / "logs"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    while not list(stopped.glob("logs/checkpoints/*.safetensors")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert len(names(stopped / "runs")) < 2
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "The same command goes on" in output

    assert retrieval(stopped, *options) == 0
    for name in ("lstm-8-seed0", "gru-8-seed0"):
        assert losses(stopped / "runs" / f"{name}.json") == losses(tmp_path / "whole" / "runs" / f"{name}.json")
    assert len(list((stopped / "logs" / "checkpoints").iterdir())) == 2


BAD_INPUT = {
    "unknown cell": (["--cell", "lsmt"], "cell must be one of rnn, lstm"),
    "unknown option": (
        ["--cell", "lstm", "--cell-options", "eta=1"],
        "an option of cell 'lstm' must be one of forget_bias, layers, got 'eta'",
    ),
    "option without a value": (["--cell-options", "eta"], "name=value"),
    "no option": (["--cell-options"], "--cell-options must be one or more of name=value, got 'none'"),
    "option out of range": (["--cell", "fast-weights", "--cell-options", "decay=2"], "decay must be between 0 and 1, got 2"),
    "too many pairs": (["--pairs", "27"], "pairs must be between 1 and 26, the number of letters, got 27"),
    "no pairs": (["--pairs", "0"], "pairs must be between 1 and 26, the number of letters, got 0"),
    "no weight decay": (["--weight-decays", "-0.1"], "--weight-decays must be at least 0 and finite, got -0.1"),
    "no gradient": (["--max-grad-norm", "0"], "--max-grad-norm must be above 0 and finite, got 0.0"),
    "no epochs": (["--epochs", "0"], "--epochs must be at least 1, got 0"),
    "no search": (["--search-epochs", "0"], "--search-epochs must be at least 1, got 0"),
    "no examples of an update": (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
    "no jobs": (["--jobs", "0"], "--jobs must be at least 1, got 0"),
    "learning rate": (["--learning-rate", "-1"], "--learning-rates must be above 0 and finite, got -1.0"),
    "not a number": (["--learning-rate", "nan"], "--learning-rates must be above 0 and finite, got nan"),
    "units": (["--hidden-size", "0"], "--hidden-sizes must be at least 1, got 0"),
    "seed": (["--seed", "-1"], "--seeds must be from 0 to 2147483647, got -1"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_line_and_exit_code_2(case, tmp_path, capsys):
    arguments, expected = BAD_INPUT[case]
    assert retrieval(tmp_path / "out", *arguments) == 2
    line = only_line(capsys)
    assert line.startswith("fw-rl retrieval: error: ")
    assert expected in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change, different",
    [
        (["--epochs", "3"], "epochs must be 2, as in {}, got 3:"),
        (["--batch-size", "64"], "batch_size must be 128, as in {}, got 64:"),
        (["--no-anneal"], "anneal must be True, as in {}, got False:"),
        (["--max-grad-norm", "1"], "max_grad_norm must be None, as in {}, got 1.0:"),
        (["--epochs", "3", "--seed", "1"], "epochs must be 2, as in {}, got 3:"),
        (["--learning-rates", "0.02", "0.03"], "learning_rate must be 0.01, as in {}, got 0.02 or 0.03:"),
        (
            ["--cell", "gru", "--pairs", "2"],
            "data must be 300 strings of 1 pair, as in {}, got 300 strings of 2 pairs:",
        ),
    ],
)
def test_runs_with_other_settings_do_not_mix(change, different, tmp_path, capsys):
    options = ["--cell", "lstm", "--hidden-size", "4"]
    assert retrieval(tmp_path, *options, "--seed", "0") == 0
    capsys.readouterr()
    before = (tmp_path / "runs" / "lstm-4-seed0.json").read_bytes()
    assert retrieval(tmp_path, *options, "--seed", "0", *change) == 2
    printed = capsys.readouterr()
    assert different.format(f"the runs of LSTM in {tmp_path}") in printed.err and printed.err.count("\n") == 1
    assert printed.out == ""  # nothing was trained before
    assert names(tmp_path / "runs") == ["lstm-4-seed0"]
    assert (tmp_path / "runs" / "lstm-4-seed0.json").read_bytes() == before


def test_a_rate_the_search_does_not_choose_is_refused(tmp_path, capsys):
    options = ["--cell", "lstm", "--hidden-size", "4", "--seed", "0"]
    assert retrieval(tmp_path, *options, "--learning-rate", "0.00001") == 0
    capsys.readouterr()
    assert retrieval(tmp_path, *options, "--learning-rates", "0.00001", "0.01", "0.01") == 2
    printed = capsys.readouterr()
    assert f"learning_rate must be 1e-05, as in the runs of LSTM in {tmp_path}, got 0.01" in printed.err
    assert "[2/2]" in printed.out  # a rate that is named twice is tried once


def test_the_folder_of_another_task_is_left_alone(tmp_path, capsys):
    assert retrieval(tmp_path, "--cell", "lstm", "--hidden-size", "4", "--seed", "0") == 0
    text = (tmp_path / "table.md").read_text()
    capsys.readouterr()
    assert main("faces", ["--table", "--out", str(tmp_path)]) == 2
    assert "must hold runs of faces, got retrieval" in only_line(capsys)
    assert (tmp_path / "table.md").read_text() == text


@pytest.mark.parametrize("option", ["--out", "--log-dir"])
def test_an_unwritable_folder_is_named_before_training(option, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    options = ["--cell", "lstm", "--hidden-size", "4", "--seed", "0", option, str(tmp_path / "file" / "x")]
    assert retrieval(tmp_path, *options) == 2
    printed = capsys.readouterr()
    assert f"{option} must be a folder that can be made, got {tmp_path / 'file' / 'x'}" in printed.err
    assert printed.out == "" and not list(tmp_path.glob("**/*.safetensors"))
    assert main("faces", ["--show-faces", "--out", str(tmp_path / "file" / "x")]) == 2
    only_line(capsys)


@pytest.mark.processes
def test_runs_side_by_side_have_one_thread_each():
    """With more, the processes would spend most of their time waiting for each other."""
    with _workers(2) as each:
        assert list(each(threads, range(2))) == [1, 1]


def threads(_):
    return torch.get_num_threads()


@pytest.mark.processes
def test_a_process_that_is_killed_is_told_in_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "my_fatal_cell.py").write_text(
        "import os\n"
        "from fw_rl.cells import register_cell\n"
        "from fw_rl.cells.rnn import RNNCell\n"
        "@register_cell('fatal')\n"
        "class Fatal(RNNCell):\n"
        "    def forward(self, *arguments, **options):\n"
        "        os._exit(9)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert retrieval(tmp_path, "--cell", "my_fatal_cell:fatal", "--hidden-size", "4", "--seeds", "0", "1", "--jobs", "2") == 2
    assert "a process was killed" in only_line(capsys)


def test_a_damaged_record_or_checkpoint_is_named(tmp_path, capsys):
    options = ["--cell", "lstm", "--hidden-size", "4", "--seed", "0"]
    assert retrieval(tmp_path, *options) == 0
    capsys.readouterr()
    (tmp_path / "runs" / "lstm-4-seed0.json").write_text("{")
    assert retrieval(tmp_path, *options) == 2
    assert "lstm-4-seed0.json is not the record of a run" in only_line(capsys)
    (tmp_path / "runs" / "lstm-4-seed0.json").unlink()
    (checkpoint,) = (tmp_path / "logs" / "checkpoints").iterdir()
    checkpoint.write_bytes(b"")
    assert retrieval(tmp_path, *options) == 2
    assert checkpoint.name in only_line(capsys)
    assert retrieval(tmp_path, *options, "--no-resume") == 0
