"""`fw-rl faces`: the table on drawn faces and on a user's Multi-PIE, and what is said where there is none."""

import json

import pytest
from PIL import Image

from fw_rl.commands.task import main
from fw_rl.tasks import faces as task
from fw_rl.tasks import runs
from tests.tasks.test_faces import multi_pie_path, write_image


@pytest.fixture
def few_faces(monkeypatch):
    monkeypatch.setattr(task, "make_drawn_faces", lambda draw=task.make_drawn_faces: draw(people=6, lights=1))
    monkeypatch.setattr(task, "TEST_PEOPLE", 2)
    monkeypatch.setattr(task, "VALID_PEOPLE", 2)
    runs.load_data.cache_clear()
    yield
    runs.load_data.cache_clear()


def faces(folder, *arguments):
    small = ["--epochs", "1", "--seed", "0", "--learning-rate", "0.003", "--quiet"]
    return main("faces", [*small, "--out", str(folder), "--log-dir", str(folder / "logs"), *arguments])


@pytest.mark.processes
def test_the_table_has_accuracies_and_names_the_drawn_faces(few_faces, tmp_path, capsys):
    assert faces(tmp_path, "--cells", "convnet", "fast-weights", "--hidden-size", "200") == 0
    printed = capsys.readouterr().out
    assert "Data: drawn faces" in printed
    assert " 88.23 " in printed and " 86.34 " in printed
    record = json.loads((tmp_path / "runs" / "convnet-200-seed0.json").read_text())
    (row, _) = sorted(json.loads((tmp_path / "table.json").read_text())["rows"], key=lambda row: row["label"])
    assert row["results"] == [100 - record["epochs"][0]["test_error"]]


def test_some_faces_are_drawn(few_faces, tmp_path):
    assert faces(tmp_path, "--show-faces") == 0
    with Image.open(tmp_path / "faces.png") as picture:
        assert min(picture.size) > 500


def test_a_users_multi_pie_is_used_and_named(tmp_path, capsys):
    for person in range(1, 43):
        write_image(multi_pie_path(tmp_path / "data", person, 1, 1, "051"), size=(16, 16))
    assert faces(tmp_path / "out", "--cell", "convnet", "--data-dir", str(tmp_path / "data")) == 0
    assert "Data: CMU Multi-PIE, 42 images of 42 people, copy " in capsys.readouterr().out
    assert str(tmp_path) not in (tmp_path / "out" / "runs" / "convnet-200-seed0.json").read_text()


@pytest.mark.parametrize("show", [[], ["--show-faces"]])
def test_an_empty_multi_pie_folder_gets_one_line(show, tmp_path, capsys):
    assert faces(tmp_path / "out", "--data-dir", str(tmp_path), *show) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fw-rl faces: error: ")
    assert "holds no image of Multi-PIE's central cameras" in line
