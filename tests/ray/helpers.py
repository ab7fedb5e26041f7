"""Agents on Ray for the tests."""

from functools import partial

from gymnasium.vector import AutoresetMode
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from fw_rl.agents.rllib import RLlibAgent
from fw_rl.envs import CatchVectorEnv

CATCH = partial(CatchVectorEnv, 16, n=5, m=2, autoreset_mode=AutoresetMode.NEXT_STEP)
CELL = dict(cell="fast-weights", hidden_size=32, cell_kwargs=dict(eta=0.1, decay=0.1, recurrent_scale=0.3))


class Visitor(BaseCallback):
    """Calls a function after each report, with its number and RLlib's algorithm; if it returns True, that is all."""

    def __init__(self, visit):
        super().__init__()
        self.visit, self.frames = visit, []

    def _on_step(self):
        self.frames.append(self.num_timesteps)
        return not self.visit(len(self.frames), self.locals["algorithm"])


def make_agent(env=CATCH, algorithm="impala", n_workers=2, **kwargs):
    settings = dict(learning_rate=3e-3, n_steps=4, ent_coef=0.005, seed=0, policy_kwargs=CELL, timeout=120.0) | kwargs
    model = RLlibAgent("RecurrentPolicy", env, algorithm=algorithm, n_workers=n_workers, **settings)
    model.set_logger(configure(None, []))
    return model
