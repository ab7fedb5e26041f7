"""Environments in worker processes do what they do in one process; and whatever happens to them, nobody is left behind."""

import doctest
import gc
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from fw_rl import processes
from fw_rl.agents import RecurrentA2C
from fw_rl.envs import CatchEnv, CatchVectorEnv, ParallelVectorEnv, VecEnvAdapter, parallel
from fw_rl.processes import START_METHOD, START_METHODS, WorkerError
from tests.agents.helpers import same_parameters
from tests.envs.helpers import EVERY_MODE, Noisy, assert_same
from tests.envs.shares import Echo, Faulty, Rare, blind, recorded, short_cart_pole, terse, together
from tests.envs.test_sb3 import assert_same_play
from tests.helpers import processes_of_session

EVERY_START_METHOD = pytest.mark.parametrize(
    "start_method",
    [method if method == "fork" else pytest.param(method, marks=pytest.mark.processes) for method in START_METHODS],
)


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.5)
    yield
    assert multiprocessing.active_children() == []
    assert [path for path in Path("/dev/shm").glob("*") if f"-{os.getpid()}-" in path.name] == []


SHARES = {
    "Catch": partial(together, partial(CatchEnv, 6, 3)),
    "CartPole": partial(together, short_cart_pole),
    "Dict": partial(together, partial(Noisy, as_dict=True)),
    "statistics": recorded,
}


@pytest.fixture
def opened():
    """`ParallelVectorEnv`, whose environments are closed when the test is over; its workers start the quickest way."""
    envs = []

    def make(make_env, num_envs, workers, start_method="fork" if "fork" in START_METHODS else START_METHOD):
        envs.append(ParallelVectorEnv(make_env, num_envs, workers, start_method))
        return envs[-1]

    yield make
    for env in envs:
        env.close()


def without_times(tree):
    """The infos without how long an episode took."""
    if not isinstance(tree, dict):
        return tree
    return {key: without_times(part) for key, part in tree.items() if key not in ("t", "_t")}


def assert_same_steps(actual, expected, steps, seed=0):
    """Two vector environments do the same with random actions; returns how many episodes ended."""
    for (observations, infos), (others, other_infos) in [(actual.reset(seed=seed), expected.reset(seed=seed))]:
        assert_same(observations, others)
        assert_same(infos, other_infos)
    expected.action_space.seed(seed)
    ends = 0
    for _ in range(steps):
        actions = expected.action_space.sample()
        *results, infos = actual.step(actions)
        *others, other_infos = expected.step(actions)
        for result, other in zip(results, others, strict=True):
            assert_same(result, other)
        infos, other_infos = without_times(infos), without_times(other_infos)
        if "final_obs" in other_infos:
            for one, other in zip(infos.pop("final_obs"), other_infos.pop("final_obs"), strict=True):
                assert_same(one, other)
        assert_same(infos, other_infos)
        ends += int(np.logical_or(*others[2:]).sum())
    return ends


# What one process does.


@pytest.mark.parametrize(
    "share", [name if name == "Dict" else pytest.param(name, marks=pytest.mark.processes) for name in SHARES]
)
def test_ten_thousand_random_steps_are_those_of_one_process(share, opened):
    assert assert_same_steps(opened(SHARES[share], 20, 2), SHARES[share](20), steps=500) > 500


@EVERY_START_METHOD
def test_however_the_workers_are_started(start_method, opened):
    envs = opened(lambda count: together(partial(Noisy, as_dict=True), count), 6, 3, start_method)
    assert assert_same_steps(envs, SHARES["Dict"](6), steps=20) > 5


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers(workers, opened):
    assert assert_same_steps(opened(SHARES["Dict"], 4, workers), SHARES["Dict"](4), steps=20) > 5


@EVERY_MODE
def test_every_autoreset_mode_also_with_masks(mode, opened):
    share = partial(together, partial(Noisy, as_dict=True), mode=mode)
    envs = opened(share, 4, 2)
    assert envs.metadata["autoreset_mode"] == mode
    assert len(assert_same_play(VecEnvAdapter(envs, monitor=False), VecEnvAdapter(share(4)))) > 20


