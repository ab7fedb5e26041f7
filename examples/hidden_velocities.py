"""CartPole with hidden velocities, which must be inferred from memory: `python examples/hidden_velocities.py --cell lstm`."""

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.wrappers import TransformObservation
from stable_baselines3.common.env_util import make_vec_env

from fw_rl import Player, RecurrentPPO


def make_env() -> gym.Env:
    """CartPole that shows only the position of the cart and the angle of the pole."""
    env = gym.make("CartPole-v1")
    shown = [0, 2]
    space = gym.spaces.Box(env.observation_space.low[shown], env.observation_space.high[shown], dtype=np.float32)
    return TransformObservation(env, lambda observation: observation[shown], space)


def main(timesteps: int = 400_000, cell: str = "fast-weights", seed: int = 0) -> None:
    """Train, and print how long the pole then stands, 500 steps at most."""
    torch.set_num_threads(1)
    env = make_vec_env(make_env, n_envs=16, seed=seed)
    model = RecurrentPPO("RecurrentPolicy", env, policy_kwargs=dict(cell=cell), seed=seed)
    model.learn(timesteps)
    mean = Player(model).play(env, n_episodes=50).mean()
    print(f"the pole stands for {mean:.0f} steps")


if __name__ == "__main__":
    tyro.cli(main)
