"""Trainings that a file lacks are made, and what else it has stays."""

import dataclasses

from fw_rl.experiments.search.learning import Job, Learning, Trainings, read_learnings, write_learnings
from fw_rl.experiments.search.live import train_missing
from fw_rl.experiments.settings import resolve

TINY = resolve(env="Catch-5-2", cell="rnn", timesteps=480, n_envs=4, n_steps=4, hidden_size=8)
JOBS = [Job(dataclasses.replace(TINY, seed=seed), {}) for seed in range(3)]


def learned(job, score=0.5):
    return Learning(dataclasses.asdict(job.config), job.parameters, [score], score, 1.0)


class Instant(Trainings):
    """Trainings that end as soon as they are asked, after `meanwhile` was called."""

    def __init__(self, meanwhile=lambda: None):
        super().__init__(jobs=1, eval_episodes=1)
        self.meanwhile, self.made = meanwhile, []

    def start(self, key, job):
        self._running[key] = job

    def stop(self, key):
        del self._running[key]

    def events(self, timeout=0.5):
        for key in self.keys:
            self.meanwhile()
            self.made.append(self._running.pop(key))
            yield key, learned(self.made[-1])


def test_only_what_a_file_lacks_is_made(tmp_path):
    path, other = tmp_path / "runs.json", learned(Job(TINY, dict(a=1)))
    write_learnings(path, [other, learned(JOBS[1], 0.9)])
    trainings = Instant()
    found = train_missing(path, JOBS, "title", trainings, quiet=True)
    assert trainings.made == [JOBS[0], JOBS[2]]
    assert found == [learned(JOBS[0]), learned(JOBS[1], 0.9), learned(JOBS[2])]
    assert read_learnings(path) == [other, *found]


def test_what_another_command_adds_meanwhile_stays(tmp_path):
    path, other = tmp_path / "runs.json", learned(Job(TINY, dict(a=1)))
    train_missing(path, JOBS[:1], "title", Instant(lambda: write_learnings(path, [other])), quiet=True)
    assert read_learnings(path) == [other, learned(JOBS[0])]