def test_catch_in_arrays_is_one_vector_environment_in_each_worker(opened):
    make_env = partial(CatchVectorEnv, n=6, m=6)
    envs, parts = opened(make_env, 6, 3), [make_env(2) for _ in range(3)]
    observations = [envs.reset(seed=5)[0], *(part.reset(seed=5 + 2 * k)[0] for k, part in enumerate(parts))]
    for t in range(12):
        assert_same(observations[0], np.concatenate(observations[1:]))
        actions = np.arange(t, t + 6) % 3
        results = envs.step(actions), *(part.step(actions[2 * k : 2 * k + 2]) for k, part in enumerate(parts))
        for result, *others in list(zip(*results, strict=True))[1:4]:
            assert_same(result, np.concatenate(others))
        observations = [result[0] for result in results]
        if t % 5 == 4:
            infos, *others = (result[4] for result in results)
            assert_same(np.stack(infos["final_obs"]), np.concatenate([np.stack(other["final_obs"]) for other in others]))
            assert infos["_final_obs"].all()
            assert infos["final_info"] == {}
    assert VecEnvAdapter(envs).get_attr("render_mode") == [None] * 6
    assert VecEnvAdapter(envs).has_attr("rules")


BOX = spaces.Box(-1, 1, (2, 3), np.float64)
SPACES = [
    BOX,
    spaces.Box(0, 255, (4, 4, 3), np.uint8),
    spaces.Box(-1, 1, (), np.float16),
    spaces.Box(0, 1, (0,), np.float32),
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([3, 4]),
    spaces.MultiBinary([2, 2]),
    spaces.Dict(box=BOX, inner=spaces.Dict(coin=spaces.Discrete(2), bits=spaces.MultiBinary(3))),
    spaces.Tuple([BOX, spaces.Dict(which=spaces.MultiDiscrete([2, 9]))]),
]


def assert_same_sample(actual, expected):
    if isinstance(expected, tuple):
        for one, other in zip(actual, expected, strict=True):
            assert_same_sample(one, other)
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            assert_same_sample(actual[key], expected[key])
    else:
        assert_same(actual, expected)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_every_space_of_a_fixed_size_is_shared(space, opened):
    envs = opened(partial(Echo, space=space), 4, 2)
    envs.reset()
    for _ in range(3):
        actions = envs.action_space.sample()
        observations, *_ = envs.step(actions)
        assert_same_sample(observations, actions)
        assert observations in envs.observation_space


def test_what_is_returned_or_kept_is_not_written_to_later(opened):
    envs = opened(partial(Echo, space=spaces.Discrete(100)), 4, 2)
    first, _ = envs.reset()
    copied = first.copy()
    for t in range(4):
        observations, *_, infos = envs.step(np.full(4, t))
        assert observations.flags.owndata
        if t:
            assert infos["last"].tolist() == [t - 1] * 4
    assert_same(first, copied)


def test_actions_are_cast_to_the_type_of_the_space(opened):
    envs = opened(partial(Echo, space=spaces.MultiBinary(2)), 2, 2)
    envs.reset()
    assert_same(envs.step([[1.0, 0.0], [0.0, 1.0]])[0], np.array([[1, 0], [0, 1]], np.int8))


def test_infos_that_only_some_environments_tell(opened):
    share = partial(together, Rare)
    envs, expected = opened(share, 4, 2), share(4)
    for env in (envs, expected):
        env.reset(seed=0)
    for actions in ([0, 0, 0, 0], [0, 0, 2, 0], [1, 0, 0, 2], [2, 2, 2, 2]):
        infos, others = (env.step(np.array(actions))[4] for env in (envs, expected))
        assert infos.keys() == others.keys()
        for key in {"word", "_word", "deep", "_deep"} & {*others}:
            assert_same(infos[key], others[key])


def test_seeds(opened):
    envs = opened(partial(together, Noisy), 4, 2)
    for seed, expected in ((7, (7, 8, 9, 10)), ([3, 1, 4, 1], (3, 1, 4, 1)), ([5, None, 6, None], None)):
        envs.reset(seed=seed)
        seeds = envs.np_random_seed
        assert seeds == expected or (expected is None and seeds[::2] == (5, 6))
    assert not np.array_equal(envs.reset()[0], envs.reset()[0])
    expected = together(Noisy, 4)
    for env in (envs, expected):
        env.reset(seed=7)
    states = [generator.bit_generator.state for generator in envs.np_random]
    assert states == [generator.bit_generator.state for generator in expected.np_random]
    same, _ = envs.reset(seed=np.int64(7))
    assert np.array_equal(same, expected.reset(seed=7)[0])
    with pytest.raises(ValueError, match=r"^seed must be one or 4 integers, got \[1, 2, 3\]$"):
        envs.reset(seed=[1, 2, 3])


