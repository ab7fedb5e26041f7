"""`fw-rl glimpse`: the table on digits, the picture of the sequence, and what is said about wrong files."""

import re

import numpy as np
import pytest
from PIL import Image

from fw_rl.commands.task import main
from fw_rl.tasks import digits, runs
from fw_rl.tasks.glimpse import GLIMPSE_ROWS
from fw_rl.tasks.glimpse_pictures import describe_glimpses
from tests.commands.helpers import rows


@pytest.fixture
def few_digits(monkeypatch):
    """A bar in one of two places, in place of MNIST."""
    labels = np.arange(600, dtype=np.uint8) % 2
    images = np.zeros((600, 28, 28), np.uint8)
    images[labels == 0, 3:6, 4:20] = 255
    images[labels == 1, 20:23, 4:20] = 255
    monkeypatch.setattr(digits, "load_mnist", lambda folder: (images, labels, images[:100], labels[:100]))
    monkeypatch.setattr(digits, "VALID_IMAGES", 200)
    runs.load_data.cache_clear()
    yield
    runs.load_data.cache_clear()


def glimpse(folder, *arguments):
    small = ["--epochs", "2", "--hidden-size", "8", "--seed", "0", "--learning-rate", "0.01", "--quiet"]
    return main("glimpse", [*small, "--out", str(folder), "--log-dir", str(folder / "logs"), *arguments])


@pytest.mark.processes
def test_every_row_learns_and_is_in_the_table(few_digits, tmp_path, capsys):
    assert glimpse(tmp_path, "--hidden-size", "16", "--epochs", "8") == 0
    printed = rows(capsys.readouterr().out)
    for row in GLIMPSE_ROWS.values():
        assert any(re.match(rf"\| {row.label} \| 16 \| [\d,]+ \| 0\.00 \|", line) for line in printed)
    assert any("Data: MNIST." in line for line in printed)


def test_moved_digits_are_said_to_be_moved(few_digits, tmp_path, capsys):
    assert glimpse(tmp_path, "--cell", "convnet", "--most-shift", "1") == 0
    assert "MNIST, training images moved by up to 1 pixel" in capsys.readouterr().out


def test_the_sequence_is_printed_and_drawn(few_digits, tmp_path, capsys):
    assert glimpse(tmp_path, "--show-glimpses") == 0
    printed = capsys.readouterr().out
    with Image.open(tmp_path / "glimpses.png") as picture:
        assert min(picture.size) > 500
    assert not (tmp_path / "runs").exists()
    assert describe_glimpses(28) in printed


def test_the_sequence_in_words():
    _, *steps = describe_glimpses(28).splitlines()
    assert len(steps) == 24
    assert steps[0].split() == ["1", "coarse", "0-13", "0-13", "store,", "wipe"]
    assert steps[1].split() == ["2", "fine", "0-6", "0-6"]
    assert steps[4].split() == ["5", "fine", "7-13", "7-13", "wipe"]
    assert steps[23].split() == ["24", "coarse", "14-27", "14-27", "integrate"]


@pytest.mark.parametrize("show", [[], ["--show-glimpses"]])
def test_a_folder_without_mnist_gets_one_line(show, tmp_path, capsys):
    runs.load_data.cache_clear()
    assert glimpse(tmp_path / "out", "--data-dir", str(tmp_path), *show) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fw-rl glimpse: error: there is no train-images-idx3-ubyte or")


def test_a_foreign_file_gets_one_line(tmp_path, capsys):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x02ab")
    assert glimpse(tmp_path / "out", "--data-dir", str(tmp_path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not MNIST's train-images-idx3-ubyte: its shape is (2,)" in line


def test_a_shift_out_of_the_picture_gets_one_line(tmp_path, capsys):
    assert glimpse(tmp_path, "--most-shift", "20") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "most_shift must be between 0 and 8 pixels, got 20" in line
