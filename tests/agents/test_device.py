"""What is learned from stays on the device of the policy, from the observation to the update."""

from contextlib import ExitStack
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper
from gymnasium.wrappers import TimeLimit
from numpy.testing import assert_equal
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize
from torch import Tensor
from torch.testing import assert_close

from fw_rl.agents import A3C, Player, RecurrentA2C, RecurrentPPO, evaluate_policy
from fw_rl.agents.devices import choose_device
from fw_rl.agents.environments import wrap_evaluation_env
from fw_rl.agents.returns import linear_recurrence
from fw_rl.agents.storage import StepStorage
from fw_rl.envs import CatchTorchVectorEnv, TensorVecEnvAdapter, VecEnvAdapter
from tests.agents.helpers import register_for_a_test, rollouts_of, scripted_envs
from tests.helpers import no_downloads

AGENTS = pytest.mark.parametrize(
    "agent_class, options", [(RecurrentA2C, {}), (RecurrentPPO, dict(batch_size=16, n_epochs=2))], ids=["A2C", "PPO"]
)


class AsTensors(VectorWrapper):
    """An environment in NumPy that says it were on a device."""

    def __init__(self, env, told=("final_obs",)):
        super().__init__(env)
        env.unwrapped.device, self.told = torch.device("cpu"), told

    def reset(self, *, seed=None, options=None):
        return torch.as_tensor(self.env.reset(seed=seed, options=options)[0]), {}

    def step(self, actions):
        assert isinstance(actions, Tensor)
        *numbers, infos = self.env.step(actions.numpy())
        last = np.zeros_like(numbers[0])
        for i in np.flatnonzero(numbers[2] | numbers[3]):
            last[i] = infos["final_obs"][i]
        told = dict(final_obs=torch.as_tensor(last))
        return *map(torch.as_tensor, numbers), {name: told[name] for name in self.told}


def in_same_step(makers):
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)


SCRIPTS = [((3, "terminated"), (2, "truncated")), ((5, "truncated"),), ((1, "truncated"), (4, "terminated"))]
GAMES = {
    "choices": lambda: in_same_step(scripted_envs(SCRIPTS)),
    "both at once": lambda: in_same_step([partial(TimeLimit, make(), 3) for make in scripted_envs(SCRIPTS)]),
    "numbers": lambda: in_same_step([lambda: TimeLimit(gym.make("Pendulum-v1").unwrapped, 5)] * 3),
}


def small(agent_class, env, cell="gru", **options):
    """An agent whose learning says nothing."""
    sizes = dict(cell=cell, hidden_size=8, encoder_arch=(8,))
    model = agent_class("RecurrentPolicy", env, seed=0, n_steps=8, policy_kwargs=sizes, **options)
    model.set_logger(configure(None, []))
    return model


@AGENTS
@pytest.mark.parametrize("make", GAMES.values(), ids=GAMES)
def test_tensors_teach_what_the_same_numbers_in_numpy_teach(agent_class, options, make):
    kept, models = [], []
    for env in (make(), AsTensors(make())):
        models.append(small(agent_class, env, **options))
        torch.manual_seed(0)
        kept.append(rollouts_of(models[-1], 5))
    for ours, theirs in zip(*kept, strict=True):
        np.testing.assert_allclose(ours.rewards, theirs.rewards, rtol=1e-4, atol=1e-5)
        for name in ("observations", "actions", "episode_starts"):
            assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(*(model.policy.parameters() for model in models), strict=True):
        assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    told = [[(episode["r"], episode["l"]) for episode in model.ep_info_buffer] for model in models]
    np.testing.assert_allclose(*told, rtol=1e-4)
    assert len(told[0]) >= 20