def test_options_and_masks(opened):
    envs = opened(partial(together, Noisy, mode=AutoresetMode.DISABLED), 4, 2)
    options = dict(shift=100, reset_mask=np.array([False, True, False, False]))
    envs.reset(seed=0)
    assert ((envs.reset(options=options)[0] > 50).all(axis=1) == options["reset_mask"]).all()
    assert [*options] == ["shift", "reset_mask"]
    for mask in (np.zeros(4, bool), np.ones(3, bool), np.True_, None, object()):
        with pytest.raises(ValueError, match=r"^reset_mask must be a boolean array of shape \(4,\) with a True in it, got .*$"):
            envs.reset(options=dict(reset_mask=mask))
    assert (envs.reset(options=dict(shift=100))[0] > 50).all()


def test_attributes_methods_and_pictures(opened):
    envs = opened(partial(together, partial(Noisy, render_mode="rgb_array")), 4, 2)
    envs.reset()
    assert envs.get_attr("number") == (0, 0, 0, 0)
    envs.set_attr("number", [1, 2, 3, 4])
    assert envs.call("added", 10, y=1) == (12, 13, 14, 15)
    assert envs.render_mode == "rgb_array"
    assert [picture.mean() for picture in envs.render()] == [10, 20, 30, 40]
    envs.set_attr("number", 5)
    assert envs.get_attr("number") == (5, 5, 5, 5)
    with pytest.raises(ValueError, match=r"^number must have 4 values, got 2$"):
        envs.set_attr("number", [1, 2])


def test_one_object_in_each_worker_has_one_value(opened):
    envs = opened(partial(CatchVectorEnv, n=5, m=2), 4, 2)
    envs.set_attr("number", [1, 1, 2, 2])
    assert envs.get_attr("number") == (1, 1, 2, 2)


def test_an_environment_of_one_object_answers_for_its_worker(opened):
    envs = opened(partial(CatchVectorEnv, n=5, m=2), 4, 2, START_METHOD)
    assert envs.render() is None if envs.reset() else False
    assert envs.get_attr("num_envs") == (2, 2, 2, 2)
    assert [state["rows"] for state in envs.call("get_state")] == [[0, 0]] * 4


def test_a_worker_imports_neither_torch_nor_sb3_by_itself():
    code = """
        import sys
        from functools import partial
        import gymnasium as gym
        from fw_rl.envs import ParallelVectorEnv
        if __name__ == "__main__":
            envs = ParallelVectorEnv(partial(gym.make_vec, "CartPole-v1", vectorization_mode="sync"), 2, 2)
            envs.reset()
            assert not {"torch", "stable_baselines3"} & {*sys.modules}
    """
    subprocess.run([sys.executable, "-c", "if True:" + code], check=True)


# Agents.


@pytest.mark.processes
def test_a2c_learns_on_it_what_it_learns_in_one_process(opened):
    def trained(env):
        memory = dict(cell="gru", hidden_size=8, encoder_arch=(6,))
        model = RecurrentA2C("RecurrentPolicy", env, n_steps=6, seed=0, device="cpu", policy_kwargs=memory)
        return model.learn(1200)

    one, other = trained(opened(SHARES["CartPole"], 4, 2)), trained(SHARES["CartPole"](4))
    assert same_parameters(one, other)
    episodes = [[(episode["r"], episode["l"]) for episode in model.ep_info_buffer] for model in (one, other)]
    assert episodes[0] == episodes[1] != []


# Bad input.


