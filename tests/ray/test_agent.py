"""Training on Ray: it learns, survives the loss of a runner, and what is saved goes on."""

import pytest

pytest.importorskip("ray", reason="needs pip install 'fw-rl[ray]'")

import os
import signal
from functools import partial

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.logger import configure

from fw_rl.agents import Player, RecurrentA2C
from fw_rl.agents.ray_session import ray_session
from fw_rl.agents.rllib import RLlibAgent
from fw_rl.envs import CatchVectorEnv, VecEnvAdapter
from tests.agents.helpers import same_parameters
from tests.agents.test_spaces import Noise
from tests.ray.conftest import left_of_ray
from tests.ray.helpers import CATCH, Visitor, make_agent

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def running():
    """A Ray that the tests below share, so that they need not wait for it again and again."""
    with ray_session(None, 4):
        yield
    assert not left_of_ray()


def greedy_return(model):
    return Player(model).play(VecEnvAdapter(CatchVectorEnv(100, n=5, m=2)), 500).mean()


def runners(algorithm):
    return algorithm.env_runner_group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)


@pytest.mark.parametrize("algorithm, frames, n_envs", [("impala", 40_000, 16), ("ppo", 40_000, 64)])
def test_it_learns(running, algorithm, frames, n_envs):
    env = partial(CatchVectorEnv, n_envs, n=5, m=2, autoreset_mode=AutoresetMode.NEXT_STEP)
    model = make_agent(env, algorithm, learning_rate=1e-3, anneal=True)  # at 3e-3 and no less, IMPALA can fall back
    before = greedy_return(model)
    model.learn(frames)
    assert model.num_timesteps >= frames
    assert before < 0  # chance is about -0.6
    assert greedy_return(model) > 0.3


def test_appo_runs(running):
    model = make_agent(algorithm="appo")
    untaught = make_agent(algorithm="appo")
    model.learn(2_000)
    assert not same_parameters(model, untaught)


@pytest.mark.parametrize(
    "observation_space, action_space",
    [
        (
            spaces.Dict(image=spaces.Box(0, 255, (36, 36, 1), np.uint8), place=spaces.Discrete(3)),
            spaces.MultiDiscrete([2, 3]),
        ),
        (spaces.MultiDiscrete([2, 4]), spaces.Box(-0.5, 2.0, (2,), np.float32)),
        (spaces.Box(-1, 1, (2, 2), np.float32), spaces.Discrete(4)),
    ],
    ids=["Dict with an image", "MultiDiscrete", "Box of two dimensions"],
)
def test_spaces(running, observation_space, action_space):
    env = partial(noises, observation_space, action_space)
    model, untaught = (make_agent(env, n_workers=1, policy_kwargs=dict(hidden_size=8)) for _ in range(2))
    model.learn(200)
    assert not same_parameters(model, untaught)


def noises(observation_space, action_space):
    make = partial(Noise, observation_space, action_space)
    return SyncVectorEnv([make] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)


def test_what_is_saved_goes_on_here_and_without_ray(running, tmp_path):
    model = make_agent(anneal=True)
    model.learn(2_000)
    model.save(tmp_path / "agent")
    here, elsewhere = RLlibAgent.load(tmp_path / "agent", CATCH, n_workers=1), RecurrentA2C.load(tmp_path / "agent")
    assert same_parameters(model, here)
    assert same_parameters(model, elsewhere)
    assert here.num_timesteps == elsewhere.num_timesteps == model.num_timesteps
    seen = []

    def look(report, algorithm):
        (told,) = algorithm.learner_group.foreach_learner(lambda learner: learner.get_optimizer("default_policy").state_dict())
        seen.append(told.get()["state"][0]["step"].item())

    steps = model.policy.optimizer.state_dict()["state"][0]["step"].item()
    here.set_logger(configure(None, []))
    here.learn(2_000, callback=Visitor(look), reset_num_timesteps=False)
    assert here.num_timesteps >= model.num_timesteps + 2_000
    assert steps > 0
    assert seen[0] > steps  # Adam's averages go on
    assert not same_parameters(model, here)


def test_a_runner_that_is_killed_is_replaced(running):
    model, before, after, frames = make_agent(), [], [], []

    def kill(report, algorithm):
        if report == 2:
            before.extend(runners(algorithm))
            os.kill(before[0], signal.SIGKILL)
        elif report > 2:
            after[:] = [pid for pid in runners(algorithm) if pid != before[0]]
            frames.append(model.num_timesteps)
        return len(after) == 2 and len(frames) > 4

    model.learn(10**7, callback=Visitor(kill))
    assert len(before) == 2
    assert frames == sorted(set(frames))
    assert model.num_timesteps < 10**7


class Forbidding(Noise):
    def __init__(self):
        super().__init__(spaces.Discrete(3), spaces.Discrete(2))

    def action_masks(self):
        return np.array([True, False])


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(algorithm="dqn"), "algorithm must be one of impala, ppo, appo, got 'dqn'"),
        (dict(n_workers=0), "n_workers must be at least 1, got 0"),
        (dict(learning_rate=lambda progress: 1e-3), "learning_rate must be a number, .*, got a function"),
        (
            dict(env=partial(CatchVectorEnv, 4)),
            "autoreset_mode of env must be AutoresetMode.NEXT_STEP, got AutoresetMode.SAME_STEP",
        ),
        (dict(env=CatchVectorEnv(4)), "env must be a function or an id"),
        (dict(env=Forbidding), "env must be without action_masks"),
        (dict(policy_kwargs=dict(cell="elephant")), "cell must be one of .*'elephant'"),
    ],
)
def test_what_is_not_allowed(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_agent(**kwargs)


def test_frames_of_the_learner_are_those_of_the_runners():
    model = make_agent(env="CartPole-v1", n_workers=3, anneal=True)
    assert (model.n_envs, model.n_steps) == (1, 4)
    settings = model._training(1_000)
    assert settings["train_batch_size_per_learner"] == 12
    assert settings["lr"] == [[0, 3e-3], [1_000, 0.0]]
    assert settings["entropy_coeff"] == 0.005
    assert torch.isfinite(torch.tensor(settings["vf_loss_coeff"]))
