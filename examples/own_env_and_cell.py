"""Your own environment with your own memory cell: `python examples/own_env_and_cell.py`.

The environment shows a bit once, then nothing for a few steps, and asks for it at the end. The cell is a leaky integrator.
Without memory half of the answers are right, a mean return of 0.
"""

import gymnasium as gym
import numpy as np
import torch
import tyro
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from fw_rl import Player, RecurrentA2C
from fw_rl.cells import Cell, register_cell


class Remember(gym.Env):
    """Return +1 for an answer that is the bit of the first observation, -1 for the other."""

    def __init__(self, steps: int = 5) -> None:
        self.steps = steps
        self.observation_space = gym.spaces.Box(-1, 1, (2,))  # the bit as -1 or 1, and whether the answer is due
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.bit, self.step_number = int(self.np_random.integers(2)), 0
        return np.array([2 * self.bit - 1, 0], dtype=np.float32), {}

    def step(self, action):
        self.step_number += 1
        due = self.step_number == self.steps
        reward = (1.0 if action == self.bit else -1.0) if due else 0.0
        return np.array([0, self.step_number == self.steps - 1], dtype=np.float32), reward, due, False, {}


@register_cell("leaky")
class LeakyCell(Cell):
    """h(t) = decay h(t-1) + tanh(C x(t))."""

    def __init__(self, input_size: int, hidden_size: int, decay: float = 0.9) -> None:
        super().__init__(input_size, hidden_size)
        self.input_map, self.decay = nn.Linear(input_size, hidden_size), decay

    def initial_state(self, batch_size):
        return (self.input_map.weight.new_zeros(batch_size, self.hidden_size),)  # on the cell's device, of its dtype

    def forward(self, x, state, episode_starts=None):
        (h,), outputs = state, []
        for t, driven in enumerate(torch.tanh(self.input_map(x))):
            if episode_starts is not None:
                h = h.masked_fill(episode_starts[t, :, None], 0.0)
            h = self.decay * h + driven
            outputs.append(h)
        return torch.stack(outputs), (h,)


def main(timesteps: int = 60_000, seed: int = 0) -> None:
    """Train, and print the mean return of the agent."""
    torch.set_num_threads(1)
    env = make_vec_env(Remember, n_envs=16, seed=seed)
    memory = dict(cell="leaky", cell_kwargs=dict(decay=0.95))
    model = RecurrentA2C("RecurrentPolicy", env, n_steps=10, policy_kwargs=memory, seed=seed)
    model.learn(timesteps)
    mean = Player(model).play(env, n_episodes=200).mean()
    print(f"mean return {mean:.2f}")


if __name__ == "__main__":
    tyro.cli(main)
