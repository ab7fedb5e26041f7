"""Pictures of attention come when they should and the training does not notice; checkpoints that are kept, and interrupts."""

import random
import signal

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fw_rl.agents import RecurrentA2C
from fw_rl.envs import CatchEnv, CatchVectorEnv
from fw_rl.experiments.agents import make_model
from fw_rl.experiments.callbacks import AttentionPictures, Checkpoints, LogRows, StopOnInterrupt
from fw_rl.experiments.run_folder import RunFolder
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


def test_the_checkpoint_before_which_returns_were_largest_is_kept(tmp_path):
    config = resolve(env="Catch-5-2", cell="lstm", hidden_size=4, n_envs=2)
    folder, agent = RunFolder.create(tmp_path, config), make_model(config)
    agent._setup_learn(100)

    def save(checkpoints, frames, returns):
        agent.num_timesteps = frames
        agent.ep_info_buffer.clear()
        agent.ep_info_buffer.extend(dict(r=value, l=1, t=0.0) for value in returns)
        checkpoints.init_callback(agent)
        checkpoints.save()
        return folder.best_so_far()

    before = Checkpoints(folder, interval=1)
    assert save(before, 10, []) == (-np.inf, 0)
    assert save(before, 20, [-1.0, 0.0]) == (-0.5, 20)
    assert save(before, 30, [1.0, 0.0]) == (0.5, 30)
    assert save(before, 40, [0.0, 0.0]) == (0.5, 30)
    resumed = Checkpoints(folder, interval=1)
    assert save(resumed, 50, [0.0, 0.8]) == (0.5, 30)
    assert save(resumed, 60, [1.0, 0.8]) == (0.9, 60)
    assert RecurrentA2C.load(folder.best).num_timesteps == 60
    folder.best.write_bytes(b"damaged")
    assert save(Checkpoints(folder, interval=1), 70, [0.1]) == (0.1, 70)


def test_the_last_three_checkpoints_are_kept(tmp_path):
    config = resolve(env="Catch-5-2", cell="lstm", hidden_size=4, n_envs=2, n_steps=4)
    folder, agent = RunFolder.create(tmp_path, config), make_model(config)
    agent.learn(321, callback=Checkpoints(folder, interval=100))
    assert [int(path.stem) for path in folder.saved_checkpoints()] == [104, 208, 312]


def test_only_a_first_interrupt_waits_for_the_rollout(tmp_path, capfd):
    told = []
    before = signal.signal(signal.SIGINT, lambda *_: told.append("at once"))
    try:
        with StopOnInterrupt(Checkpoints(RunFolder(tmp_path), interval=1)) as stop:
            signal.raise_signal(signal.SIGINT)
            assert (stop.asked, told) == (True, [])
            signal.raise_signal(signal.SIGINT)
            assert told == ["at once"]
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().err.count("Ctrl-C again stops at once") == 1
