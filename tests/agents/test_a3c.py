"""A3C against one process and against slow updates by hand; what callbacks see; and that no kill loses or invents a frame."""

import copy
import doctest
import math
import multiprocessing
import os
import random
import select
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from fw_rl.agents import A3C, CheckpointError, RecurrentA2C, WorkerError, a3c
from fw_rl.agents.shared_training import WorkerA2C, optimizer_statistics
from fw_rl.envs import CatchVectorEnv
from fw_rl.envs.sb3 import VecEnvAdapter
from fw_rl.processes import START_METHOD, START_METHODS
from tests.agents.helpers import FASTEST, PLAIN, Recorder, Scripted, same_parameters, scramble, scripted_envs
from tests.agents.test_a2c import Written
from tests.agents.test_loss import SlowNet, assert_near, slow_loss
from tests.helpers import processes_of_session

N_ENVS, N_STEPS = 3, 5
ROLLOUT = N_ENVS * N_STEPS

catch = partial(CatchVectorEnv, N_ENVS, n=5, m=2)


def make_agent(env=catch, cell="gru", agent_class=A3C, policy_kwargs=None, **kwargs):
    policy_kwargs = dict(cell=cell, hidden_size=6, encoder_arch=(4,)) | (policy_kwargs or {})
    started = dict(start_method=FASTEST) if agent_class is A3C else {}
    kwargs = dict(n_steps=N_STEPS, seed=0, learning_rate=1e-2) | started | kwargs
    return agent_class("RecurrentPolicy", env, policy_kwargs=policy_kwargs, **kwargs)


def make_a2c(env=None, **kwargs):
    return make_agent(env or catch(), agent_class=RecurrentA2C, device="cpu", **kwargs)


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert multiprocessing.active_children() == []
    assert list(Path("/dev/shm").glob(f"torch_{os.getpid()}_*")) == []


class Watch(BaseCallback):
    """Keeps what is called and how far training is then; `act` may do things at a step, and stops by False."""

    def __init__(self, act=lambda model: None):
        super().__init__()
        self.act, self.events, self.steps = act, [], []

    def _on_training_start(self):
        self.shared = self.model._shared
        self.total = self.locals["total_timesteps"]

    def _on_step(self):
        self.events.append("step")
        self.steps.append(self.model.num_timesteps)
        return self.act(self.model) is not False

    def _on_rollout_end(self):
        self.events.append("rollout end")

    def _on_training_end(self):
        self.events.append("training end")
        assert multiprocessing.active_children() == []


# One process.


