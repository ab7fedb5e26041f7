"""The adapter of Gymnasium's vector environments against what SB3's own DummyVecEnv does with the same environments."""

import doctest
import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from fw_rl.envs import CatchVectorEnv, sb3
from fw_rl.envs.sb3 import VecEnvAdapter

MODES = list(AutoresetMode)
EVERY_MODE = pytest.mark.parametrize("mode", MODES, ids=[mode.value for mode in MODES])


class Noisy(gym.Env):
    """Random numbers everywhere; an episode ends by chance, as it should, by a cut, or as both at once."""

    metadata = dict(render_modes=["rgb_array"])  # noqa: RUF012 (gymnasium.Env declares its type)

    def __init__(self, number=0, as_dict=False, end_probability=0.15, render_mode=None):
        self.number, self.as_dict, self.end_probability, self.render_mode = number, as_dict, end_probability, render_mode
        vector = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = spaces.Dict(dict(vector=vector, coin=spaces.Discrete(2))) if as_dict else vector
        self.action_space = spaces.Discrete(3)
        self.closed = False

    def _observe(self):
        vector = (self.np_random.normal(size=2) + self.shift).astype(np.float32)
        return dict(vector=vector, coin=int(self.np_random.integers(2))) if self.as_dict else vector

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.depth, self.shift = 0, (options or {}).get("shift", 0)
        return self._observe(), dict(born=float(self.np_random.random()))

    def step(self, action):
        self.depth += 1
        terminated, truncated = self.np_random.random(2) < self.end_probability
        info = dict(depth=self.depth, name=f"{self.number} at {self.depth}", parts=dict(half=self.depth / 2))
        if self.depth % 2:
            info |= dict(odd=True, vector=self.np_random.normal(size=2))
        return self._observe(), float(action) + self.np_random.normal(), bool(terminated), bool(truncated), info

    def render(self):
        return np.full((4, 4, 3), 10 * self.number, dtype=np.uint8)

    def close(self):
        self.closed = True

    def added(self, x, y=0):
        return self.number + x + y


def functions(count=4, **kwargs):
    return [functools.partial(Noisy, number=number, **kwargs) for number in range(count)]


def adapted(mode=AutoresetMode.SAME_STEP, count=4, **kwargs):
    return VecEnvAdapter(SyncVectorEnv(functions(count, **kwargs), autoreset_mode=mode))


