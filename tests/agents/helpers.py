"""Environments whose episodes are known beforehand, a memory that can be summed by hand, and onlookers for an agent."""

from collections import defaultdict
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

from fw_rl.agents import RecurrentA2C, RecurrentActorCriticPolicy
from fw_rl.cells import Cell, base
from fw_rl.processes import START_METHOD, START_METHODS

FASTEST = "fork" if "fork" in START_METHODS else START_METHOD
"""What starts workers at once; how they are started otherwise is tested apart."""

CELLS = {
    "fast-weights": ("fast-weights", {}),
    "fast-weights, matrix": ("fast-weights", dict(window=0, inner_steps=2)),
    "fast-weights, folding": ("fast-weights", dict(window=3)),
    "fast-weights, delta": ("fast-weights", dict(rule="delta", window=3, learn_decay=True)),
    "rnn": ("rnn", {}),
    "lstm": ("lstm", {}),
    "gru": ("gru", {}),
}


def every_cell_with(name, values, cells=CELLS, rounds=1):
    """Marks a test for every cell; the values, by their labels, take turns, in as many rounds as each cell is to have."""
    cases, labels = [], list(values)
    for turn in range(rounds):
        for i, (cell, options) in enumerate(cells.items()):
            label = labels[(i + turn) % len(labels)]
            value = values[label] if isinstance(values[label], tuple) else (values[label],)
            cases.append(pytest.param(*options, *value, id=f"{cell}-{label}"))
    return pytest.mark.parametrize(f"cell, options, {name}", cases)


class Scripted(gym.Env):
    """Episodes of given lengths, one after another; the observation says which environment, episode and step it is.

    `script`: for each episode its length and whether it is "terminated" or "truncated" then; it begins anew after the last.
    The reward of step t is t + 1. Whatever the action is, it changes nothing.
    """

    def __init__(self, script=((3, "terminated"),), number=0, scale=1.0, action_space=None):
        self.script, self.number, self.scale = script, number, scale
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = action_space or spaces.Discrete(3)
        self.episode = -1

    def _observe(self):
        return np.array([self.number, self.episode, self.t], dtype=np.float32) * np.float32(self.scale)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.t = 0
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        length, end = self.script[self.episode % len(self.script)]
        over = self.t == length
        return self._observe(), float(self.t), over and end == "terminated", over and end == "truncated", {}


class Recall(VectorEnv):
    """Three steps: a cue of three, nothing, a question. The reward is 1 if the answer is the cue."""

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.metadata = dict(autoreset_mode=AutoresetMode.SAME_STEP)
        self.single_observation_space = spaces.Box(0, 1, (4,), np.float32)
        self.single_action_space = spaces.Discrete(3)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def _begin(self):
        self.t, self.cue = 0, self.np_random.integers(3, size=self.num_envs)
        return self._observe()

    def _observe(self):
        observation = np.zeros((self.num_envs, 4), dtype=np.float32)
        if self.t == 0:
            observation[np.arange(self.num_envs), self.cue] = 1
        observation[:, 3] = self.t == 2
        return observation

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._begin(), {}

    def step(self, actions):
        self.t += 1
        over = np.full(self.num_envs, self.t == 3)
        rewards, observation, infos = np.where(over, actions == self.cue, 0.0), self._observe(), {}
        if over.all():
            infos = dict(final_obs=observation, _final_obs=over)
            observation = self._begin()
        return observation, rewards, over, np.zeros_like(over), infos


def scripted_envs(scripts, **kwargs):
    """Functions that make one `Scripted` for each script."""
    return [lambda i=i, script=script: Scripted(script, number=i, **kwargs) for i, script in enumerate(scripts)]


VECTORIZATIONS = {
    "DummyVecEnv": DummyVecEnv,
    **{
        f"SyncVectorEnv {mode.value}": lambda functions, mode=mode: SyncVectorEnv(functions, autoreset_mode=mode)
        for mode in AutoresetMode
    },
}


class Tally(Cell):
    """The sum of the inputs since the episode began."""

    def initial_state(self, batch_size):
        return (torch.zeros(batch_size, self.hidden_size),)

    def forward(self, x, state, episode_starts=None):
        (total,), outputs = state, []
        for t in range(len(x)):
            if episode_starts is not None:
                total = total.masked_fill(episode_starts[t, :, None], 0.0)
            total = total + x[t]
            outputs.append(total)
        return torch.stack(outputs), (total,)