def assert_same_training(one, other):
    assert same_parameters(one, other)
    buffers = (dict(model.policy.named_buffers()) for model in (one, other))
    torch.testing.assert_close(*buffers, rtol=0, atol=0)
    for ours, theirs in zip(
        optimizer_statistics(one.policy.optimizer), optimizer_statistics(other.policy.optimizer), strict=True
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (one.num_timesteps, one._n_updates) == (other.num_timesteps, other._n_updates)
    episodes = [[(episode["r"], episode["l"]) for episode in model.ep_info_buffer] for model in (one, other)]
    assert episodes[0] == episodes[1] != []


def unscaled():
    """Observations of no known range."""
    return VecMonitor(DummyVecEnv(scripted_envs([((2, "terminated"), (4, "truncated"))] * N_ENVS)))


@pytest.mark.parametrize("shared_statistics", [True, False])
@pytest.mark.parametrize("optimizer, make_env", [("rmsprop", catch), ("adam", catch), ("adam", unscaled)])
def test_one_worker_is_a2c_to_the_last_bit(tmp_path, optimizer, make_env, shared_statistics):
    a2c = make_a2c(make_env(), optimizer=optimizer).learn(20 * ROLLOUT)
    model = make_agent(make_env, optimizer=optimizer, n_workers=1, shared_statistics=shared_statistics).learn(20 * ROLLOUT)
    assert_same_training(model, a2c)
    # `learn` again: new episodes, with a seed of their own, but all else goes on.
    a2c.save(tmp_path / "a2c")
    a2c = RecurrentA2C.load(tmp_path / "a2c", make_env(), device="cpu", seed=model._worker_seed(0, 0))
    assert_same_training(
        model.learn(10 * ROLLOUT, reset_num_timesteps=False), a2c.learn(10 * ROLLOUT, reset_num_timesteps=False)
    )


@pytest.mark.processes
@pytest.mark.parametrize("start_method", sorted({*START_METHODS} - {FASTEST}))
def test_one_worker_is_a2c_however_it_is_started(start_method):
    a2c = make_a2c().learn(4 * ROLLOUT)
    assert_same_training(make_agent(n_workers=1, start_method=start_method).learn(4 * ROLLOUT), a2c)


def join(model, total, shared=None, number=0):
    """What a worker does first, here."""
    model._shared = model._share(total) if shared is None else shared
    packed, shared, number = model._task(number, 0)
    make_env, arguments, *_ = packed.var
    learner = WorkerA2C(env=make_env(), device="cpu", **arguments)
    learner.join(shared, number)
    return learner


SLOW = dict(gamma=0.9, gae_lambda=0.95, ent_coef=0.3, vf_coef=0.7)
RATE, MAX_NORM = 1e-2, 12.0


def expected_gradient(net, env):
    """The clipped gradient of the last rollout, by what was seen in an environment whose episodes end with the rollout."""
    history = [SimpleNamespace(steps=[], next=env["observations"][-1][b]) for b in range(2)]
    for t in range(-N_STEPS, 0):
        for b, row in enumerate(history):
            info = env["infos"][t][b]
            row.steps.append(
                SimpleNamespace(
                    observation=env["observations"][t - 1][b],
                    action=int(env["actions"][t][b]),
                    reward=float(env["rewards"][t][b]),
                    first=t == -N_STEPS or bool(env["dones"][t - 1][b]),
                    last=bool(env["dones"][t][b]),
                    beyond=info["terminal_observation"] if info.get("TimeLimit.truncated") else None,
                )
            )
    assert env["dones"][-1].all()
    gradients = net.gradients(slow_loss(net, history, N_STEPS, **SLOW).total)
    norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
    return [gradient * min(1.0, MAX_NORM / norm) for gradient in gradients], norm


class SlowRMSprop:
    """Mnih et al. 2016, Eq. 8 and 9, as Torch has it: epsilon beside the root."""

    def __init__(self, shapes):
        self.mean_square = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]

    def moves(self, gradients):
        self.mean_square = [0.99 * old + 0.01 * new**2 for old, new in zip(self.mean_square, gradients, strict=True)]
        return [new / (old.sqrt() + 1e-5) for old, new in zip(self.mean_square, gradients, strict=True)]


class SlowAdam:
    """Kingma and Ba 2015, Algorithm 1."""

    def __init__(self, shapes):
        self.mean, self.mean_square = ([torch.zeros(shape, dtype=torch.float64) for shape in shapes] for _ in range(2))
        self.steps = 0

    def moves(self, gradients):
        self.steps += 1
        self.mean = [0.9 * old + 0.1 * new for old, new in zip(self.mean, gradients, strict=True)]
        self.mean_square = [0.999 * old + 0.001 * new**2 for old, new in zip(self.mean_square, gradients, strict=True)]
        mean = [part / (1 - 0.9**self.steps) for part in self.mean]
        mean_square = [part / (1 - 0.999**self.steps) for part in self.mean_square]
        return [one / (other.sqrt() + 1e-5) for one, other in zip(mean, mean_square, strict=True)]