def assert_same(actual, expected):
    """Equal arrays, numbers, texts, or dictionaries of them."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(actual[key], value)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(actual, expected)
        assert np.asarray(actual).dtype == expected.dtype
    else:
        assert actual == expected


def without_absent_time_limit(info):
    """DummyVecEnv says of every step that no time limit ended an episode; here only of ended ones."""
    return {key: value for key, value in info.items() if key != "TimeLimit.truncated" or "terminal_observation" in info}


def assert_same_play(actual, expected, steps=80, seed=0):
    """Two vector environments do the same, step by step; returns how their episodes ended."""
    rng, ends = np.random.default_rng(seed), []
    for env in (actual, expected):
        env.seed(seed)
    assert_same(actual.reset(), expected.reset())
    assert_same_infos(actual.reset_infos, expected.reset_infos)
    for _ in range(steps):
        actions = rng.integers(3, size=expected.num_envs)
        observations, rewards, dones, infos = actual.step(actions)
        expected_observations, expected_rewards, expected_dones, expected_infos = expected.step(actions)
        assert_same(observations, expected_observations)
        np.testing.assert_allclose(rewards, expected_rewards, rtol=1e-6)
        assert_same(dones, expected_dones)
        assert_same_infos(infos, expected_infos)
        assert_same_infos(actual.reset_infos, expected.reset_infos)
        ends += [info["TimeLimit.truncated"] for info, done in zip(infos, dones, strict=True) if done]
    return ends


def assert_same_infos(actual, expected):
    assert isinstance(actual, list)
    for one, other in zip(actual, expected, strict=True):
        assert_same(without_absent_time_limit(one), without_absent_time_limit(other))


@pytest.mark.parametrize("as_dict", [False, True], ids=["Box", "Dict"])
@EVERY_MODE
def test_every_step_is_that_of_dummy_vec_env(mode, as_dict):
    ends = assert_same_play(adapted(mode, as_dict=as_dict), DummyVecEnv(functions(as_dict=as_dict)))
    assert ends.count(True) > 10
    assert ends.count(False) > 10


@EVERY_MODE
def test_a_single_environment(mode):
    assert len(assert_same_play(adapted(mode, count=1), DummyVecEnv(functions(1)))) > 10


@EVERY_MODE
def test_episodes_of_one_step(mode):
    ends = assert_same_play(adapted(mode, end_probability=1.0), DummyVecEnv(functions(end_probability=1.0)), steps=5)
    assert ends == [False] * 20


@EVERY_MODE
def test_environments_that_show_every_step_in_the_same_array(mode):
    env = VecEnvAdapter(SyncVectorEnv(functions(), copy=False, autoreset_mode=mode))
    assert len(assert_same_play(env, DummyVecEnv(functions()))) > 20


@EVERY_MODE
def test_a_time_limit(mode):
    limited = [lambda number=number: TimeLimit(Noisy(number, end_probability=0.0), 2 + number) for number in range(3)]
    ends = assert_same_play(VecEnvAdapter(SyncVectorEnv(limited, autoreset_mode=mode)), DummyVecEnv(limited), steps=12)
    assert ends == [True] * (6 + 4 + 3)


@EVERY_MODE
def test_environments_in_processes(mode):
    env = VecEnvAdapter(AsyncVectorEnv(functions(2, as_dict=True), autoreset_mode=mode))
    try:
        assert len(assert_same_play(env, DummyVecEnv(functions(2, as_dict=True)), steps=20)) > 3
        assert env.get_attr("number") == [0, 1]
        assert env.env_method("added", 5, y=1) == [6, 7]
        env.set_attr("number", 8, indices=1)
        assert env.get_attr("number") == [0, 8]
        assert env.env_is_wrapped(TimeLimit) == [False, False]
        with pytest.raises(ValueError, match="leave indices out"):
            env.env_method("added", 5, indices=[0])
    finally:
        env.close()


def test_catch_is_the_same_in_every_mode():
    envs = [VecEnvAdapter(CatchVectorEnv(5, 6, 2, autoreset_mode=mode)) for mode in MODES]
    rng = np.random.default_rng(0)
    for env in envs:
        env.seed(3)
    first, *others = (env.reset() for env in envs)
    for other in others:
        assert_same(other, first)
    for _ in range(30):
        actions = rng.integers(3, size=5)
        first, *others = (env.step(actions) for env in envs)
        for other in others:
            for part, first_part in zip(other[:3], first[:3], strict=True):
                assert_same(part, first_part)
            assert_same_infos(other[3], first[3])
        assert all(
            set(info) == ({"terminal_observation", "TimeLimit.truncated"} if done else set())
            for info, done in zip(first[3], first[2], strict=True)
        )


@EVERY_MODE
def test_what_was_returned_is_not_written_to_later(mode):
    env, rng = adapted(mode), np.random.default_rng(0)
    returned = [env.reset()]
    terminal = []
    for _ in range(40):
        observations, rewards, dones, infos = env.step(rng.integers(3, size=4))
        returned += [observations, rewards, dones]
        terminal += [info["terminal_observation"] for info in infos if "terminal_observation" in info]
        if len(returned) == 31:
            copies = [array.copy() for array in (*returned, *terminal)]
            kept = [*returned, *terminal]
    assert len(kept) > 35
    for array, copied in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copied)


def test_a_seed_fixes_the_play_and_counts_for_one_reset():
    def first_observations(env, seed):
        env.seed(seed)
        return env.reset()

    for env in (adapted(), VecEnvAdapter(CatchVectorEnv(4))):
        one, again, other = (first_observations(env, seed) for seed in (1, 1, 2))
        assert_same(one, again)
        assert not np.array_equal(one, other)
        assert not np.array_equal(other, env.reset())
    env = adapted()
    assert env.seed(7) == [7, 8, 9, 10]
    env.reset()
    assert env.get_attr("np_random_seed") == [7, 8, 9, 10]


def test_without_a_seed_two_resets_differ():
    env = adapted()
    assert not np.array_equal(env.reset(), env.reset())


def test_options_count_for_one_reset():
    env = adapted()
    env.set_options(dict(shift=100))
    assert (env.reset() > 50).all()
    assert (env.reset() < 50).all()
    env.set_options([dict(shift=100)] * 4)
    assert (env.reset() > 50).all()
    env = VecEnvAdapter(CatchVectorEnv(3, 5, 2))
    env.set_options(dict(ball=4, paddle=0))
    assert (env.reset().reshape(3, 5, 5)[:, 0, 4] == 1).all()


def test_options_that_differ_are_refused_in_one_line():
    env = adapted()
    env.set_options([dict(shift=number) for number in range(4)])
    with pytest.raises(ValueError, match=r"^the reset options differ between environments.*$"):
        env.reset()


class Stubborn(SyncVectorEnv):
    """Begins all episodes at once, whatever it is asked for."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)


