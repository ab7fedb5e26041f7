"""Training on Ray: it learns, survives the loss of a runner and of a node, is saved and goes on, and listens to nobody else."""

import pytest

pytest.importorskip("ray", reason="needs pip install 'fw-rl[ray]'")

import os
import signal
import time
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import gymnasium as gym
import numpy as np
import ray
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from ray.cluster_utils import Cluster
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from fw_rl.agents import Player, RecurrentA2C, WorkerError
from fw_rl.agents.rllib import RLlibAgent
from fw_rl.envs import CatchVectorEnv, VecEnvAdapter
from tests.agents.helpers import same_parameters
from tests.agents.test_spaces import Noise
from tests.ray.conftest import processes, wait_until_gone

pytestmark = pytest.mark.timeout(900)

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


@pytest.fixture(scope="module")
def running():
    """A Ray that the tests below share, so that they need not wait for it again and again."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    yield
    ray.shutdown()
    assert wait_until_gone()


def make_agent(env=CATCH, algorithm="impala", n_workers=2, **kwargs):
    settings = dict(learning_rate=3e-3, n_steps=4, ent_coef=0.005, seed=0, policy_kwargs=CELL, timeout=120.0) | kwargs
    model = RLlibAgent("RecurrentPolicy", env, algorithm=algorithm, n_workers=n_workers, **settings)
    model.set_logger(configure(None, []))
    return model


def greedy_return(model):
    return Player(model).play(VecEnvAdapter(CatchVectorEnv(100, n=5, m=2)), 500).mean()


def runners(algorithm):
    return algorithm.env_runner_group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)


@pytest.mark.parametrize("algorithm, frames, n_envs", [("impala", 40_000, 16), ("ppo", 40_000, 64)])
def test_it_learns(running, algorithm, frames, n_envs):
    env = partial(CatchVectorEnv, n_envs, n=5, m=2, autoreset_mode=AutoresetMode.NEXT_STEP)
    model = make_agent(env, algorithm, learning_rate=1e-3, anneal=True)  # at 3e-3 and no less, IMPALA can fall back
    before = greedy_return(model)
    model.learn(frames)
    assert model.num_timesteps >= frames
    assert before < 0  # chance is about -0.6
    assert greedy_return(model) > 0.3


def test_appo_runs(running):
    model = make_agent(algorithm="appo")
    untaught = make_agent(algorithm="appo")
    model.learn(2_000)
    assert not same_parameters(model, untaught)


@pytest.mark.parametrize(
    "observation_space, action_space",
    [
        (
            spaces.Dict(image=spaces.Box(0, 255, (36, 36, 1), np.uint8), place=spaces.Discrete(3)),
            spaces.MultiDiscrete([2, 3]),
        ),
        (spaces.MultiDiscrete([2, 4]), spaces.Box(-0.5, 2.0, (2,), np.float32)),
        (spaces.Box(-1, 1, (2, 2), np.float32), spaces.Discrete(4)),
    ],
    ids=["Dict with an image", "MultiDiscrete", "Box of two dimensions"],
)
def test_spaces(running, observation_space, action_space):
    env = partial(noises, observation_space, action_space)
    model, untaught = (make_agent(env, n_workers=1, policy_kwargs=dict(hidden_size=8)) for _ in range(2))
    model.learn(200)
    assert not same_parameters(model, untaught)


def noises(observation_space, action_space):
    make = partial(Noise, observation_space, action_space)
    return SyncVectorEnv([make] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)


def test_what_is_saved_goes_on_here_and_without_ray(running, tmp_path):
    model = make_agent(anneal=True)
    model.learn(2_000)
    model.save(tmp_path / "agent")
    here, elsewhere = RLlibAgent.load(tmp_path / "agent", CATCH, n_workers=1), RecurrentA2C.load(tmp_path / "agent")
    assert same_parameters(model, here)
    assert same_parameters(model, elsewhere)
    assert here.num_timesteps == elsewhere.num_timesteps == model.num_timesteps
    seen = []

    def look(report, algorithm):
        (told,) = algorithm.learner_group.foreach_learner(lambda learner: learner.get_optimizer("default_policy").state_dict())
        seen.append(told.get()["state"][0]["step"].item())

    steps = model.policy.optimizer.state_dict()["state"][0]["step"].item()
    here.set_logger(configure(None, []))
    here.learn(2_000, callback=Visitor(look), reset_num_timesteps=False)
    assert here.num_timesteps >= model.num_timesteps + 2_000
    assert steps > 0
    assert seen[0] > steps  # Adam's averages go on
    assert not same_parameters(model, here)


def test_a_runner_that_is_killed_is_replaced(running):
    model, before, after, frames = make_agent(), [], [], []

    def kill(report, algorithm):
        if report == 2:
            before.extend(runners(algorithm))
            os.kill(before[0], signal.SIGKILL)
        elif report > 2:
            after[:] = [pid for pid in runners(algorithm) if pid != before[0]]
            frames.append(model.num_timesteps)
        return len(after) == 2 and len(frames) > 4

    model.learn(10**7, callback=Visitor(kill))
    assert len(before) == 2
    assert frames == sorted(set(frames))
    assert model.num_timesteps < 10**7


def test_an_own_ray_listens_on_loopback_only_and_ends(running):
    ray.shutdown()  # not that of the other tests
    assert wait_until_gone()
    listening = []

    def look(report, algorithm):
        listening.extend(listeners(processes()))
        return True

    make_agent(n_workers=1).learn(10**7, callback=Visitor(look))
    assert listening
    assert {address for address in listening if not address.is_loopback} == set()
    assert wait_until_gone()


def listeners(pids):
    """The addresses at which processes listen."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):  # closed meanwhile
                sockets.add(os.readlink(descriptor))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, _, state, *_, inode = line.split()[1:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                packed = bytes.fromhex(local.partition(":")[0])
                words = [packed[i : i + 4][::-1] for i in range(0, len(packed), 4)]
                address = ip_address(b"".join(words))
                yield getattr(address, "ipv4_mapped", None) or address


def test_a_node_that_is_lost_and_one_that_comes():
    cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1, include_dashboard=False))
    nodes = [cluster.add_node(num_cpus=1)]
    frames = dict(both=[], one=[], again=[])

    def lose_and_add(report, algorithm):
        frames["both" if report <= 3 else "one" if report <= 8 else "again"].append(model.num_timesteps)
        if report == 3:
            cluster.remove_node(nodes.pop())
        elif report == 8:
            nodes.append(cluster.add_node(num_cpus=1))
        return report == 14

    try:
        model = make_agent(ray_address=cluster.address)
        model.learn(10**7, callback=Visitor(lose_and_add))
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert [len(told) for told in frames.values()] == [3, 5, 6]
    told = [count for part in frames.values() for count in part]
    assert told == sorted(set(told))
    assert wait_until_gone()


