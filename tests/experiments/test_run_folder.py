"""What a run has logged is kept when it goes on, or as it was where that fails."""

import csv
import errno
import os

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fw_rl.experiments.run_folder import RunFolder

NAMES = ("time/total_timesteps", "rollout/ep_rew_mean", "train/loss")


def log(folder, begin, steps, value):
    logger = RunFolder(folder).logger(begin)
    for step in steps:
        logger.record("time/total_timesteps", step)
        logger.record("rollout/ep_rew_mean", value)
        if step > 100:
            logger.record("train/loss", -1.0)
        logger.dump(step)
    logger.close()


def rows(folder):
    with (folder / "progress.csv").open() as file:
        return [[float(row[name]) if row.get(name) else None for name in NAMES] for row in csv.DictReader(file)]


@pytest.mark.parametrize("begin", [0, 200])
def test_what_came_after_the_checkpoint_is_dropped(begin, tmp_path):
    log(tmp_path, 0, (100, 200, 300), 0.5)
    log(tmp_path, begin, (250, 400), 0.7)
    kept = [[100, 0.5, None], [200, 0.5, -1]] if begin else []
    assert rows(tmp_path) == [*kept, [250, 0.7, -1], [400, 0.7, -1]]
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("rollout/ep_rew_mean")] == [int(row[0]) for row in rows(tmp_path)]


def test_a_full_disk_leaves_the_table_as_it_was(tmp_path, monkeypatch):
    log(tmp_path, 0, (100, 200), 0.5)
    before = (tmp_path / "progress.csv").read_bytes()

    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fw_rl.files._write", full)
    with pytest.raises(OSError, match="No space"):
        RunFolder(tmp_path).logger(200)
    assert (tmp_path / "progress.csv").read_bytes() == before