@pytest.mark.parametrize("shared_statistics", [True, False], ids=["shared statistics", "own statistics"])
@pytest.mark.parametrize("optimizer, slow_class", [("rmsprop", SlowRMSprop), ("adam", SlowAdam)])
def test_shared_parameters_get_the_gradient_of_each_rollout_alone(optimizer, slow_class, shared_statistics):
    """Two learners take turns; what each does is computed step by step in float64 from what its environments showed."""
    made = []

    def make_env():
        made.append(
            Recorder(DummyVecEnv(scripted_envs([((2, "terminated"), (3, "truncated")), ((5, "terminated"),)], scale=0.3)))
        )
        return made[-1]

    settings = dict(n_workers=2, learning_rate=RATE, anneal=True, max_grad_norm=MAX_NORM, optimizer=optimizer)
    settings |= dict(norm_reward=False, policy_kwargs=PLAIN)
    model = make_agent(make_env, shared_statistics=shared_statistics, **settings, **SLOW)
    scramble(model.policy)
    updates, frames = 30, 2 * N_STEPS
    first = join(model, updates * frames)
    learners = [first, join(model, updates * frames, model._shared, 1)]
    shapes = [parameter.shape for parameter in model.policy.parameters()]
    slow = [slow_class(shapes) for _ in range(2)]
    clipped = 0
    for update in range(updates):
        number = random.Random(update).randrange(2)
        learner, net = learners[number], SlowNet(model.policy)
        before = [parameter.detach().double() for parameter in model.policy.parameters()]
        metrics = learner.learn_rollout().metrics
        expected, norm = expected_gradient(net, made[1 + number])
        clipped += norm > MAX_NORM
        assert metrics["train/grad_norm"] == pytest.approx(norm, rel=1e-3)
        assert_near([parameter.grad for parameter in learner._common], expected)
        assert all(parameter.grad is None for parameter in learner.policy.parameters())
        rate = RATE * (1 - (update + 1) / updates)  # by the frames of both
        moves = slow[0 if shared_statistics else number].moves(expected)
        if update < updates - 1:
            after = [parameter.detach().double() for parameter in model.policy.parameters()]
            assert_near([new - old for old, new in zip(before, after, strict=True)], [-rate * move for move in moves], 5e-3)
    assert 0 < clipped < updates
    assert model._shared.frames.sum() == updates * frames
    assert (model._shared.frames > 0).all()
    assert not any(parameter.grad is not None for parameter in model.policy.parameters())


def test_all_workers_have_the_same_statistics_or_each_its_own():
    for shared_statistics in (True, False):
        model = make_agent(shared_statistics=shared_statistics)
        learners = [join(model, 1000)]
        learners.append(join(model, 1000, model._shared, 1))
        for learner in learners:
            learner.learn_rollout()
        one, other = (
            [part for parts in learner.policy.optimizer.state.values() for part in parts.values()] for learner in learners
        )
        assert all((a.data_ptr() == b.data_ptr()) == shared_statistics for a, b in zip(one, other, strict=True))
        assert all(part.is_shared() for part in one + other)
        steps = [int(parts["step"]) for learner in learners for parts in learner.policy.optimizer.state.values()]
        assert set(steps) == ({2} if shared_statistics else {1})


def test_own_statistics_are_averaged_by_save_and_where_learning_ends(tmp_path):
    model = make_agent(optimizer="rmsprop", shared_statistics=False)
    learners = [join(model, 1000)]
    learners.append(join(model, 1000, model._shared, 1))
    for learner in (*learners, learners[0]):
        learner.learn_rollout()
    model.save(tmp_path / "agent")
    loaded = A3C.load(tmp_path / "agent", catch)
    own = [list(learner.policy.optimizer.state.values()) for learner in learners]
    for mean, one, other in zip(optimizer_statistics(loaded.policy.optimizer), *own, strict=True):
        assert mean["step"] == 1.5
        torch.testing.assert_close(mean["square_avg"], (one["square_avg"] + other["square_avg"]) / 2)
        assert not torch.equal(one["square_avg"], other["square_avg"])

    model = make_agent(shared_statistics=False).learn(12 * ROLLOUT)
    (steps,) = {float(parts["step"]) for parts in optimizer_statistics(model.policy.optimizer)}
    assert steps == model._n_updates / 2
    model.policy.optimizer.state.clear()  # nothing of a training that is over comes back
    model.save(tmp_path / "agent")
    assert not A3C.load(tmp_path / "agent").policy.optimizer.state