class Broken(gym.Env):
    """Fails at the first step."""

    observation_space, action_space = spaces.Discrete(2), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        raise RuntimeError("broken")


def test_environments_that_fail_are_given_up():
    begin = time.monotonic()
    with pytest.raises(WorkerError, match="no frame has come for 5 seconds"):
        make_agent(Broken, n_workers=1, timeout=5.0).learn(100)
    assert time.monotonic() - begin < 600
    assert wait_until_gone()


def test_a_cluster_that_is_not_there():
    with pytest.raises(WorkerError, match=r"no Ray at 127\.0\.0\.1:1"):
        make_agent(n_workers=1, ray_address="127.0.0.1:1").learn(100)


class Forbidding(Noise):
    def __init__(self):
        super().__init__(spaces.Discrete(3), spaces.Discrete(2))

    def action_masks(self):
        return np.array([True, False])


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(algorithm="dqn"), "algorithm must be one of impala, ppo, appo, got 'dqn'"),
        (dict(n_workers=0), "n_workers must be at least 1, got 0"),
        (dict(learning_rate=lambda progress: 1e-3), "learning_rate must be a number, .*, got a function"),
        (
            dict(env=partial(CatchVectorEnv, 4)),
            "autoreset_mode of env must be AutoresetMode.NEXT_STEP, got AutoresetMode.SAME_STEP",
        ),
        (dict(env=CatchVectorEnv(4)), "env must be a function or an id"),
        (dict(env=Forbidding), "env must be without action_masks"),
        (dict(policy_kwargs=dict(cell="elephant")), "cell must be one of .*'elephant'"),
    ],
)
def test_what_is_not_allowed(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_agent(**kwargs)


def test_frames_of_the_learner_are_those_of_the_runners():
    model = make_agent(env="CartPole-v1", n_workers=3, anneal=True)
    assert (model.n_envs, model.n_steps) == (1, 4)
    settings = model._training(1_000)
    assert settings["train_batch_size_per_learner"] == 12
    assert settings["lr"] == [[0, 3e-3], [1_000, 0.0]]
    assert settings["entropy_coeff"] == 0.005
    assert torch.isfinite(torch.tensor(settings["vf_loss_coeff"]))
