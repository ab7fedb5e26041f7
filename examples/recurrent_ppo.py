"""sb3-contrib's own RecurrentPPO with fast weights in place of its LSTM: `python examples/recurrent_ppo.py`.

The game is Catch with 8 x 8 pixels and two visible frames. `--keep-sequence-starts` uses the RecurrentPPO of this package
instead, which learns the same way but keeps the memory's state only for the first step of each sequence.
"""

import sb3_contrib
import torch
import tyro
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from fw_rl.agents import CellLstmPolicy, RecurrentPPO
from fw_rl.envs import CatchEnv


def main(timesteps: int = 60_000, cell: str = "fast-weights", seed: int = 0, keep_sequence_starts: bool = False) -> None:
    """Train, and print how often the agent then catches the ball."""
    torch.set_num_threads(1)
    env = make_vec_env(lambda: CatchEnv(8, 2), n_envs=32, seed=seed)
    options = dict(eta=0.1, decay=0.1, activation="relu") if cell == "fast-weights" else {}
    memory = dict(cell=cell, hidden_size=64, cell_kwargs=options)
    settings = dict(n_steps=28, batch_size=448, learning_rate=2e-3, ent_coef=0.01, policy_kwargs=memory, seed=seed)
    if keep_sequence_starts:
        model = RecurrentPPO("RecurrentPolicy", env, target_kl=None, normalize_advantage=True, optimizer_eps=1e-5, **settings)
    else:
        model = sb3_contrib.RecurrentPPO(CellLstmPolicy, env, **settings)
    model.learn(timesteps)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=200)
    print(f"caught {(mean + 1) / 2:.0%}")


if __name__ == "__main__":
    tyro.cli(main)