def test_who_evaluates_in_tensors_gets_what_numpy_gives():
    model = small(RecurrentPPO, GAMES["choices"](), batch_size=16)
    in_numpy, in_tensors = (lambda: VecEnvAdapter(GAMES["choices"](), monitor=True)), (lambda: AsTensors(GAMES["choices"]()))
    returns = [Player(model).play(make(), 9) for make in (in_numpy, in_tensors)]
    assert np.array_equal(*returns) and len(set(returns[0])) > 1
    assert evaluate_policy(model, in_numpy(), 9) == evaluate_policy(model, in_tensors(), 9)
    envs = in_numpy(), wrap_evaluation_env(in_tensors())
    assert_equal(envs[0].reset(), envs[1].reset())
    for _ in range(6):
        *numbers, infos = zip(*(env.step(np.zeros(3, dtype=np.int64)) for env in envs), strict=True)
        for pair in numbers:
            assert_equal(*pair)
        assert_equal(*([[what_ended(info) for info in those] for those in infos]))


def what_ended(info):
    """What SB3 reads of an `info`."""
    episode = {key: info["episode"][key] for key in "rl"} if "episode" in info else None
    return episode, info.get("terminal_observation"), info.get("TimeLimit.truncated", False)


def test_episodes_of_a_training_that_was_stopped_are_not_those_of_the_next():
    class Stop(BaseCallback):
        def _on_step(self):
            return self.n_calls < 7

    told = []
    for env in (GAMES["choices"](), AsTensors(GAMES["choices"]())):
        model = small(RecurrentA2C, env, learning_rate=0.0).learn(100, Stop())
        model.learn(3 * 8)
        told.append([episode["l"] for episode in model.ep_info_buffer][-6:])
    assert told[0][-len(told[1]) :] == told[1] and len(told[1]) >= 4


class NoDownloads(BaseCallback):
    """AssertionError where anything goes between host and device from the first step of a rollout to its last."""

    def __init__(self, stack):
        super().__init__()
        self.stack = stack

    def _on_rollout_start(self):
        self.stack.enter_context(no_downloads())

    def _on_step(self):
        if self.n_calls % self.model.n_steps == 0:
            self.stack.close()
        return True


@AGENTS
def test_nothing_moves_while_a_rollout_is_collected(monkeypatch, agent_class, options):
    register_for_a_test(monkeypatch)  # a cell in plain Torch, since those of the package have kernels for the processor
    model = small(agent_class, CatchTorchVectorEnv(8, n=5, m=2), "tally", **options)
    with ExitStack() as stack:
        model.learn(3 * 8 * model.n_steps, NoDownloads(stack))
    assert [episode["l"] for episode in model.ep_info_buffer] == [4] * 48
    with pytest.raises(AssertionError, match="makes the host wait"), no_downloads():
        torch.ones(2).nonzero()
    with pytest.raises(AssertionError, match="to the host"), no_downloads():
        torch.ones(2).numpy()


@pytest.mark.processes
def test_catch_is_learned_without_leaving_the_device():
    model = RecurrentA2C("RecurrentPolicy", CatchTorchVectorEnv(64, n=4, m=4), n_steps=6, seed=0).learn(40_000)
    assert np.mean([episode["r"] for episode in model.ep_info_buffer]) > 0.9


def test_a_worker_reports_the_episodes_of_an_environment_of_tensors():
    make = partial(CatchTorchVectorEnv, 4, n=5, m=2)
    model = A3C("RecurrentPolicy", make, n_workers=1, n_steps=8, policy_kwargs=dict(hidden_size=4)).learn(64)
    assert [episode["l"] for episode in model.ep_info_buffer] == [4] * 16


def test_another_environment_is_on_the_same_device():
    model = small(RecurrentA2C, CatchTorchVectorEnv(2, n=4, m=2, device="cpu"))
    env = TensorVecEnvAdapter(CatchTorchVectorEnv(2, n=4, m=2))
    env.device = torch.device("cuda", 1)
    with pytest.raises(ValueError, match=r"^device must be cuda:1, where env has its tensors, or 'auto', got cpu$"):
        model.set_env(env)


