"""The numbers of a table, by hand."""

import json

import pytest
from PIL import Image

from fw_rl.tasks.faces import Expressions
from fw_rl.tasks.report import as_markdown, summarise, write_report
from fw_rl.tasks.retrieval import Retrieval
from fw_rl.tasks.runs import Record


def record(label, size, seed, errors, *, valid=None, diverged=False, data="strings"):
    """A run whose test errors over its epochs are these; validation agrees unless it is given."""
    epochs = [
        dict(train_loss=0.0, valid_loss=0.1, valid_error=v, test_loss=e / 100, test_error=e, seconds=2.0 + seed)
        for e, v in zip(errors, valid or errors, strict=True)
    ]
    settings = dict(learning_rate=0.003, weight_decay=0.1, epochs=len(errors), data=data)
    return Record("retrieval", label, size, seed, settings, 1234, epochs, diverged)


RECORDS = [
    record("Fast weights", 20, 1, [60.0, 3.0]),
    record("Fast weights", 20, 0, [50.0, 1.0]),
    record("Fast weights", 20, 2, [2.0, 1.5], valid=[2.0, 9.0]),  # validation prefers the worse epoch, which is the first
    record("LSTM", 20, 0, [61.0]),
    record("My cell", 20, 0, [5.0]),
    record("Fast weights", 50, 0, [0.0]),
    record("IRNN", 20, 0, [], diverged=True),
]


def test_a_summary_is_the_mean_at_the_epochs_validation_chose():
    irnn, lstm, *_, mine = summaries = summarise(Retrieval(), RECORDS)
    assert [(row["label"], row["hidden_size"]) for row in summaries] == [
        ("IRNN", 20),
        ("LSTM", 20),
        ("Fast weights", 20),
        ("Fast weights", 50),
        ("My cell", 20),
    ]
    fast = summaries[2]
    assert fast["results"] == [1.0, 3.0, 2.0]
    assert fast["mean"] == 2.0
    assert (fast["low"], fast["high"]) == (0.0, pytest.approx(2 + 4.303 / 3**0.5, rel=1e-3))  # an error is never below 0
    assert (fast["paper"], lstm["paper"], mine["paper"]) == (1.81, 60.81, None)
    assert fast["last"] == pytest.approx((1.0 + 3.0 + 1.5) / 3)
    assert fast["seconds_per_epoch"] == 3.0
    assert (lstm["mean"], lstm["low"], lstm["high"]) == (61.0, None, None)
    assert (irnn["mean"], irnn["last"], irnn["diverged"], irnn["results"]) == (None, None, 1, [])


def test_the_text_has_the_numbers_beside_the_papers():
    text = " ".join(as_markdown(Retrieval(), "strings", summarise(Retrieval(), RECORDS)).split())
    assert "Data: strings." in text
    assert "| 20 | 1,234 | 2.00 | 0.00 to 4.48 | 1.83 | 1.81 | 3 | 1.00 to 3.00 | 0.003 | 0.1 | 2 | 3.0 |" in text
    assert "| IRNN | 20 | 1,234 | | | | 62.11 | 0 (1 diverged) | | 0.003 | 0.1 | 0 | |" in text


def test_accuracies_are_the_rest_to_100():
    (row,) = summarise(Expressions(), [record("Fast weights", 200, 0, [11.0]), record("Fast weights", 200, 1, [13.0])])
    assert (row["mean"], row["paper"]) == (88.0, 86.34)
    assert (row["low"], row["high"]) == (pytest.approx(88 - 12.706, rel=1e-3), 100.0)
    text = as_markdown(Expressions(), "faces", [row])
    assert "Test accuracy" in text
    assert "| 88.00 |" in " ".join(text.split())


def test_the_report_is_text_json_and_two_pictures(tmp_path):
    text = write_report(Retrieval(), RECORDS, tmp_path)
    assert (tmp_path / "table.md").read_text() == text
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["mean"] for row in table["rows"]] == [None, 61.0, 2.0, 0.0, 5.0]
    for name in ("table.png", "curves.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 300


def test_runs_on_different_data_make_no_table(tmp_path):
    with pytest.raises(ValueError, match="must hold runs on the same data, got other; strings"):
        write_report(Retrieval(), [*RECORDS, record("LSTM", 50, 0, [1.0], data="other")], tmp_path)


def test_a_table_of_runs_that_all_diverged_is_a_table(tmp_path):
    assert "1 diverged" in write_report(Retrieval(), RECORDS[-1:], tmp_path)