@pytest.mark.parametrize("as_dict", [False, True], ids=["Box", "Dict"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED], ids=lambda mode: mode.value)
def test_an_environment_that_begins_more_than_it_was_asked_to_is_refused_in_one_line(mode, as_dict):
    env = VecEnvAdapter(Stubborn(functions(as_dict=as_dict), autoreset_mode=mode))
    env.seed(0)
    env.reset()
    with pytest.raises(RuntimeError, match=r"^.* resets every episode at once: .*SAME_STEP$") as refusal:
        for _ in range(30):
            env.step(np.zeros(4, int))
    assert "\n" not in str(refusal.value)


def test_a_stubborn_environment_is_fine_while_all_episodes_end_together():
    stubborn = VecEnvAdapter(Stubborn(functions(end_probability=1.0), autoreset_mode=AutoresetMode.NEXT_STEP))
    assert_same_play(stubborn, DummyVecEnv(functions(end_probability=1.0)), steps=3)


def test_attributes():
    env = adapted()
    assert env.get_attr("number") == [0, 1, 2, 3]
    assert env.get_attr("number", indices=2) == [2]
    assert env.get_attr("number", indices=[3, 1]) == [3, 1]
    env.set_attr("number", 7)
    assert env.get_attr("number") == [7] * 4
    env.set_attr("number", 8, indices=[1, 3])
    assert env.get_attr("number") == [7, 8, 7, 8]
    env.set_attr("number", [1, 2], indices=0)
    assert env.get_attr("number") == [[1, 2], 8, 7, 8]
    assert env.has_attr("number")
    assert not env.has_attr("no_such_thing")


def test_attributes_behind_a_wrapper():
    env = VecEnvAdapter(SyncVectorEnv([lambda: TimeLimit(Noisy(5), 3)] * 2, autoreset_mode=AutoresetMode.SAME_STEP))
    env.set_attr("number", 6, indices=0)
    assert env.get_attr("number") == [6, 5]
    assert env.env_method("added", 1) == [7, 6]


def test_methods():
    env = adapted()
    assert env.env_method("added", 10) == [10, 11, 12, 13]
    assert env.env_method("added", 10, y=100, indices=[2]) == [112]
    assert env.env_method("added", 10, indices=3) == [13]


def test_attributes_and_methods_of_games_that_are_one_object():
    env = VecEnvAdapter(CatchVectorEnv(3, 5, 2, render_mode="rgb_array"))
    assert [rules.n for rules in env.get_attr("rules")] == [5] * 3
    assert len(env.get_attr("rules", indices=[1])) == 1
    env.set_attr("favourite", 3)
    assert env.get_attr("favourite") == [3, 3, 3]
    env.reset()
    assert len(env.env_method("render")) == 3
    assert env.env_is_wrapped(TimeLimit) == [False] * 3
    for call in (lambda: env.set_attr("favourite", 4, indices=0), lambda: env.env_method("render", indices=0)):
        with pytest.raises(ValueError, match=r"^.*leave indices out$"):
            call()


def test_wrappers():
    wrapped = SyncVectorEnv([Noisy, lambda: TimeLimit(Noisy(), 3), Noisy], autoreset_mode=AutoresetMode.SAME_STEP)
    env = VecEnvAdapter(wrapped)
    assert env.env_is_wrapped(TimeLimit) == [False, True, False]
    assert env.env_is_wrapped(TimeLimit, indices=1) == [True]
    assert env.env_is_wrapped(Monitor) == [False] * 3


def test_pictures():
    env = adapted(render_mode="rgb_array")
    env.reset()
    assert env.render_mode == "rgb_array"
    assert [image[0, 0, 0] for image in env.get_images()] == [0, 10, 20, 30]
    assert env.render().shape == (8, 8, 3)
    catch = VecEnvAdapter(CatchVectorEnv(2, 5, 2, render_mode="rgb_array"))
    catch.reset()
    assert all(image.ndim == 3 and image.dtype == np.uint8 for image in catch.get_images())


def test_closing_closes_the_environments():
    env = adapted()
    inner = env.env.envs
    env.close()
    assert all(one.closed for one in inner)


def test_spaces_and_size_are_those_of_one_environment():
    env, expected = adapted(as_dict=True), DummyVecEnv(functions(as_dict=True))
    for name in ("num_envs", "observation_space", "action_space", "render_mode"):
        assert getattr(env, name) == getattr(expected, name)


