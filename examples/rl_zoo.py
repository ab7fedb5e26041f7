"""rl-zoo3's scripts with the agents of fw_rl: `python examples/rl_zoo.py train --algo fw_ppo`.

The first argument is the name of a script of rl-zoo3 (train, enjoy, record_video), the others are its own.
"""

import runpy
import sys

from rl_zoo3 import ALGOS
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

from fw_rl import RecurrentA2C, RecurrentPPO


def sample(trial, n_actions, n_envs, additional_args):
    """Draw the arguments of `RecurrentPPO` for one trial of `train -optimize`."""
    trial.suggest_categorical("cell", ["lru", "gru", "fast-weights"])
    trial.suggest_categorical("hidden_size", [32, 64, 128])
    trial.suggest_categorical("n_steps", [32, 64, 128, 256])
    trial.suggest_categorical("sequences", [1, 2, 4])
    trial.suggest_categorical("n_epochs", [3, 5, 10, 20])
    trial.suggest_float("learning_rate", 1e-4, 5e-3, log=True)
    trial.suggest_float("gae_lambda", 0.8, 0.99)
    trial.suggest_float("ent_coef", 1e-5, 0.05, log=True)
    return convert(trial.params)


def convert(params):
    """The arguments for the drawn values; `train --trial-id` uses this too."""
    arguments = dict(params)
    memory = dict(cell=arguments.pop("cell"), hidden_size=arguments.pop("hidden_size"))
    batch_size = arguments.pop("sequences") * arguments["n_steps"]
    return arguments | dict(batch_size=batch_size, policy_kwargs=memory)


ALGOS["fw_ppo"], ALGOS["fw_a2c"] = RecurrentPPO, RecurrentA2C
HYPERPARAMS_SAMPLER["fw_ppo"], HYPERPARAMS_CONVERTER["fw_ppo"] = sample, convert

if __name__ == "__main__":
    runpy.run_module(f"rl_zoo3.{sys.argv.pop(1)}", run_name="__main__")
