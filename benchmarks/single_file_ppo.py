"""PPO with an LSTM in one file, in the style of CleanRL's `ppo_atari_lstm.py`, as a peer for `ppo_speed.py`.

As there, the loop over environments is plain, a minibatch holds whole rollouts of some environments, and the LSTM goes through
them step by step, since each step may begin an episode. The net is ours for Catch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn
from torch.distributions import Categorical

__all__ = ["SingleFilePPO"]

State = tuple[Tensor, Tensor]


class Agent(nn.Module):
    """A layer of ReLUs, an LSTM, and linear heads."""

    def __init__(self, inputs: int, actions: int, hidden_size: int = 128) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden_size), nn.ReLU())
        self.lstm = nn.LSTM(hidden_size, hidden_size)
        self.policy, self.value = nn.Linear(hidden_size, actions), nn.Linear(hidden_size, 1)

    def forward(self, seen: Tensor, state: State, starts: Tensor) -> tuple[Categorical, Tensor, State]:
        """Distributions [T * B], values [T * B] and the state after T steps, for [T * B, ...] and starts [T, B]."""
        encoded = self.encoder(seen).unflatten(0, starts.shape)
        hidden = []
        for now, start in zip(encoded, starts, strict=True):
            keep = (1.0 - start).view(1, -1, 1)
            output, state = self.lstm(now.unsqueeze(0), (keep * state[0], keep * state[1]))
            hidden.append(output)
        features = torch.cat(hidden).flatten(0, 1)
        return Categorical(logits=self.policy(features)), self.value(features).squeeze(-1), state


class SingleFilePPO:
    """The training loop, for an environment that resets in the step after an end (Gymnasium's NEXT_STEP) or in the same one."""

    def __init__(self, env: VectorEnv, n_steps: int, batch_size: int, n_epochs: int = 10, learning_rate: float = 3e-4) -> None:
        self.env, self.n_steps, self.n_epochs = env, n_steps, n_epochs
        self.minibatch_envs = batch_size // n_steps
        shape, actions = env.single_observation_space.shape, env.single_action_space.n  # type: ignore[attr-defined]
        assert shape is not None
        self.agent = Agent(int(np.prod(shape)), int(actions))
        self.optimizer = torch.optim.Adam(self.agent.parameters(), lr=learning_rate, eps=1e-5)
        num = env.num_envs
        self.seen, self.actions = torch.zeros(n_steps, num, *shape), torch.zeros(n_steps, num, dtype=torch.long)
        self.starts, self.rewards, self.values, self.log_probs = torch.zeros(4, n_steps, num).unbind()
        observation, _ = env.reset(seed=0)
        self.observation, self.start = torch.as_tensor(observation, dtype=torch.float32), torch.ones(num)
        self.state: State = (torch.zeros(1, num, 128), torch.zeros(1, num, 128))

    def updates(self) -> Iterator[tuple[int, float, float]]:
        """Play and learn without end; yields after each update frames, seconds of processor time, and mean reward per step."""
        began, frames = time.process_time(), 0
        while True:
            state = self.state
            self.play()
            self.learn(state)
            frames += self.starts.numel()
            yield frames, time.process_time() - began, float(self.rewards.mean())

    @torch.no_grad()
    def play(self) -> None:
        """A rollout."""
        for t in range(self.n_steps):
            self.seen[t], self.starts[t] = self.observation, self.start
            distribution, self.values[t], self.state = self.agent(self.observation, self.state, self.start[None])
            action = distribution.sample()
            self.actions[t], self.log_probs[t] = action, distribution.log_prob(action)
            observation, reward, terminated, truncated, _ = self.env.step(action.numpy())
            self.rewards[t] = torch.as_tensor(reward)
            self.observation = torch.as_tensor(observation, dtype=torch.float32)
            self.start = torch.as_tensor(terminated | truncated, dtype=torch.float32)

    @torch.no_grad()
    def advantages(self, gamma: float = 0.99, gae_lambda: float = 0.95) -> Tensor:
        """Generalised advantages [T, B]."""
        _, following, _ = self.agent(self.observation, self.state, self.start[None])
        ends = torch.cat([self.starts[1:], self.start[None]])
        advantages, advantage = torch.zeros_like(self.rewards), torch.zeros(self.env.num_envs)
        for t in reversed(range(self.n_steps)):
            keep = 1.0 - ends[t]
            advantage = self.rewards[t] + gamma * keep * following - self.values[t] + gamma * gae_lambda * keep * advantage
            advantages[t], following = advantage, self.values[t]
        return advantages

    def learn(self, state: State, clip: float = 0.2) -> None:
        """PPO's epochs over the rollout, each in minibatches of environments."""
        advantages = self.advantages()
        returns = advantages + self.values
        for _ in range(self.n_epochs):
            for envs in torch.randperm(self.env.num_envs).split(self.minibatch_envs):
                before = state[0][:, envs], state[1][:, envs]
                distribution, values, _ = self.agent(self.seen[:, envs].flatten(0, 1), before, self.starts[:, envs])
                log_prob = distribution.log_prob(self.actions[:, envs].flatten())
                ratio = (log_prob - self.log_probs[:, envs].flatten()).exp()
                gained = advantages[:, envs].flatten()
                gained = (gained - gained.mean()) / (gained.std() + 1e-8)
                policy_loss = -torch.minimum(gained * ratio, gained * ratio.clamp(1 - clip, 1 + clip)).mean()
                value_loss = 0.5 * ((values - returns[:, envs].flatten()) ** 2).mean()
                loss = policy_loss + 0.5 * value_loss - 0.01 * distribution.entropy().mean()
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.agent.parameters(), 0.5)
                self.optimizer.step()
