"""A task is one file and one entry: its command, with the options of the table, comes from its own fields and methods."""

import pytest

from fw_rl.commands.task import main
from fw_rl.tasks import TASKS, TaskEntry

PARITY = '''
from dataclasses import dataclass
from typing import ClassVar

import torch
from fw_rl.tasks.base import Data, Row, Split, Task, layers


@dataclass(frozen=True)
class Parity(Task):
    """Is the number of ones even?

    Not in the help.
    """

    bits: int = 3
    """Bits of an input."""

    name: ClassVar = "parity"
    title: ClassVar = "Parity"
    rows: ClassVar = {"mlp": Row("MLP", "", net="mlp")}
    sizes: ClassVar = (8,)
    weight_decay: ClassVar = 0.25

    def __post_init__(self):
        if self.bits < 1:
            raise ValueError(f"bits must be at least 1, got {self.bits}")

    paper: ClassVar = {("mlp", 8): 12.5}

    @property
    def data_name(self):
        return f"{self.bits} bits"

    def load(self):
        bits = torch.arange(2**self.bits)[:, None] >> torch.arange(self.bits) & 1
        split = Split(bits.float(), bits.sum(1) % 2)
        return Data(split, split, split)

    def make_net(self, row, hidden_size):
        return layers(self.bits, hidden_size, 2, last_relu=False)

    def show_inputs(self, folder):
        """Train nothing: print the inputs.

        Not in the help either.
        """
        (folder / "inputs.txt").write_text(str(self.load().train.inputs.tolist()))
        return f"{2**self.bits} inputs"
'''


@pytest.fixture
def parity(tmp_path, monkeypatch):
    (tmp_path / "my_parity_task.py").write_text(PARITY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(TASKS, "parity", TaskEntry("parity of bits", "my_parity_task:Parity"))

    def run(*arguments):
        return main("parity", ["--out", str(tmp_path / "out"), "--log-dir", str(tmp_path / "logs"), "--quiet", *arguments])

    return run


def test_the_help_has_the_fields_the_shows_and_the_table(parity, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        parity("--help")
    shown = capsys.readouterr().out
    assert shown.startswith("usage: fw-rl parity") and "Is the number of ones even?" in shown
    for text in ("Bits of an input. (default: 3)", "Train nothing: print the inputs. (default: False)"):
        assert text in shown
    for default in ("mlp", "8", "0.25", "runs/parity"):
        assert f"(default: {default})" in shown
    assert "Not in the help" not in shown


def test_the_table_is_made_with_the_settings_of_the_task(parity, tmp_path, capsys):
    assert parity("--bits", "2", "--seeds", "0", "--epochs", "1", "--learning-rate", "0.01") == 0
    printed = capsys.readouterr().out
    assert "Parity. Data: 2 bits." in printed and "| MLP | 8 | 42 |" in " ".join(printed.split()) and " 12.50 " in printed
    assert "learning rate 0.01, weight decay 0.25" in printed
    assert (tmp_path / "out" / "runs" / "mlp-8-seed0.json").exists()


def test_what_it_shows_is_shown_and_nothing_trained(parity, tmp_path, capsys):
    assert parity("--show-inputs", "--bits", "1") == 0
    assert capsys.readouterr().out == "2 inputs\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["inputs.txt"]


def test_its_own_check_gets_one_line(parity, capsys):
    assert parity("--bits", "0") == 2
    assert capsys.readouterr().err == "fw-rl parity: error: bits must be at least 1, got 0\n"


def test_a_device_that_is_none_gets_one_line(parity, capsys):
    for name, wanted in (("tpu", "cpu, cuda or cuda:K"), ("auto", "cpu, cuda or cuda:K"), ("cuda:99", "CUDA device")):
        assert parity("--device", name) == 2
        told = capsys.readouterr().err
        assert wanted in told and told.endswith(f", got {name!r}\n") and told.count("\n") == 1
