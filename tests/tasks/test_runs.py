"""What a run leaves, and that the record says all that a table needs."""

import dataclasses
import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fw_rl.tasks.retrieval import Retrieval
from fw_rl.tasks.runs import Run, execute, read_record, read_records
from fw_rl.tasks.training import Training, train

RUN = Run(Retrieval(pairs=1, examples=300), "lstm", 6, Training(1e-2, epochs=3, seed=1))


def test_a_run_leaves_its_record_a_checkpoint_and_a_log(tmp_path):
    path = tmp_path / "runs" / "a.json"
    record = execute(RUN, path, tmp_path, quiet=True)
    assert read_record(path) == record
    assert read_records(tmp_path / "runs") == [record]
    assert record.is_of(RUN)
    assert record.group == ("LSTM", 6)
    assert (record.seed, record.settings["learning_rate"], record.settings["pairs"]) == (1, 1e-2, 1)
    assert len(record.epochs) == 3
    assert record.best["valid_error"] == min(epoch["valid_error"] for epoch in record.epochs)
    (log,) = (tmp_path / "tensorboard").iterdir()
    events = EventAccumulator(str(log)).Reload()
    assert [event.step for event in events.Scalars("test_loss")] == [1, 2, 3]
    assert events.Scalars("test_error")[2].value == pytest.approx(record.epochs[2]["test_error"])


def test_a_record_holds_no_path(tmp_path):
    execute(RUN, tmp_path / "a.json", tmp_path, quiet=True)
    assert str(tmp_path) not in (tmp_path / "a.json").read_text()


def test_the_global_generator_is_left_alone_and_has_no_influence(tmp_path):
    import torch

    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = execute(RUN, tmp_path / "a.json", tmp_path / "a", quiet=True)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    second = execute(RUN, tmp_path / "b.json", tmp_path / "b", quiet=True)
    assert [epoch["test_loss"] for epoch in first.epochs] == [epoch["test_loss"] for epoch in second.epochs]


@pytest.mark.parametrize("resume", [True, False])
def test_resume_goes_on_and_its_opposite_begins_anew(resume, tmp_path, monkeypatch):
    execute(RUN, tmp_path / "a.json", tmp_path, quiet=True)
    begun = []

    def watched(net, data, training, *, checkpoint, **rest):
        begun.append(checkpoint.exists())
        return train(net, data, training, checkpoint=checkpoint, **rest)

    monkeypatch.setattr("fw_rl.tasks.runs.train", watched)
    execute(RUN, tmp_path / "b.json", tmp_path, resume=resume, quiet=True)
    assert begun == [resume]


@pytest.mark.parametrize(
    "change",
    [
        dict(training=Training(1e-2, epochs=4, seed=1)),
        dict(training=Training(2e-2, epochs=3, seed=1)),
        dict(training=Training(1e-2, epochs=3, seed=2)),
        dict(training=Training(1e-2, epochs=3, seed=1, weight_decay=0.1)),
        dict(training=Training(1e-2, epochs=3, seed=1, max_grad_norm=1.0)),
        dict(task=Retrieval(pairs=2, examples=300)),
        dict(row="gru"),
        dict(options=dict(forget_bias=0.0)),
    ],
)
def test_other_settings_are_another_run_with_another_checkpoint(change, tmp_path):
    other = dataclasses.replace(RUN, **change)
    record = execute(RUN, tmp_path / "a.json", tmp_path, quiet=True)
    assert not record.is_of(other)
    execute(other, tmp_path / "b.json", tmp_path, quiet=True)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_a_run_that_diverges_says_so(tmp_path):
    wild = dataclasses.replace(RUN, row="rnn", training=Training(1e30, epochs=3, seed=1))
    record = execute(wild, tmp_path / "a.json", tmp_path, quiet=True)
    assert record.diverged
    assert read_record(tmp_path / "a.json") == record


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"task": "retrieval"}', "\x00", "[" * 100_000])
def test_a_file_that_is_no_record_gets_one_line(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is not the record of a run") as error:
        read_records(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        dict(epochs=[]),
        dict(epochs=[{}]),
        dict(epochs=[dict(train_loss=None)]),
        dict(settings=None),
        dict(settings={}),
        dict(seed=None),
        dict(hidden_size="8"),
        dict(label=["LSTM"]),
        dict(parameters="many"),
    ],
    ids=str,
)
def test_a_record_that_no_table_could_show_is_no_record(change, tmp_path):
    execute(RUN, tmp_path / "a.json", tmp_path, quiet=True)
    content = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(content | change))
    with pytest.raises(ValueError, match="is not the record of a run"):
        read_record(tmp_path / "a.json")
