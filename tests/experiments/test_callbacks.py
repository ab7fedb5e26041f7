"""Pictures of attention for TensorBoard: they come when they should, and the training does not notice."""

import random

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fw_rl.agents import RecurrentA2C
from fw_rl.envs import CatchEnv, CatchVectorEnv
from fw_rl.experiments.callbacks import AttentionPictures, LogRows
from fw_rl.experiments.settings import resolve


class CarelessCatch(CatchEnv):
    """Catch that draws from all the global generators."""

    def reset(self, **options):
        random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
        return super().reset(**options)


gym.register("tests/CarelessCatch-v0", CarelessCatch, kwargs=dict(n=5, m=2))


def learn(folder, *callbacks):
    """A short training that is logged; returns its weights and what the generators give afterwards."""
    memory = dict(cell="fast-weights", hidden_size=8)
    agent = RecurrentA2C("RecurrentPolicy", CatchVectorEnv(4, n=5, m=2), n_steps=5, policy_kwargs=memory, seed=0, device="cpu")
    agent.set_logger(Logger(str(folder), [TensorBoardOutputFormat(str(folder)), CSVOutputFormat(str(folder / "progress.csv"))]))
    agent.learn(400, callback=[*callbacks, LogRows(100)], log_interval=None)
    agent.logger.close()
    numbers = random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002
    return {name: part.clone() for name, part in agent.policy.state_dict().items()}, numbers


@pytest.mark.parametrize("env_id", ["fw_rl/Catch-5-2-v0", "tests/CarelessCatch-v0"])
def test_pictures_come_at_their_frames_and_change_nothing(env_id, tmp_path):
    (tmp_path / "plain").mkdir()
    weights, numbers = learn(tmp_path / "plain")
    drawn_weights, drawn_numbers = learn(tmp_path, AttentionPictures(resolve(env=env_id), interval=200))
    assert all(torch.equal(drawn_weights[name], part) for name, part in weights.items())
    assert drawn_numbers == numbers
    assert (tmp_path / "progress.csv").read_text().count("\n") == (tmp_path / "plain" / "progress.csv").read_text().count("\n")

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    pictures = events.Images("rollout/memory/attention")
    assert [picture.step for picture in pictures] == [200, 400]
    assert min(pictures[0].width, pictures[0].height) >= 300