def test_bad_input_is_refused_in_one_line(opened):
    noisy = partial(together, Noisy)
    for num_envs, workers in ((5, 2), (0, 1), (2, 4)):
        with pytest.raises(ValueError, match=rf"^num_envs must be a multiple of workers = {workers}, got {num_envs}$"):
            opened(noisy, num_envs, workers)
    with pytest.raises(ValueError, match=r"^workers must be at least 1, got 0$"):
        opened(noisy, 4, 0)
    with pytest.raises(ValueError, match=r"^start_method must be one of .*, got 'thread'$"):
        opened(noisy, 2, 2, "thread")
    with pytest.raises(ValueError, match=r"^observation_space must have a fixed size \(Box, .*\), got Text.*$"):
        opened(partial(Echo, space=spaces.Text(5)), 2, 2)
    with pytest.raises(ValueError, match=r"^observation_space must have a fixed size .*, got Dict.*Sequence.*$"):
        opened(partial(Echo, space=spaces.Dict(some=spaces.Sequence(spaces.Discrete(2)))), 2, 2)
    envs = opened(noisy, 4, 2)
    envs.reset()
    for actions in (np.zeros(3, int), np.zeros((4, 1), int), 0):
        with pytest.raises(ValueError, match=r"^actions must have the shape \(4,\), got \(.*\)$"):
            envs.step(actions)
    assert len(envs.step(np.zeros(4, int))[0]) == 4  # nobody has died of it


def test_environments_that_differ_between_processes_are_refused(opened):
    main = os.getpid()
    for make in (
        lambda count: Echo(count, spaces.Discrete(2 if os.getpid() == main else 3)),
        lambda count: Echo(1, spaces.Discrete(2)),
    ):
        with pytest.raises(WorkerError, match=r"worker \d failed: ValueError: make_env must make .*, got Echo"):
            opened(make, 4, 2)


# Faults.


faulty = partial(together, Faulty)


def is_closed(envs):
    assert multiprocessing.active_children() == []
    with pytest.raises(gym.error.ClosedEnvironmentError, match=r"^ParallelVectorEnv.* is closed$"):
        envs.step(np.zeros(4, int))
    envs.close()
    return True


FAULTS = {
    1: "worker 1 failed: ZeroDivisionError: in an env",
    2: "worker 1 was killed by signal 9",
    3: "worker 1 ended by itself",
}


@EVERY_START_METHOD
@pytest.mark.parametrize("action", FAULTS, ids=["exception", "killed", "ended"])
def test_a_fault_amid_a_step_names_the_worker(action, start_method, opened):
    envs = opened(faulty, 4, 2, start_method)
    envs.reset()
    envs.step(np.zeros(4, int))
    with pytest.raises(WorkerError) as failure:
        envs.step(np.array([0, 0, 0, action]))
    assert failure.value.summary == FAULTS[action]
    assert ("in step\n    raise ZeroDivisionError" in failure.value.details) == (action == 1)
    assert is_closed(envs)


@pytest.mark.parametrize("action", [1, 2])
def test_a_fault_is_told_although_another_worker_hangs(action, opened):
    envs = opened(faulty, 4, 2)
    envs.reset()
    with pytest.raises(WorkerError) as failure:
        envs.step(np.array([5, 0, 0, action]))
    assert failure.value.summary == FAULTS[action]
    assert is_closed(envs)


def test_a_fault_between_two_steps(opened):
    envs = opened(faulty, 4, 2)
    envs.reset()
    os.kill(int(envs.step(np.zeros(4, int))[4]["pid"][0]), signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"^worker 0 was killed by signal 9$"):
        for _ in range(1000):
            envs.step(np.zeros(4, int))
    assert is_closed(envs)


