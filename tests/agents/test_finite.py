"""A number that is not finite is named before anything learns from it, and parameters stay finite."""

import re
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from fw_rl.agents import A3C, Player, RecurrentA2C, RecurrentPPO
from fw_rl.agents.finite import first_not_finite
from tests.agents.helpers import FASTEST, same_parameters

N_ENVS, N_STEPS, EPISODE = 3, 5, 6
ROLLOUT = N_ENVS * N_STEPS
DISCRETE, BOX = spaces.Discrete(2), spaces.Box(-1, 1, (2,))


class Faulty(gym.Env):
    """Episodes are cut after six steps; after `at` steps in all, environment 1 gives a `value` that is not finite."""

    def __init__(self, number, where, at, value, action_space, as_dict=False):
        faulty = where if number == 1 else None
        self.where, self.at, self.value, self.action_space, self.as_dict = faulty, at, value, action_space, as_dict
        numbers = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.observation_space = spaces.Dict(a=spaces.Discrete(2), b=numbers) if as_dict else numbers
        self.steps = 0

    def _observe(self):
        numbers = np.array([0.1, self.steps % EPISODE, -1.0], dtype=np.float32)
        if self.where == "observation" and self.steps == self.at:
            numbers[2] = self.value
        return dict(a=1, b=numbers) if self.as_dict else numbers

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        assert np.isfinite(action).all()
        self.steps += 1
        reward = self.value if self.where == "reward" and self.steps == self.at else 1.0
        return self._observe(), reward, False, self.steps % EPISODE == 0, {}


def make_envs(**fault):
    return DummyVecEnv([partial(Faulty, i, **fault) for i in range(N_ENVS)])


ALGORITHMS = {
    "A2C": partial(RecurrentA2C, n_steps=N_STEPS),
    "PPO": partial(RecurrentPPO, n_steps=N_STEPS, batch_size=ROLLOUT),
    "PPO, minibatches": partial(RecurrentPPO, n_steps=N_STEPS, batch_size=N_STEPS),
    "A3C": partial(A3C, n_steps=N_STEPS, n_workers=1, start_method=FASTEST),
}


def make_agent(algorithm, cell="gru", norm_reward=True, **fault):
    fault = dict(where=None, at=0, value=0.0, action_space=DISCRETE) | fault
    env = partial(make_envs, **fault) if algorithm == "A3C" else make_envs(**fault)
    sizes = dict(cell=cell, hidden_size=8, encoder_arch=(6,))
    settings = dict(learning_rate=1e-2, norm_reward=norm_reward, policy_kwargs=sizes, seed=0, device="cpu")
    return ALGORITHMS[algorithm]("RecurrentPolicy", env, **settings)


FAULTS = {  # where and when, and whose observation it then is
    "at the first reset": ("observation", 0, "observation"),
    "after the rollout": ("observation", N_STEPS, "observation"),
    "where an episode is cut": ("observation", EPISODE, "terminal_observation"),
    "amid a rollout": ("observation", 8, "observation"),
    "reward": ("reward", 8, "reward"),
}


@pytest.mark.parametrize("as_dict, action_space", [(False, DISCRETE), (True, BOX)], ids=["Discrete", "Dict and Box"])
@pytest.mark.parametrize("value", [np.nan, -np.inf], ids=str)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("algorithm", ["A2C", "PPO", "PPO, minibatches", pytest.param("A3C", marks=pytest.mark.processes)])
def test_the_environment_and_the_step_are_named(algorithm, fault, value, as_dict, action_space):
    where, at, name = fault
    model = make_agent(algorithm, where=where, at=at, value=value, as_dict=as_dict, action_space=action_space)
    name = f"{name}['b']" if as_dict and name != "reward" else name
    who = "environment 1 of worker 0" if algorithm == "A3C" else "environment 1"
    told = f"{name} must be finite, got {value} from {who} after {at * N_ENVS} frames"
    with pytest.raises(FloatingPointError, match=f"^{re.escape(told)}$"):
        model.learn(10 * ROLLOUT)
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())


@pytest.mark.parametrize("algorithm", ["A2C", "PPO", pytest.param("A3C", marks=pytest.mark.processes)])
def test_a_loss_that_overflows_changes_no_parameter(algorithm):
    model, same = (make_agent(algorithm, norm_reward=False, where="reward", at=2, value=1e30) for _ in range(2))
    with pytest.raises(FloatingPointError, match=r"^the loss or its gradient is not finite after 15 frames: [^\n]*$"):
        model.learn(10 * ROLLOUT)
    assert same_parameters(model, same)


@pytest.mark.parametrize("algorithm", ["A2C", "PPO"])
def test_a_gradient_that_overflows_changes_no_parameter(algorithm):
    model, same = make_agent(algorithm), make_agent(algorithm)
    model.policy.value_net.bias.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(FloatingPointError, match=r"^the loss or its gradient is not finite after 15 frames: [^\n]*$"):
        model.learn(10 * ROLLOUT)
    assert same_parameters(model, same)


@pytest.mark.parametrize("place", ["cell", "log_std"])
@pytest.mark.parametrize("algorithm", ["A2C", "PPO"])
def test_divergence_while_acting_is_told_in_one_line(algorithm, place):
    model = make_agent(algorithm, action_space=BOX)
    with torch.no_grad():
        if place == "cell":
            model.policy.actor_cell.core.bias_ih_l0.fill_(np.nan)
        else:
            model.policy.log_std.fill_(-1e3)  # a standard deviation of 0
    with pytest.raises(FloatingPointError, match=r"^the distribution over actions is not finite after 0 frames: [^\n]*$"):
        model.learn(ROLLOUT)


def test_divergence_is_told_where_torch_does_not_check(monkeypatch):
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", False)  # as torch.compile leaves it
    test_divergence_while_acting_is_told_in_one_line("A2C", "cell")
    test_divergence_while_acting_is_told_in_one_line("PPO", "log_std")


def test_divergence_is_told_apart_from_an_environments_numbers():
    """The value after a time limit is not finite, though no environment gave such a number."""
    model = make_agent("A2C")
    with torch.no_grad():
        model.policy.value_net.bias.fill_(np.inf)
    with pytest.raises(FloatingPointError, match=r"^the value of an observation is not finite after 15 frames: [^\n]*$"):
        model.learn(ROLLOUT)


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_neither_predict_nor_player_acts_on_it(value):
    model = make_agent("A2C", as_dict=True)
    observation = dict(a=np.array([0, 1, 1]), b=np.ones((3, 3), dtype=np.float32))
    model.predict(observation)
    observation["b"][2, 1] = value
    for act in (model.predict, model.policy.predict, Player(model).act):
        with pytest.raises(FloatingPointError, match=rf"^observation\['b'\] must be finite, got {value} from environment 2$"):
            act(observation)
    alone = dict(a=np.array(0), b=observation["b"][2])
    with pytest.raises(FloatingPointError, match=rf"got {value} from environment 0$"):
        model.predict(alone)


def test_the_first_of_several_keys_is_named():
    numbers = {key: np.zeros((4, 2, 1)) for key in "abc"}
    numbers["a"][3], numbers["b"][1, 1], numbers["c"][2] = np.nan, np.inf, np.nan
    assert first_not_finite("observation", numbers) == (1, 1, "observation['b'] must be finite, got inf")
