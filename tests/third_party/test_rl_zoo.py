"""rl-zoo3's scripts train, show, film, continue and tune our agents, by examples/rl_zoo.py and with files of its names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fw_rl.agents import RecurrentPPO, read_checkpoint

pytest.importorskip("rl_zoo3", reason="needs pip install --no-deps rl_zoo3 huggingface-sb3 huggingface_hub wasabi")
pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
ENV = "CartPoleNoVel-v1"
MEMORY = "policy_kwargs:dict(cell='gru',hidden_size=8)"
SMALL = ["n_envs:2", "n_steps:32", "batch_size:32", "n_epochs:1", MEMORY, "normalize:True", "frame_stack:2"]


def zoo(script, folder, *arguments):
    """What a script of rl-zoo3 says."""
    command = [sys.executable, str(ROOT / "examples" / "rl_zoo.py"), script, "--algo", "fw_ppo", "--env", ENV]
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "SDL_VIDEODRIVER": "dummy", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "-f", str(folder), *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def train(folder, *arguments, changed=()):
    settings = ["-conf", str(ROOT / "examples" / "rl_zoo.yml"), "--seed", "0", "-params", *SMALL, *changed]
    return zoo("train", folder, "--eval-freq", "128", "--eval-episodes", "1", *arguments, *settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run of 512 steps."""
    folder = tmp_path_factory.mktemp("zoo")
    train(folder, "-n", "512", "--save-freq", "256")
    return folder / "fw_ppo" / f"{ENV}_1"


def test_an_agent_lies_where_rl_zoo_looks_for_it(trained):
    assert {path.name for path in trained.glob("*.zip")} == {
        f"{ENV}.zip",
        "best_model.zip",
        "rl_model_256_steps.zip",
        "rl_model_512_steps.zip",
    }
    stored = read_checkpoint(trained / f"{ENV}.zip")
    assert stored.counters["num_timesteps"] == 512
    assert stored.arguments["learning_rate"](0.5) == pytest.approx(0.0005)  # lin_0.001
    assert stored.not_stored == []


@pytest.mark.parametrize("which", [[], ["--load-best"], ["--load-last-checkpoint"]])
def test_it_is_shown(trained, which):
    said = zoo("enjoy", trained.parents[1], "-n", "100", "--no-render", *which)
    assert "Mean reward: " in said


def test_it_is_filmed(trained):
    pytest.importorskip("moviepy", reason="needs pip install --no-deps moviepy proglog decorator python-dotenv")
    zoo("record_video", trained.parents[1], "-n", "20", "-o", str(trained / "videos"))
    (video,) = (trained / "videos").glob("*.mp4")
    assert video.stat().st_size > 1_000


def test_training_goes_on_from_its_file(trained, tmp_path):
    train(tmp_path, "-n", "64", "-i", str(trained / f"{ENV}.zip"), changed=["learning_rate:0.0"])
    before = RecurrentPPO.load(trained / f"{ENV}.zip")
    after = RecurrentPPO.load(tmp_path / "fw_ppo" / f"{ENV}_1" / f"{ENV}.zip")
    assert after._n_updates > before._n_updates
    assert all(map(torch.equal, after.policy.parameters(), before.policy.parameters()))


def test_its_hyperparameters_are_tuned(tmp_path):
    tuning = ["-optimize", "--n-trials", "2", "--n-startup-trials", "1", "--n-evaluations", "1", "--no-optim-plots"]
    said = train(tmp_path, "-n", "256", *tuning)
    assert "Number of finished trials:  2" in said
    assert "cell: " in said.partition("Params:")[2]
