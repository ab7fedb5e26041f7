"""Environments of others by their id alone: trained, resumed, evaluated, drawn and played."""

import json
import math
import re

import gymnasium as gym
import numpy as np
import pytest

from fw_rl.commands.play import main as play
from fw_rl.commands.train import main as train
from fw_rl.experiments.agents import make_model
from fw_rl.experiments.environments import make_env
from fw_rl.experiments.settings import resolve

pytestmark = pytest.mark.processes

PLAIN: list[str] = []
TUPLE = ["Observations are flattened"]
GRID = ["MiniGrid's cells are one-hot", "Text is left out of observations: mission"]
ATARI = ["Atari is prepared"]

ENVIRONMENTS = {
    "Blackjack-v1": ("pygame", TUPLE),
    "FrozenLake-v1": ("pygame", PLAIN),
    "Taxi-v4": ("pygame", PLAIN),
    "Hopper-v5": ("mujoco", PLAIN),  # the only one: MuJoCo ends a process that fails to draw twice
    "LunarLander-v3": ("Box2D", PLAIN),
    "BipedalWalker-v3": ("Box2D", PLAIN),
    "popgym:popgym-AutoencodeEasy-v0": ("popgym", TUPLE),
    "popgym:popgym-RepeatPreviousEasy-v0": ("popgym", PLAIN),
    "minigrid:MiniGrid-MemoryS7-v0": ("minigrid", GRID),
    "ale_py:ALE/Pong-v5": ("ale_py", ATARI),
    "memory_gym:MortarMayhem-Grid-v0": ("memory_gym", PLAIN),
    "flappy_bird_gymnasium:FlappyBird-v0": ("flappy_bird_gymnasium", PLAIN),
    "gym_anytrading:forex-v0": ("gym_anytrading", PLAIN),
    "highway_env:highway-fast-v0": ("highway_env", PLAIN),
    "shimmy:bsuite/catch-v0": ("bsuite", PLAIN),
}
"""By id: the package, and what the command says of changes."""

SHORT = ["--eval-episodes", "1", "--quiet"]


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_one_command_trains_and_draws_and_others_go_on(env, tmp_path, capsys):
    package, changes = ENVIRONMENTS[env]
    pytest.importorskip(package, reason="needs pip install 'fw-rl[envs]'")
    small = ["--n-envs", "2", "--hidden-size", "16", "--timesteps", "300", "--log-dir", str(tmp_path)]
    assert train(["--env", env, *small, *SHORT]) == 0
    said = capsys.readouterr().out
    assert all(change in said for change in changes)
    assert len(re.findall("^(Obs|Parts|Text|Atari|MiniGrid)", said, re.MULTILINE)) == len(changes)
    (run,) = tmp_path.iterdir()
    assert math.isfinite(json.loads((run / "eval.json").read_text())["mean"])
    assert (run / "learning_curve.png").exists()
    drawn = (run / "episodes.gif").exists()
    assert drawn != ("No animation: " in said)
    assert train(["--resume", str(run), "--timesteps", "600", *SHORT]) == 0
    file = ["--gif", str(tmp_path / "episodes.gif")] if drawn else []
    assert play([str(run), "--episodes", "1", "--max-steps", "20", *file]) == 0
    assert "Episode 1: return" in capsys.readouterr().out


@pytest.mark.parametrize("level", ["Easy", "Medium", "Hard"])
def test_every_id_of_popgym_can_be_learned_from(level):
    pytest.importorskip("popgym", reason="needs pip install 'fw-rl[envs]'")
    names = [f"popgym:{name}" for name in gym.registry if name.startswith("popgym-") and name.endswith(f"{level}-v0")]
    assert len(names) >= 14
    for name in names:
        model = make_model(resolve(env=name, cell="gru", n_envs=2, n_steps=8, hidden_size=8))
        assert model.learn(64).num_timesteps == 64, name


def test_cells_of_minigrid_are_one_hot():
    pytest.importorskip("minigrid", reason="needs pip install 'fw-rl[envs]'")
    env, plain = make_env("minigrid:MiniGrid-MemoryS7-v0", training=True), gym.make("MiniGrid-MemoryS7-v0")
    seen, codes = env.reset(seed=0)[0]["image"], plain.reset(seed=0)[0]["image"]
    objects, colors, states = np.split(seen, [11, 17], axis=-1)
    assert env.observation_space["image"].contains(seen) and (seen.sum(axis=-1) == 3).all()
    np.testing.assert_array_equal(np.stack([part.argmax(axis=-1) for part in (objects, colors, states)], axis=-1), codes)


def test_an_atari_game_reports_its_true_score_after_all_lives():
    pytest.importorskip("ale_py", reason="needs pip install 'fw-rl[envs]'")
    env = make_env("ale_py:ALE/Breakout-v5", training=True)
    env.action_space.seed(0)
    env.reset(seed=0)
    lives, earned, report = 0, 0.0, None
    while report is None:
        _, reward, terminated, _, info = env.step(env.action_space.sample())
        earned += float(reward)
        report = info.get("episode")
        if terminated:
            lives += 1
            env.reset()
    assert lives == 5
    assert report["r"] >= earned
    assert report["l"] > 4 * lives  # frames, of which the agent sees every fourth