class OwnVector(VectorEnv):
    """The least that a vector environment of one's own has: it counts to 3, and says nothing of what it does at the end."""

    def __init__(self, num_envs=2):
        self.num_envs = num_envs
        self.metadata = dict(autoreset_mode=AutoresetMode.SAME_STEP)
        self.single_observation_space = spaces.Box(0, 3, (1,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.t = np.zeros((num_envs, 1), dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        self.t = np.arange(self.num_envs, dtype=np.float32)[:, None]
        return self.t.copy(), {}

    def step(self, actions):
        self.t += 1
        over, infos = self.t[:, 0] == 3, {}
        if over.any():
            infos = dict(final_obs=self.t.copy(), _final_obs=over)
            self.t[over] = 0
        return self.t.copy(), np.ones(self.num_envs), over, np.zeros_like(over), infos


def test_a_vector_environment_of_one_s_own():
    env = VecEnvAdapter(OwnVector())
    assert env.reset().tolist() == [[0], [1]]
    env.step(np.zeros(2, int))
    observations, _, dones, infos = env.step(np.zeros(2, int))
    assert observations.tolist() == [[2], [0]]
    assert dones.tolist() == [False, True]
    assert infos[0] == {}
    assert infos[1] == {"terminal_observation": np.array([3]), "TimeLimit.truncated": False}


def monitored(env, steps=60):
    """The return and the length of every episode that is reported, with its environment and step."""
    env.seed(0)
    env.reset()
    rng, episodes = np.random.default_rng(0), []
    for t in range(steps):
        *_, infos = env.step(rng.integers(3, size=4))
        episodes += [(t, i, info["episode"]["r"], info["episode"]["l"]) for i, info in enumerate(infos) if "episode" in info]
    return np.array(episodes, dtype=np.float64)


@EVERY_MODE
def test_episodes_are_monitored_as_by_sb3(mode):
    expected = monitored(VecMonitor(DummyVecEnv(functions())))
    assert len(expected) > 20
    np.testing.assert_allclose(monitored(VecMonitor(adapted(mode))), expected, rtol=1e-5)
    own = VecEnvAdapter(SyncVectorEnv(functions(), autoreset_mode=mode), monitor=True)
    np.testing.assert_allclose(monitored(own), expected, rtol=1e-4, atol=1e-6)
    assert len(monitored(adapted(mode))) == 0


@EVERY_MODE
def test_a_reset_of_all_begins_the_monitored_episodes_anew(mode):
    env = VecEnvAdapter(
        SyncVectorEnv([lambda: TimeLimit(Noisy(end_probability=0.0), 3)] * 2, autoreset_mode=mode), monitor=True
    )
    env.reset()
    env.step(np.zeros(2, int))
    env.reset()
    lengths = []
    for _ in range(7):
        lengths += [info["episode"]["l"] for info in env.step(np.zeros(2, int))[3] if "episode" in info]
    assert lengths == [3] * 4


@EVERY_MODE
def test_it_can_be_normalized(mode):
    envs = [VecNormalize(env, gamma=0.9) for env in (adapted(mode), DummyVecEnv(functions()))]
    ends = 0
    for env in envs:
        env.seed(0)
    np.testing.assert_allclose(*[env.reset() for env in envs], rtol=1e-5, atol=1e-6)
    for t in range(40):
        (observations, rewards, dones, infos), expected = (env.step(np.full(4, t % 3)) for env in envs)
        np.testing.assert_allclose(observations, expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(rewards, expected[1], rtol=1e-4, atol=1e-5)
        for i in np.flatnonzero(dones):
            pair = (info[i]["terminal_observation"] for info in (infos, expected[3]))
            np.testing.assert_allclose(*pair, rtol=1e-5, atol=1e-6)
            ends += 1
    assert ends > 10


@EVERY_MODE
def test_an_algorithm_of_sb3_learns_on_it_what_it_learns_on_its_own(mode):
    def trained(env):
        model = PPO("MlpPolicy", env, n_steps=16, batch_size=32, n_epochs=2, seed=0, device="cpu")
        model.set_logger(configure(None, []))
        model.learn(150)
        return [parameter.detach().numpy() for parameter in model.policy.parameters()]

    for actual, expected in zip(trained(adapted(mode)), trained(DummyVecEnv(functions())), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5)


def test_the_documentation_is_true():
    result = doctest.testmod(sb3)
    assert result.attempted
    assert not result.failed