def test_a_fault_in_a_reset_a_call_or_the_making(opened):
    envs = opened(faulty, 4, 2)
    with pytest.raises(WorkerError, match=r"^worker \d failed: KeyError: 'cheese'\n(?s:.*)in reset\n"):
        envs.reset(options=dict(some=1))
    assert is_closed(envs)
    envs = opened(faulty, 4, 2)
    with pytest.raises(WorkerError, match=r"^worker \d failed: AttributeError: .*no_such_thing"):
        envs.get_attr("no_such_thing")
    assert is_closed(envs)
    main = os.getpid()

    def make(count):
        return together(Faulty, count if os.getpid() == main else count // 0)

    with pytest.raises(WorkerError, match=r"^worker \d failed: ZeroDivisionError"):
        opened(make, 4, 2)


def test_a_worker_that_begins_more_than_asked_is_refused(opened):
    envs = opened(blind, 4, 2)
    envs.reset()
    with pytest.raises(
        WorkerError, match=r"^worker 1 failed: ValueError: env must begin the episodes of .* got Blind.* ignores it"
    ):
        envs.reset(options=dict(reset_mask=np.array([False, False, True, False])))


def test_workers_may_return_the_begun_rows_alone(opened):
    envs, expected = opened(terse, 4, 2), terse(4)
    first, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(first, expected.reset(seed=0)[0])
    mask = np.array([False, True, False, False])
    observations, infos = envs.reset(options=dict(reset_mask=mask))
    begun, expected_infos = expected.reset(options=dict(reset_mask=mask))
    np.testing.assert_array_equal(observations, np.where(mask[:, None], begun, first))
    np.testing.assert_array_equal(infos["_born"], mask)
    assert infos["born"][1] == expected_infos["born"][0]


def test_what_a_pipe_cannot_hold(opened):
    envs = opened(faulty, 4, 2)
    with pytest.raises(TypeError, match="cannot pickle"):
        envs.call("step", threading.Lock())
    assert is_closed(envs)


@pytest.mark.parametrize("action", [4, 5], ids=["hangs", "hangs and is deaf"])
@EVERY_START_METHOD
def test_a_hanging_step_is_ended_by_ctrl_c(start_method, action, opened):
    envs = opened(faulty, 4, 2, start_method)
    envs.reset()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        envs.step(np.array([0, action, 0, 0]))
    timer.join()
    assert is_closed(envs)


@pytest.mark.processes
def test_environments_are_closed_in_their_workers(opened, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOSED", str(tmp_path / "closed"))
    envs = opened(faulty, 4, 2, "spawn")
    monkeypatch.delenv("CLOSED")
    envs.close()
    assert (tmp_path / "closed").read_text().count("closed") == 4 + 1  # the one that showed the spaces


def test_workers_end_with_the_object():
    envs = ParallelVectorEnv(faulty, 4, 2)
    assert len(multiprocessing.active_children()) == 2
    del envs
    gc.collect()
    assert multiprocessing.active_children() == []


SCRIPT = """
import gc, multiprocessing, sys, time
import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv
from fw_rl.envs import ParallelVectorEnv

class Slow(gym.Wrapper):
    def step(self, action):
        time.sleep(0.01 if action == 0 else 1000)
        return super().step(action)

def make_env(count):
    return SyncVectorEnv([lambda: Slow(gym.make("CartPole-v1"))] * count)

def play(action):
    envs = ParallelVectorEnv(make_env, 4, 2, sys.argv[1])
    envs.reset(seed=0)
    envs.step(np.zeros(4, int))
    print("playing", len(multiprocessing.active_children()), flush=True)
    while action is not None:
        envs.step(np.array([0, action, 0, 0]))
    return envs

if __name__ == "__main__":
    for action in (0, 1):
        try:
            play(action)
        except KeyboardInterrupt:
            pass
        gc.collect()  # an interrupt between two steps leaves the environments to the garbage
        print("interrupted", len(multiprocessing.active_children()), flush=True)
    play(None)
    kept = play(None if sys.argv[2] == "end" else 0)
"""


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(("start_method", "end"), [*((method, "kill") for method in START_METHODS), ("forkserver", "end")])
def test_nobody_outlives_ctrl_c_or_the_main_process(tmp_path, start_method, end):
    errors = tmp_path / "errors"
    with errors.open("w") as file:
        main = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, start_method, end],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            start_new_session=True,
        )
    try:
        for _ in range(2):
            assert main.stdout.readline() == "playing 2\n", errors.read_text()
            time.sleep(0.1)
            os.killpg(main.pid, signal.SIGINT)
            assert select.select([main.stdout], [], [], 60.0)[0], "still busy"
            assert main.stdout.readline() == "interrupted 0\n", errors.read_text()
        for _ in range(2):
            assert main.stdout.readline() == "playing 2\n", errors.read_text()
        if end == "kill":
            assert len(processes_of_session(main.pid)) >= 3
            main.kill()
        main.wait(timeout=60)
        deadline = time.monotonic() + 60.0
        while processes_of_session(main.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert processes_of_session(main.pid) == []
        assert errors.read_text() == ""
        assert [path for path in Path("/dev/shm").glob("*") if f"-{main.pid}-" in path.name] == []
    finally:
        if processes_of_session(main.pid):
            os.killpg(main.pid, signal.SIGKILL)
        main.wait()
        main.stdout.close()


def test_the_example_in_the_documentation():
    result = doctest.testmod(parallel)
    assert result.attempted
    assert not result.failed
