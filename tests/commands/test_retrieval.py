"""`fw-rl retrieval` takes any cell that is registered."""

import pytest
import torch
from torch import nn

from fw_rl.cells import Cell, available_cells, register_cell
from fw_rl.commands.task import main
from tests.commands.helpers import rows


@pytest.fixture
def fading_cell():
    @register_cell("fading")
    class FadingCell(Cell):
        def __init__(self, input_size, hidden_size, decay=0.9):
            super().__init__(input_size, hidden_size)
            self.input_map, self.decay = nn.Linear(input_size, hidden_size), decay

        def initial_state(self, batch_size):
            return (torch.zeros(batch_size, self.hidden_size),)

        def forward(self, x, state, episode_starts=None):
            (h,), outputs = state, []
            for driven in torch.tanh(self.input_map(x)):
                h = self.decay * h + driven
                outputs.append(h)
            return torch.stack(outputs), (h,)

    return "fading"


def retrieval(folder, *arguments):
    small = ["--examples", "200", "--epochs", "1", "--hidden-size", "4", "--seed", "0", "--learning-rate", "0.01", "--quiet"]
    return main("retrieval", [*small, "--out", str(folder), "--log-dir", str(folder / "logs"), *arguments])


def test_a_cell_of_ones_own_is_a_row_too(fading_cell, tmp_path, capsys):
    assert retrieval(tmp_path, "--cells", fading_cell, "lstm", "--hidden-size", "20") == 0
    printed = rows(capsys.readouterr().out)
    assert any(row.startswith("| fading | 20 |") for row in printed)
    assert any(row.startswith("| LSTM | 20 |") and " 60.81 " in row for row in printed)


def test_its_options_make_another_row(fading_cell, tmp_path, capsys):
    assert retrieval(tmp_path, "--cell", fading_cell) == 0
    assert retrieval(tmp_path, "--cell", fading_cell, "--cell-options", "decay=0.5") == 0
    printed = rows(capsys.readouterr().out)
    for name in ("fading", "fading, decay=0.5"):
        assert any(row.startswith(f"| {name} | 4 |") for row in printed)


@pytest.mark.processes
def test_every_registered_cell_and_every_row_of_the_table(tmp_path, capsys):
    cells = [*available_cells(), "delta-rule", "method-2"]
    assert retrieval(tmp_path, "--cells", *cells) == 0
    assert len(list((tmp_path / "runs").iterdir())) == len(cells)
    assert "4,000" not in capsys.readouterr().out


def test_the_data_is_named(tmp_path, capsys):
    assert retrieval(tmp_path, "--cell", "lstm", "--pairs", "3") == 0
    assert "Data: 200 strings of 3 pairs." in capsys.readouterr().out
