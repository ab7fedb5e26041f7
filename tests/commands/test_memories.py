"""The memories command: what is there is not made again, agents can be played, and bad input gets one line."""

import json

import pytest

from fw_rl.commands.memories import main
from fw_rl.commands.play import main as play
from fw_rl.experiments.search.learning import read_learnings

SMALL = ["--games", "Retrieval-2", "--frames", "9000", "--eval-episodes", "4", "--jobs", "2", "--quiet"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of two trainings; to be read only."""
    out = tmp_path_factory.mktemp("memories")
    assert main([*SMALL, "--cells", "delta-net", "min-gru", "--seeds", "0", "--out", str(out)]) == 0
    return out


@pytest.mark.processes
def test_tables_pictures_and_agents_are_left(made, tmp_path):
    files = {path.name for path in made.iterdir()}
    assert files == {"agents", "runs.json", "table.md", "table.json", "scores.png", "curves.png", "attention.png"}
    record = json.loads((made / "table.json").read_text())
    assert {cell: found["seeds"] for cell, found in record["games"]["Retrieval-2"]["cells"].items()} == {
        "delta-net": [0],
        "min-gru": [0],
    }
    assert [known.settings["learning_rate"] for known in read_learnings(made / "runs.json")] == [2e-3, 1e-3]
    agent = made / "agents" / "Retrieval-2_delta-net_9000_seed0"
    assert play([str(agent), "--episodes", "1", "--show-attention", str(tmp_path / "attention.png")]) == 0


@pytest.mark.processes
def test_only_what_is_missing_is_made(made, tmp_path, capsys):
    out = tmp_path / "runs"
    out.mkdir()
    (out / "runs.json").write_bytes((made / "runs.json").read_bytes())
    assert main([*SMALL, "--cells", "delta-net", "--seeds", "0", "1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "[2/2] 1: " in printed and "[1/2]" not in printed
    before = read_learnings(made / "runs.json")
    assert [known for known in read_learnings(out / "runs.json") if known in before] == before[::-1]
    assert main([*SMALL, "--cells", "delta-net", "--seeds", "0", "--frames", "9500", "--out", str(out)]) == 0
    assert "[1/1] 0: " in capsys.readouterr().out
    assert len(read_learnings(out / "runs.json")) == 4


@pytest.mark.processes
def test_a_table_is_made_of_what_is_there(made, tmp_path, capsys):
    out = tmp_path / "runs"
    out.mkdir()
    (out / "runs.json").write_bytes((made / "runs.json").read_bytes())
    assert main([*SMALL, "--cells", "delta-net", "gru", "--show-table", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "| Retrieval-2 " in printed and "| gru" not in printed
    assert not (out / "attention.png").exists()  # of agents that are not here


BAD_INPUT = {
    "--games Retrieval-0": "env must be Retrieval-<pairs>",
    "--games Nonsense-v0": "env must be Catch-N-M",
    "--cells elephant": "cell must be one of",
    "--seeds -1": "--seeds must be from 0 to 2147483647, got -1",
    "--frames 0": "--frames must be at least 1, got 0",
    "--frames 8191": "--frames must be at least 8192, the steps of a rollout, got 8191",
    "--jobs 0": "--jobs must be at least 1, got 0",
    "--eval-episodes 0": "--eval-episodes must be at least 1, got 0",
    "--seeds": "--seeds must be one or more, got 'none'",
    "--show-table": "must hold trainings with these games, cells, seeds and frames, got none",
}


@pytest.mark.parametrize("words", BAD_INPUT)
def test_bad_input_gets_one_line_and_exit_code_2(words, tmp_path, capsys):
    assert main([*words.split(), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fw-rl memories: error: ") and BAD_INPUT[words] in line
    assert words == "--show-table" or not (tmp_path / "out").exists()