def test_an_environment_of_tensors_says_what_it_lacks():
    with pytest.raises(ValueError, match=r"^autoreset_mode must be SameStep where env gives tensors, got NextStep from "):
        TensorVecEnvAdapter(AsTensors(SyncVectorEnv(scripted_envs(SCRIPTS))))
    with pytest.raises(ValueError, match=r"^env must have an attribute `device`, that of its tensors, got none from "):
        TensorVecEnvAdapter(GAMES["choices"]())
    with pytest.raises(ValueError, match=r"^observations must be arrays of 3 rows, got Tensor from "):
        env = AsTensors(GAMES["choices"]())
        del env.unwrapped.device
        VecEnvAdapter(env).reset()
    model = small(RecurrentA2C, AsTensors(GAMES["choices"](), told=()))
    with pytest.raises(
        ValueError, match=r"^infos\['final_obs'\] must be a tensor in every step if episodes are cut, got none "
    ):
        model.learn(24)
    env = AsTensors(GAMES["choices"]())
    env.reset = env.env.reset
    with pytest.raises(ValueError, match=r"^observations must be tensors of 3 rows on cpu, got ndarray from "):
        TensorVecEnvAdapter(env).reset()


def test_steps_are_kept_on_the_device_that_was_asked_for():
    for numbers in (np.ones((2, 3)), torch.ones(2, 3)):
        on_host, elsewhere = (StepStorage(4, 2, (3,), np.float32, device) for device in ("cpu", "meta"))
        assert elsewhere.write(1, numbers).device.type == elsewhere.tensor.device.type == "meta"
        assert on_host.write(1, numbers).tolist() == [[1] * 3] * 2
        assert on_host.numpy().sum() == on_host.tensor.sum() == 6
    assert np.shares_memory(on_host.numpy(), on_host.tensor.numpy())


def test_a_recurrence_by_hand():
    numbers, discounts = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.5, 0.0], [2.0, 1.0]])
    sums = linear_recurrence(numbers, discounts, torch.tensor([10.0, 10.0]))
    assert sums.tolist() == [[1 + 5, 2], [3 + 2 * 6, 4 + 2]]


def space_of(*shape, high=255, dtype=np.uint8):
    return gym.spaces.Box(0, high, shape, dtype)


SMALL, ATARI, GRID = space_of(4, high=1, dtype=np.float32), space_of(210, 160, 3), space_of(7, 7, 3)


@pytest.mark.parametrize(
    "space, units, chosen",
    [
        (SMALL, 64, "cpu"),
        (SMALL, 512, "cuda"),
        (ATARI, 64, "cuda"),
        (GRID, 64, "cpu"),
        (gym.spaces.Dict(near=SMALL, far=space_of(3, 64, 64)), 64, "cuda"),
    ],
)
def test_auto_takes_a_gpu_for_images_and_large_cells(monkeypatch, capsys, space, units, chosen):
    env = gym.Env()
    env.observation_space = space
    assert choose_device("auto", env, units, verbose=1) == "cpu" and not capsys.readouterr().out
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto", env, units, verbose=1) == chosen
    said = capsys.readouterr().out
    assert said.startswith(f"device='auto' takes {chosen}: ") and said.count("\n") == 1
    assert choose_device("auto", env, units) == chosen and not capsys.readouterr().out
    assert choose_device("cuda:1", env, units) == "cuda:1"


def test_a_gpu_that_is_not_there_is_warned_of(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(UserWarning, match=r"^PyTorch finds no CUDA device: the agent is on the processor, and not on cuda:1$"):
        assert choose_device("cuda:1", None, 64) == "cuda:1"


def test_the_environment_of_tensors_says_where_it_is_learned(monkeypatch):
    env = CatchTorchVectorEnv(2, n=4, m=2, device="cpu")
    assert small(RecurrentA2C, env).device.type == "cpu"
    env.device = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto", env, 64) == env.device and choose_device("cuda", env, 64) == "cuda"
    for device in ("cpu", "cuda:0"):
        with pytest.raises(ValueError, match=rf"^device must be cuda:1, where env has its tensors, or 'auto', got {device}$"):
            small(RecurrentA2C, env, device=device)


def test_wrappers_in_numpy_are_refused_in_one_line():
    env = TensorVecEnvAdapter(CatchTorchVectorEnv(2, n=4, m=2))
    for wrap in (VecNormalize, VecMonitor):
        with pytest.raises(ValueError, match=rf"^env must be without {wrap.__name__}, which takes NumPy, got one of tensors$"):
            small(RecurrentA2C, wrap(env))
