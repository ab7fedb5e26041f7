"""The adapter of SB3's vector environments against what Gymnasium's own SyncVectorEnv does with the same environments."""

import doctest

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import ClipReward, DictInfoToList, NormalizeReward, RecordEpisodeStatistics
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecMonitor, VecNormalize

from fw_rl.envs import CatchVectorEnv, VecEnvAdapter, VectorEnvAdapter, sb3_vector
from tests.envs.helpers import EVERY_MODE, Noisy, assert_same, functions


def adapted(count=4, **kwargs):
    return VectorEnvAdapter(DummyVecEnv(functions(count, **kwargs)))


def expected(count=4, **kwargs):
    return SyncVectorEnv(functions(count, **kwargs), autoreset_mode=AutoresetMode.SAME_STEP)


def assert_same_infos(actual, wanted):
    """The same dictionaries of arrays; the last observations are objects, of the same numbers."""
    assert actual.keys() == wanted.keys()
    for key, value in wanted.items():
        if isinstance(value, dict):
            assert_same_infos(actual[key], value)
        elif key == "final_obs":
            for one, other in zip(actual[key], value, strict=True):
                assert_same(one, other)
        else:
            assert_same(actual[key], value)


def assert_same_play(actual, wanted, steps=60, seed=0):
    """Two vector environments do the same, step by step; returns how many episodes were finished, and how many cut."""
    (observations, infos), (wanted_observations, wanted_infos) = (env.reset(seed=seed) for env in (actual, wanted))
    assert_same(observations, wanted_observations)
    assert_same_infos(infos, wanted_infos)
    wanted.action_space.seed(seed)
    ends = np.zeros(2, dtype=int)
    for _ in range(steps):
        actions = wanted.action_space.sample()
        observations, rewards, terminations, truncations, infos = actual.step(actions)
        wanted_observations, wanted_rewards, wanted_terminations, wanted_truncations, wanted_infos = wanted.step(actions)
        assert_same(observations, wanted_observations)
        assert rewards.dtype == wanted_rewards.dtype
        np.testing.assert_allclose(rewards, wanted_rewards, rtol=1e-6)
        assert_same(terminations, wanted_terminations)
        assert_same(truncations, wanted_truncations & ~wanted_terminations)
        assert_same_infos(infos, wanted_infos)
        ends += [terminations.sum(), truncations.sum()]
    return ends


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        dict(as_dict=True),
        dict(action_space=spaces.MultiDiscrete([3, 2])),
        dict(action_space=spaces.Box(-1, 1, (2,))),
        dict(action_space=spaces.MultiBinary(3)),
        dict(end_probability=1.0),
        dict(count=1),
    ],
    ids=["Discrete", "Dict", "MultiDiscrete", "Box", "MultiBinary", "episodes of one step", "a single environment"],
)
def test_every_step_is_that_of_sync_vector_env(kwargs):
    finished, _ = assert_same_play(adapted(**kwargs), expected(**kwargs))
    assert finished > 3


def test_a_time_limit_truncates():
    limited = [lambda number=number: TimeLimit(Noisy(number, end_probability=0.0), 2 + number) for number in range(3)]
    wanted = SyncVectorEnv(limited, autoreset_mode=AutoresetMode.SAME_STEP)
    assert assert_same_play(VectorEnvAdapter(DummyVecEnv(limited)), wanted, steps=12).tolist() == [0, 6 + 4 + 3]


def test_environments_in_processes():
    env = VectorEnvAdapter(SubprocVecEnv(functions(2, as_dict=True), start_method="fork"))
    try:
        assert assert_same_play(env, expected(2, as_dict=True), steps=20).sum() > 3
        assert env.get_attr("number") == (0, 1)
        env.set_attr("number", [5, 6])
        assert env.call("added", 1, y=1) == (7, 8)
    finally:
        env.close()


@EVERY_MODE
def test_there_and_back_is_the_same(mode):
    there_and_back = VectorEnvAdapter(VecEnvAdapter(SyncVectorEnv(functions(), autoreset_mode=mode)))
    assert assert_same_play(there_and_back, expected()).min() > 5


def test_catch_there_and_back_is_the_same():
    finished, cut = assert_same_play(VectorEnvAdapter(VecEnvAdapter(CatchVectorEnv(5, 6, 2))), CatchVectorEnv(5, 6, 2))
    assert (finished, cut) == (60, 0)


