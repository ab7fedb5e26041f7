"""Images through a convolutional net into a memory: `python examples/images.py`.

The game is Catch with 12 x 12 pixels as grey images [12, 12, 1]; only the first two frames are visible.
"""

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.wrappers import TransformObservation
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from fw_rl import Player, RecurrentA2C
from fw_rl.envs import CatchEnv


class SmallCNN(BaseFeaturesExtractor):
    """Two convolutions for small images; SB3's NatureCNN needs at least 36 x 36 pixels."""

    def __init__(self, observation_space: gym.spaces.Box, features_dim: int = 128) -> None:
        super().__init__(observation_space, features_dim)
        channels = observation_space.shape[0]
        convolutions = nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten()
        self.net = nn.Sequential(*convolutions, nn.LazyLinear(features_dim), nn.ReLU())
        self.net(torch.zeros(1, *observation_space.shape))

    def forward(self, observations: Tensor) -> Tensor:
        return self.net(observations)


def make_env() -> gym.Env:
    """Catch as images [12, 12, 1] of bytes, as SB3 expects them."""
    space = gym.spaces.Box(0, 255, (12, 12, 1), np.uint8)
    return TransformObservation(CatchEnv(12, 2, flatten=False, dtype=np.uint8), lambda pixels: 255 * pixels[..., None], space)


def main(timesteps: int = 300_000, cell: str = "fast-weights", seed: int = 0) -> None:
    """Train, and print how often the agent then catches the ball."""
    torch.set_num_threads(1)
    env = make_vec_env(make_env, n_envs=32, seed=seed)
    memory = dict(cell=cell, features_extractor_class=SmallCNN)
    model = RecurrentA2C("RecurrentPolicy", env, n_steps=11, policy_kwargs=memory, seed=seed)
    model.learn(timesteps)
    mean = Player(model).play(env, n_episodes=200).mean()
    print(f"caught {(mean + 1) / 2:.0%}")


if __name__ == "__main__":
    tyro.cli(main)