class Memoryless(Cell):
    """One layer that forgets at once."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.layer = torch.nn.Linear(input_size, hidden_size)

    def initial_state(self, batch_size):
        return (torch.zeros(batch_size, 1),)

    def forward(self, x, state, episode_starts=None):
        return torch.relu(self.layer(x)), state


def register_for_a_test(monkeypatch):
    """Make the cells above known as "tally" and "memoryless" until the test is over."""
    monkeypatch.setattr(base, "_REGISTRY", {**base._REGISTRY, "tally": Tally, "memoryless": Memoryless})


class Recorder(VecEnvWrapper):
    """Keeps all that goes out of a vector environment and into it."""

    def __init__(self, venv):
        super().__init__(venv)
        self.kept = defaultdict(list)

    def reset(self):
        observation = self.venv.reset()
        self.kept["observations"].append(observation)
        return observation

    def step_async(self, actions):
        self.kept["actions"].append(actions)
        self.venv.step_async(actions)

    def step_wait(self):
        observation, rewards, dones, infos = self.venv.step_wait()
        for name, value in (("observations", observation), ("rewards", rewards), ("dones", dones), ("infos", infos)):
            self.kept[name].append(value)
        return observation, rewards, dones, infos

    def __getitem__(self, name):
        return self.kept[name]


PLAIN = dict(shared_cell=True, net_arch=(), norm_obs=False)
"""A policy that a test can compute by hand: one cell with the heads on it, and observations as they are."""


def make_policy(cell="gru", *, observation_space=None, action_space=None, seed=0, cell_kwargs=None, **kwargs):
    """A small and plain policy for observations [4] and 3 actions, if not said otherwise."""
    torch.manual_seed(seed)
    return RecurrentActorCriticPolicy(
        observation_space or spaces.Box(-np.inf, np.inf, (4,), np.float32),
        action_space or spaces.Discrete(3),
        lambda progress: 1e-3,
        cell=cell,
        cell_kwargs=cell_kwargs,
        **dict(hidden_size=8, encoder_arch=(6,)) | PLAIN | kwargs,
    )


def scramble(policy, seed=0, scale=0.6):
    """Random parameters everywhere, so that no head is near zero and no recurrent weight is diagonal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if name.endswith(("log_eta", "logit_decay")):
                continue
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
            if name == "cell.norm.weight":
                parameter.add_(1.0)
    return policy


def make_model(env, cell="gru", *, cell_kwargs=None, policy_kwargs=None, **kwargs):
    """A small agent whose learning says nothing."""
    sizes = dict(cell=cell, hidden_size=8, encoder_arch=(6,), cell_kwargs=cell_kwargs)
    model = RecurrentA2C(
        "RecurrentPolicy", env, policy_kwargs=sizes | (policy_kwargs or {}), **dict(seed=0, device="cpu") | kwargs
    )
    model.set_logger(configure(None, []))
    return model


def same_parameters(one, other):
    pairs = zip(one.policy.parameters(), other.policy.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Snapshots(BaseCallback):
    """A copy of every rollout at its end, and what the memory holds then."""

    def __init__(self):
        super().__init__()
        self.rollouts = []

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        buffer = self.model.rollout_buffer
        tensors = ("observations", "actions", "episode_starts", "outputs", "last_dones", "last_values")
        rollout = SimpleNamespace(**{name: getattr(buffer, name).clone() for name in tensors}, rewards=buffer.rewards.copy())
        rollout.state = tuple(part.clone() for part in buffer.states[0])
        rollout.after = tuple(part.clone() for part in self.model._last_state)
        self.rollouts.append(rollout)


def rollouts_of(model, count, **kwargs):
    """Let the agent learn from so many rollouts, and return them."""
    snapshots = Snapshots()
    model.learn(count * model.n_steps * model.n_envs, callback=snapshots, **kwargs)
    assert len(snapshots.rollouts) == count
    return snapshots.rollouts


def act(policy, observation, state, starts, deterministic=False):
    """One step of the policy from a state: the actions, what the cell put out, and the state after it."""
    stepper = policy.cell.stepper(state)
    actions, output = policy.act(observation, stepper, starts, deterministic)
    return actions, output, stepper.state
