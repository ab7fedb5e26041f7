"""`train --engine ray`: the folder of a run is that of every run, and it goes on after Ctrl-C."""

import pytest

pytest.importorskip("ray", reason="needs pip install 'fw-rl[ray]'")

import csv
import json
import os
import signal
import subprocess
import sys
import time

from fw_rl.experiments.agents import load_trained
from tests.ray.conftest import ROOT, left_of_ray

pytestmark = pytest.mark.timeout(900)

SMALL = ["--env", "Catch-5-2", "--n-envs", "8", "--n-steps", "4", "--hidden-size", "16", "--eval-episodes", "50"]


def start(*arguments):
    return subprocess.Popen([sys.executable, str(ROOT / "train.py"), *arguments], stderr=subprocess.PIPE, text=True)


def rows_of(run):
    with (run / "progress.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("algo", ["impala", "ppo"])
def test_a_run_is_interrupted_and_goes_on(algo, tmp_path):
    begun = start(*SMALL, "--engine", "ray", "--algo", algo, "--timesteps", "12000", "--log-dir", str(tmp_path), "--quiet")
    while begun.poll() is None and not len(list(tmp_path.glob("*/checkpoints/*.safetensors"))) > 2:
        time.sleep(0.2)
    begun.send_signal(signal.SIGINT)
    assert begun.wait(300) == 130, begun.stderr.read()
    assert not left_of_ray()
    (run,) = tmp_path.iterdir()
    saved = sorted((run / "checkpoints").iterdir())[-1]
    stopped = int(saved.stem)
    assert 0 < stopped < 12_000

    resumed = start("--resume", str(run), "--workers", "1", "--eval-episodes", "50")
    _, said = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, said
    frames = [int(float(row["time/total_timesteps"])) for row in rows_of(run)]
    assert frames == sorted(set(frames))
    assert frames[-1] >= 12_000
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "train/policy_loss", "train/value_loss"} <= set(
        rows_of(run)[-1]
    )
    assert json.loads((run / "eval.json").read_text())["timesteps"] == frames[-1]
    assert {"learning_curve.png", "episodes.gif", "config.json"} <= {path.name for path in run.iterdir()}
    assert list(run.glob("events.out.tfevents.*"))
    config, model = load_trained(run)
    assert (config.engine, config.algo) == ("ray", algo)
    assert model.num_timesteps == frames[-1]
    assert not left_of_ray()


def test_a_missing_cluster_is_reported_in_one_line(tmp_path):
    process = start(*SMALL, "--engine", "ray", "--ray-address", "127.0.0.1:1", "--log-dir", str(tmp_path), "--quiet")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1, said
    assert "error: no Ray at 127.0.0.1:1" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert os.listdir(tmp_path)