def test_wrappers_of_sb3_inside():
    normalized = VectorEnvAdapter(VecNormalize(VecMonitor(DummyVecEnv(functions())), gamma=0.9))
    wanted = VecNormalize(VecMonitor(DummyVecEnv(functions())), gamma=0.9)
    wanted.seed(0)
    observations, infos = normalized.reset(seed=0)
    assert_same(observations, wanted.reset())
    assert_same(infos["born"], np.array([info["born"] for info in wanted.unwrapped.reset_infos]))
    episodes = 0
    for t in range(30):
        actions = np.full(4, t % 3)
        observations, rewards, terminations, truncations, infos = normalized.step(actions)
        wanted_observations, wanted_rewards, dones, wanted_infos = wanted.step(actions)
        assert_same(observations, wanted_observations)
        assert_same(rewards, wanted_rewards.astype(np.float64))
        assert_same(terminations | truncations, dones)
        for i in np.flatnonzero(dones):
            assert_same(infos["final_obs"][i], wanted_infos[i]["terminal_observation"])
            assert infos["born"][i] == wanted.unwrapped.reset_infos[i]["born"]
            assert infos["final_info"]["episode"]["r"][i] == wanted_infos[i]["episode"]["r"]
            episodes += 1
    assert episodes > 10
    stacked = VectorEnvAdapter(VecFrameStack(DummyVecEnv(functions()), 3))
    assert stacked.single_observation_space.shape == (6,)
    assert stacked.reset()[0].shape == stacked.observation_space.shape == (4, 6)


def test_wrappers_of_gymnasium_outside():
    def wrapped(env):
        env = NormalizeReward(ClipReward(env, -1.0, 1.0))
        return DictInfoToList(RecordEpisodeStatistics(env, buffer_length=10_000))

    envs = [wrapped(adapted()), wrapped(expected())]
    for env in envs:
        env.reset(seed=0)
        env.action_space.seed(0)
    for _ in range(60):
        (_, rewards, *_), (_, wanted_rewards, *_) = (env.step(env.action_space.sample()) for env in envs)
        np.testing.assert_allclose(rewards, wanted_rewards, rtol=1e-5, atol=1e-6)
    (returns, lengths), (wanted_returns, wanted_lengths) = ((env.env.return_queue, env.env.length_queue) for env in envs)
    assert len(lengths) > 20
    assert lengths == wanted_lengths
    np.testing.assert_allclose(returns, wanted_returns, rtol=1e-5, atol=1e-5)


def test_options_count_for_one_reset():
    env = adapted()
    options = dict(shift=100)
    assert (env.reset(options=options)[0] > 50).all()
    assert options == dict(shift=100)
    assert (env.reset()[0] < 50).all()


def test_without_a_seed_two_resets_differ():
    env = adapted()
    first, _ = env.reset(seed=1)
    assert not np.array_equal(first, env.reset()[0])
    assert_same(env.reset(seed=1)[0], first)


def test_a_reset_of_some_is_refused_and_changes_nothing():
    env, untouched = adapted(), adapted()
    for one in (env, untouched):
        one.reset(seed=0)
    with pytest.raises(ValueError, match=r"^reset_mask must be True everywhere, as an SB3 VecEnv .*, got \[.*\]$"):
        env.reset(seed=5, options=dict(reset_mask=np.array([True, False, True, True])))
    options = dict(reset_mask=np.ones(4, dtype=bool))
    assert_same(env.reset(options=options)[0], untouched.reset()[0])
    assert [*options] == ["reset_mask"]


def test_attributes_and_methods():
    env = adapted()
    assert env.get_attr("number") == (0, 1, 2, 3)
    assert env.call("added", 10, y=100) == (110, 111, 112, 113)
    env.set_attr("number", 7)
    assert env.get_attr("number") == (7,) * 4
    env.set_attr("number", [1, 2, 3, 4])
    assert env.get_attr("number") == (1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"^number must have 4 values, got 2$"):
        env.set_attr("number", (1, 2))


def test_generators_are_those_of_the_environments():
    env = adapted(3)
    env.reset(seed=5)
    assert env.np_random_seed == (5, 6, 7)
    drawn = [generator.integers(1_000) for generator in env.np_random]
    assert drawn == [single.unwrapped.np_random.integers(1_000) for single in after_reset(5, 3)]


def after_reset(seed, count):
    """Environments whose generators have drawn what a reset draws."""
    envs = [make() for make in functions(count)]
    for i, env in enumerate(envs):
        env.reset(seed=seed + i)
    return envs


def test_attributes_and_methods_there_and_back():
    env = VecEnvAdapter(adapted())
    assert env.get_attr("number", indices=[3, 1]) == [3, 1]
    assert env.env_method("added", 10) == [10, 11, 12, 13]
    env.set_attr("number", 9, indices=2)
    assert env.get_attr("number") == [0, 1, 9, 3]
    assert not env.has_attr("no_such_thing")


def test_pictures():
    env = adapted(render_mode="rgb_array")
    env.reset()
    assert env.render_mode == "rgb_array"
    assert [image[0, 0, 0] for image in env.render()] == [0, 10, 20, 30]
    assert adapted().render_mode is None


def test_spaces_metadata_and_size():
    env, wanted = adapted(as_dict=True), expected(as_dict=True)
    for name in (
        "num_envs",
        "observation_space",
        "action_space",
        "single_observation_space",
        "single_action_space",
        "metadata",
    ):
        assert getattr(env, name) == getattr(wanted, name)


def test_closing_closes_the_environments_once():
    env = adapted()
    env.close()
    env.close()
    assert env.closed
    assert all(one.closed for one in env.venv.envs)


def test_the_documentation_is_true():
    result = doctest.testmod(sb3_vector)
    assert result.attempted
    assert not result.failed
