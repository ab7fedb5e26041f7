"""What tests of several commands share."""

import pytest

from fw_rl.agents import RecurrentA2C
from fw_rl.commands.train import main

A3C = pytest.param("a3c", marks=pytest.mark.processes)
SMALL = ["--env", "Catch-5-2", "--n-envs", "4", "--n-steps", "6", "--hidden-size", "8", "--eval-episodes", "20"]


def other_run(catch_run, folder, env_id, cell="fast-weights"):
    """A run folder for this environment with an agent that has not learned."""
    settings = (catch_run / "config.json").read_text()
    settings = settings.replace("fw_rl/Catch-5-2-v0", env_id).replace('"cell": "fast-weights"', f'"cell": "{cell}"')
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(settings)
    agent = RecurrentA2C("RecurrentPolicy", env_id, policy_kwargs=dict(cell=cell, hidden_size=8), device="cpu", seed=0)
    agent.save(folder / "checkpoints" / "000000000000.safetensors")
    return folder


def rows(text):
    """The lines of a report, without the spaces that align its tables."""
    return [" ".join(line.split()) for line in text.splitlines()]


def train(log_dir, *arguments, timesteps=480):
    """Run the command in this process; returns its exit code and the folder of the run."""
    code = main([*SMALL, "--timesteps", str(timesteps), "--log-dir", str(log_dir), "--quiet", *arguments])
    return code, next(log_dir.iterdir())
