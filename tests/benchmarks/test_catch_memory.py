"""Fast weights without W on Catch: a table and a picture of what is read, from a training of a few frames."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import catch_memory

    return catch_memory


@pytest.fixture
def sweep(tmp_path):
    from fw_rl.experiments.search.learning import Learning, write_learnings
    from fw_rl.experiments.settings import resolve

    options = dict(eta=0.1, decay=0.5, recurrent_scale=0.3)
    best = resolve(env="Catch-16-3", cell="fast-weights", algo="a2c", n_envs=4, hidden_size=8, cell_options=options)
    path = tmp_path / "Catch-16-3" / "fast-weights" / "seeds.json"
    path.parent.mkdir(parents=True)
    write_learnings(path, [Learning(vars(best), {}, [0.5], 1.0, 1.0)])
    return tmp_path


def test_w_is_gone_where_the_name_says_so(script, sweep):
    jobs = list(script.trainings(script.Settings(sweep=sweep, seeds=2)))
    assert len(jobs) == 2 * len(script.VARIANTS) == len({job.folder for job in jobs})
    for job in jobs:
        name, options = job.parameters["variant"], job.config.cell_options
        assert (options["recurrent_scale"] == 0) == name.startswith("W = 0")
        assert options.get("learn_recurrent", True) == name.startswith("W learned")
        assert ("decay 0.95" in name) <= (options["decay"] == 0.95)


@pytest.mark.processes
def test_it_trains_and_draws_what_is_read(sweep, tmp_path):
    out = tmp_path / "out"
    few = "--seeds 1 --timesteps 100 --eval-episodes 4 --read-episodes 2 --jobs 2"
    command = [sys.executable, str(ROOT / "benchmarks" / "catch_memory.py"), "--sweep", str(sweep), "--out", str(out)]
    done = subprocess.run([*command, *few.split()], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert len(json.loads((out / "memory.json").read_text())) == 8
    assert (out / "memory.md").read_text().count("W = 0") == 5
    with PIL.Image.open(out / "memory.png") as picture:
        assert np.asarray(picture).std() > 10