OPTIMIZERS = {
    "RMSprop": partial(torch.optim.RMSprop, lr=0.1),
    "RMSprop, centred, with momentum": partial(torch.optim.RMSprop, lr=0.1, momentum=0.9, centered=True),
    "Adam": partial(torch.optim.Adam, lr=0.1),
    "Adam, fused": partial(torch.optim.Adam, lr=0.1, fused=True),
    "AdamW": partial(torch.optim.AdamW, lr=0.1, weight_decay=0.1),
    "SGD": partial(torch.optim.SGD, lr=0.1),
    "SGD with momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
}


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_statistics_begin_at_zero_and_step_as_torch_does(make_optimizer):
    torch.manual_seed(0)
    starts, gradients = ([torch.randn(3, 2), torch.randn(4)] for _ in range(2))
    ours, theirs = ([torch.nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    groups = [
        [dict(params=[one], lr=rate) for one, rate in zip(parameters, (0.1, 0.2), strict=True)] for parameters in (ours, theirs)
    ]
    optimizer, reference = (make_optimizer(group) for group in groups)
    statistics = optimizer_statistics(optimizer)
    assert len(statistics) == 2
    assert not any(part.any() for parts in statistics for part in parts.values())
    assert all(torch.equal(parameter, start) for parameter, start in zip(ours, starts, strict=True))
    assert all(parameter.grad is None for parameter in ours)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    for _ in range(3):
        for parameters in (ours, theirs):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
        optimizer.step()
        reference.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    before = copy.deepcopy(optimizer_statistics(optimizer))
    assert all(
        torch.equal(one[name], other[name])
        for one, other in zip(optimizer_statistics(optimizer), before, strict=True)
        for name in one
    )


def test_sharing_changes_no_value():
    model = make_agent("CartPole-v1", optimizer="adam", cell="lstm")
    before = copy.deepcopy(model.policy.state_dict())
    shared = model._share(100)
    assert all(torch.equal(shared.parameters[name], before[name]) for name in before)
    assert all(parameter.is_shared() for parameter in model.policy.parameters())
    for name, parameter in model.policy.named_parameters():
        assert shared.parameters[name].data_ptr() == parameter.data_ptr()
    with torch.no_grad():
        for i, parameter in enumerate(model.policy.parameters()):
            parameter.fill_(i)
    assert all((parameter == i).all() for i, parameter in enumerate(model.policy.parameters()))


def test_workers_take_a_deep_net_with_own_statistics():
    deep = dict(encoder_arch=[2] * 50, net_arch=[2] * 50)
    model = make_agent(optimizer="adam", n_workers=4, shared_statistics=False, policy_kwargs=deep)
    assert model.learn(8 * ROLLOUT).num_timesteps >= 8 * ROLLOUT


# Callbacks and logs.


def test_callbacks_see_every_step_of_every_rollout():
    watch = Watch()
    model = make_agent().learn(20 * ROLLOUT, callback=watch)
    rollouts = model.num_timesteps // ROLLOUT
    assert rollouts in (20, 21)
    assert watch.events == [*["step"] * N_STEPS, "rollout end"] * rollouts + ["training end"]
    assert watch.steps == list(range(N_ENVS, model.num_timesteps + 1, N_ENVS))
    assert watch.shared.frames.sum() == model.num_timesteps
    assert model._n_updates == rollouts
    assert watch.total == 20 * ROLLOUT
    again = Watch()
    model.learn(ROLLOUT, callback=again, reset_num_timesteps=False)
    assert again.total == rollouts * ROLLOUT + ROLLOUT
    assert again.steps[0] == rollouts * ROLLOUT + N_ENVS


def test_a_callback_stops_the_training():
    watch = Watch(lambda model: model.num_timesteps < 7 * N_ENVS)
    model = make_agent().learn(10**9, callback=watch)
    assert model.num_timesteps == 7 * N_ENVS
    assert watch.events.count("step") == 7
    assert watch.events[-1] == "training end"


def test_an_error_in_a_callback_ends_the_workers():
    def act(model):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_agent().learn(10**9, callback=Watch(act))


def test_it_logs_what_a2c_logs():
    rows = []
    for model in (make_agent(cell="fast-weights"), make_a2c(cell="fast-weights")):
        written = Written()
        model.set_logger(Logger(None, [written]))
        model.learn(6 * ROLLOUT, log_interval=1)
        rows.append(written.rows)
    ours, theirs = ({name for row in rows for name in row} for rows in rows)
    assert ours == theirs
    assert any(name.startswith("rollout/memory/") for name in ours)
    assert all(np.isfinite(value) for value in rows[0][-1].values())
    assert [row["time/total_timesteps"] for row in rows[0]] == [ROLLOUT * (i + 1) for i in range(len(rows[0]))]
    assert [row["train/n_updates"] for row in rows[0]] == list(range(1, len(rows[0]) + 1))


@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
def test_callbacks_of_sb3(tmp_path):
    evaluation = EvalCallback(
        VecEnvAdapter(catch(), monitor=True),
        eval_freq=20,
        best_model_save_path=str(tmp_path),
        verbose=0,
        log_path=str(tmp_path),
    )
    checkpoints = CheckpointCallback(7, str(tmp_path), name_prefix="catch")
    model = make_agent().learn(10 * ROLLOUT, callback=[evaluation, checkpoints])
    assert list(evaluation.evaluations_timesteps) == list(range(20 * N_ENVS, model.num_timesteps + 1, 20 * N_ENVS))
    for file in tmp_path.glob("catch_*_steps.zip"):
        assert file.name == f"catch_{A3C.load(file).num_timesteps}_steps.zip"
    assert A3C.load(tmp_path / "best_model", catch).num_timesteps > 0


def test_a_callback_may_count_episodes():
    model = make_agent().learn(10**6, callback=StopTrainingOnMaxEpisodes(9))
    assert model.num_timesteps < 10**5


# Environments.


class Told(gym.ObservationWrapper):
    """What a Scripted shows, in a dictionary."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Dict(all=env.observation_space, step=spaces.Box(0, 9, (1,)))

    def observation(self, observation):
        return dict(all=observation, step=observation[2:])


ENVS = {
    "id": ("CartPole-v1", 1),
    "Env": (lambda: gym.make("CartPole-v1"), 1),
    "VecEnv": (lambda: make_vec_env("CartPole-v1", 2), 2),
    "VectorEnv": (catch, N_ENVS),
    "dictionary": (lambda: Told(Scripted()), 1),
    "our id": ("fw_rl/Catch-v0", 1),
}


@pytest.mark.processes
@pytest.mark.parametrize("env, n_envs", ENVS.values(), ids=ENVS)
def test_it_takes_any_function_that_makes_environments(env, n_envs):
    model = make_agent(env, n_steps=20, start_method=START_METHOD)
    before = copy.deepcopy(model.policy.state_dict())
    model.learn(100 * n_envs)
    assert model.n_envs == n_envs
    assert model.num_timesteps in (100 * n_envs, 120 * n_envs)
    assert any(not torch.equal(part, before[name]) for name, part in model.policy.state_dict().items())
    assert model.ep_info_buffer
    actions, _ = model.predict(model.get_env().reset())
    assert actions.shape == (n_envs,)


def test_workers_and_their_substitutes_play_differently():
    model = make_agent()
    seeds = [model._worker_seed(number, restarts) for number in range(3) for restarts in range(3)]
    model.num_timesteps = 100
    seeds += [model._worker_seed(number, restarts) for number in range(3) for restarts in range(3)]
    assert len(set(seeds)) == 18
    assert seeds[0] == 0
    assert model._worker_seed(1, 2) == seeds[9 + 5]
    unseeded = make_agent(seed=None)
    assert unseeded._worker_seed(0, 0) != unseeded._worker_seed(0, 0)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(env=lambda: None, n_workers=0), r"^n_workers must be at least 1, got 0$"),
        (dict(start_method="thread"), "^start_method must be one of .*fork.*, got 'thread'"),
        (dict(device="cuda"), r"^device must be 'cpu', in whose memory the workers share their parameters, got 'cuda'$"),
        (dict(device=torch.device("cuda:0")), r"^device must be 'cpu', .*, got device\(type='cuda', index=0\)$"),
        (
            dict(env=catch()),
            r"^env must be a function or an id, since every worker makes its own, got CatchVectorEnv.*$",
        ),
        (
            dict(env=DummyVecEnv([lambda: gym.make("CartPole-v1")])),
            r"^env must be a function or an id, since every worker makes its own, got .*",
        ),
        (dict(optimizer="sgd"), r"^optimizer must be one of rmsprop, adam, got 'sgd'$"),
    ],
)
def test_what_is_not_allowed_is_refused_in_one_line(kwargs, message):
    with pytest.raises(ValueError, match=message) as refusal:
        make_agent(**kwargs)
    assert "\n" not in str(refusal.value)


def test_an_instance_is_refused_later_too(tmp_path):
    model = make_agent()
    with pytest.raises(ValueError, match=r"env must be a function or an id, since every worker makes its own, got "):
        model.set_env(catch())
    model.set_env(catch)
    model.save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"env must be a function or an id, since every worker makes its own, got "):
        A3C.load(tmp_path / "agent", catch())


# Checkpoints.


def test_a_run_goes_on_with_another_number_of_workers(tmp_path):
    model = make_agent(n_workers=2, optimizer="adam").learn(10 * ROLLOUT)
    model.save(tmp_path / "agent")
    loaded = A3C.load(tmp_path / "agent", catch, n_workers=3)
    assert_same_training(loaded, model)
    watch = Watch()
    loaded.learn(10 * ROLLOUT, callback=watch, reset_num_timesteps=False)
    assert len(watch.shared.frames) == loaded.n_workers == 3
    assert watch.steps[0] == model.num_timesteps + N_ENVS
    assert loaded.num_timesteps == model.num_timesteps + watch.shared.frames.sum()
    assert 0 <= loaded.num_timesteps - (model.num_timesteps + 10 * ROLLOUT) < 3 * ROLLOUT
    (steps,) = {float(parts["step"]) for parts in optimizer_statistics(loaded.policy.optimizer)} - {math.nan}
    assert steps > 10


def test_without_environments_it_predicts(tmp_path):
    model = make_agent().learn(4 * ROLLOUT)
    model.save(tmp_path / "agent")
    loaded = A3C.load(tmp_path / "agent")
    assert same_parameters(loaded, model)
    observation = catch().reset(seed=0)[0]
    np.testing.assert_array_equal(
        loaded.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0]
    )


def test_a_file_of_a2c_may_go_on_as_a3c(tmp_path):
    a2c = make_a2c().learn(10 * ROLLOUT)
    a2c.save(tmp_path / "a2c")
    model = A3C.load(tmp_path / "a2c", catch, n_workers=2, start_method=FASTEST)
    assert_same_training(model, a2c)
    assert model.learn(2 * ROLLOUT, reset_num_timesteps=False).num_timesteps >= 12 * ROLLOUT


def test_a2c_refuses_a_file_of_a3c_in_one_line(tmp_path):
    make_agent().save(tmp_path / "agent")
    with pytest.raises(CheckpointError, match=r"has the argument 'n_workers', which RecurrentA2C does not take$") as refusal:
        RecurrentA2C.load(tmp_path / "agent", catch())
    assert "\n" not in str(refusal.value)


# Faults.


class Broken(gym.Wrapper):
    def __init__(self, env, where):
        super().__init__(env)
        self.where = where
        self.steps = 0
        if where == "constructor" and multiprocessing.parent_process() is not None:
            raise OSError("no such cheese")

    def step(self, action):
        self.steps += 1
        if self.where == "step" and self.steps == 30:
            raise OSError("no such cheese")
        return self.env.step(action)


@pytest.mark.parametrize("where", ["constructor", "step"])
def test_an_environments_error_has_its_traceback_and_keeps_the_parameters(tmp_path, where):
    model = make_agent(lambda: Broken(gym.make("CartPole-v1"), where), n_workers=1, shared_statistics=False)
    before = copy.deepcopy(model.policy.state_dict())
    with pytest.raises(WorkerError) as failure:
        model.learn(10**9)
    assert failure.value.summary == "worker 0 failed: OSError: no such cheese"
    assert f"in {'__init__' if where == 'constructor' else 'step'}\n    raise OSError" in failure.value.details
    assert model.num_timesteps == (0 if where == "constructor" else 25)
    learned = any(not torch.equal(part, before[name]) for name, part in model.policy.state_dict().items())
    assert learned == (where == "step")
    assert {float(parts["step"]) for parts in optimizer_statistics(model.policy.optimizer)} == {model.num_timesteps / N_STEPS}
    model.save(tmp_path / "agent")
    assert same_parameters(A3C.load(tmp_path / "agent"), model)


def test_unreported_frames_of_a_killed_worker_are_done_again(tmp_path):
    flag = tmp_path / "killed"

    class Mortal(torch.optim.RMSprop):
        """Is killed once, when its frames are counted and not yet reported."""

        steps = 0

        def step(self, closure=None):
            super().step(closure)
            self.steps += 1
            if multiprocessing.parent_process() is not None and self.steps == 6 and not flag.exists():
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    watch = Watch()
    model = make_agent(n_workers=1, policy_kwargs=dict(optimizer_class=Mortal))
    with pytest.warns(UserWarning, match="^worker 0 was killed by signal 9: another takes its place$"):
        model.learn(10 * ROLLOUT, callback=watch)
    assert flag.exists()
    assert model.num_timesteps == watch.shared.frames.sum() == 10 * ROLLOUT
    assert model._n_updates == 10


class Numbered(gym.Env):
    """Every step is an episode, whose success is the number of the process and that of its step there."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        success = (os.getpid(), self.steps)
        self.steps += 1
        return self.observation_space.sample(), 1.0, True, False, dict(is_success=success)


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:worker . was killed by signal 9")
@pytest.mark.parametrize("start_method, kills, total", [("forkserver", 4, 4000), ("fork", 6, 4000), ("spawn", 1, 1000)])
def test_workers_are_killed_at_random(start_method, kills, total):
    moments = sorted(random.sample(range(1, total * 3 // 4), kills))
    killed = []

    def act(model):
        if len(killed) < kills and model.num_timesteps >= moments[len(killed)]:
            time.sleep(random.uniform(0.0, 0.02))
            victim = random.choice(multiprocessing.active_children())
            victim.kill()
            killed.append(victim.pid)

    watch = Watch(act)
    model = make_agent(Numbered, start_method=start_method, stats_window_size=10**9)
    model.learn(total, callback=watch, log_interval=None)
    assert len(killed) == kills
    frames = list(model.ep_success_buffer)
    assert len(set(frames)) == len(frames) == model.num_timesteps == watch.shared.frames.sum()
    assert total <= model.num_timesteps < total + 2 * N_STEPS
    for pid in {pid for pid, _ in frames}:
        reported = [step for other, step in frames if other == pid]
        assert reported == list(range(len(reported)))
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())


SCRIPT = """
import multiprocessing, sys, time
import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
from fw_rl.agents import A3C

class Slow(gym.Wrapper):
    def step(self, action):
        time.sleep(0.05)
        return super().step(action)

class Tell(BaseCallback):
    def _on_rollout_end(self):
        if self.n_calls == 4:
            print("training", len(multiprocessing.active_children()), flush=True)
    def _on_step(self):
        return True

if __name__ == "__main__":
    sizes = dict(cell="gru", hidden_size=4, encoder_arch=(4,))
    settings = dict(n_steps=4, start_method=sys.argv[1], policy_kwargs=sizes)
    model = A3C("RecurrentPolicy", lambda: Slow(gym.make("CartPole-v1")), **settings)
    try:
        model.learn(10**9, callback=Tell())
    except KeyboardInterrupt:
        print("interrupted", len(multiprocessing.active_children()), flush=True)
    model.learn(10**9, callback=Tell())
"""


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("start_method", START_METHODS)
def test_no_worker_outlives_ctrl_c_or_the_main_process(tmp_path, start_method):
    errors = tmp_path / "errors"
    with errors.open("w") as file:
        main = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, start_method], stdout=subprocess.PIPE, stderr=file, text=True, start_new_session=True
        )
    try:
        assert main.stdout.readline() == "training 2\n", errors.read_text()
        os.killpg(main.pid, signal.SIGINT)
        assert select.select([main.stdout], [], [], 60.0)[0], "still busy"
        assert main.stdout.readline() == "interrupted 0\n"
        assert errors.read_text() == ""
        assert main.stdout.readline() == "training 2\n"
        assert len(processes_of_session(main.pid)) >= 3
        main.kill()
        main.wait()
        end = time.monotonic() + 60.0
        while processes_of_session(main.pid) and time.monotonic() < end:
            time.sleep(0.05)
        assert processes_of_session(main.pid) == []
    finally:
        if processes_of_session(main.pid):
            os.killpg(main.pid, signal.SIGKILL)
        main.wait()
        main.stdout.close()


def test_the_examples_in_the_documentation():
    tested = doctest.testmod(a3c)
    assert tested.attempted and not tested.failed
