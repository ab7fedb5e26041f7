"""The adapter of Gymnasium's vector environments against what SB3's own DummyVecEnv does with the same environments."""

import doctest
import pickle
import subprocess
import sys
from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize, VecTransposeImage

from fw_rl.envs import CatchVectorEnv, VecEnvAdapter, sb3
from fw_rl.envs.sb3 import _rows
from fw_rl.envs.vector import reset_some
from tests.envs.helpers import (
    EVERY_MODE,
    GYMNASIUM_1_4,
    MODES,
    REFUSED_TO_ACT,
    REFUSED_TO_OBSERVE,
    Blank,
    Image,
    Noisy,
    assert_same,
    functions,
)
from tests.envs.shares import Blind, Terse

RESETS_ITSELF = [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]
EVERY_OTHER_MODE = pytest.mark.parametrize("mode", RESETS_ITSELF, ids=lambda mode: mode.value)


class OwnVector(VectorEnv):
    """The least that a vector environment of one's own has: it counts to 3, and says nothing of what it does at the end."""

    def __init__(self, num_envs=2, wrap=lambda observations: observations):
        self.num_envs, self.wrap = num_envs, wrap
        self.metadata = dict(autoreset_mode=AutoresetMode.SAME_STEP)
        self.single_observation_space = spaces.Box(0, 3, (1,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.t = np.zeros((num_envs, 1), dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        self.t = np.arange(self.num_envs, dtype=np.float32)[:, None]
        return self.wrap(self.t.copy()), {}

    def step(self, actions):
        self.t += 1
        over, infos = self.t[:, 0] == 3, {}
        if over.any():
            infos = dict(final_obs=self.wrap(self.t.copy()), _final_obs=over)
            self.t[over] = 0
        return self.wrap(self.t.copy()), np.ones(self.num_envs), over, np.zeros_like(over), infos


def adapted(mode=AutoresetMode.SAME_STEP, count=4, **kwargs):
    return VecEnvAdapter(SyncVectorEnv(functions(count, **kwargs), autoreset_mode=mode))


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
        assert_same(rewards, expected_rewards)
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
        env.set_attr("invented", 3, indices=1)
        assert env.get_attr("invented") == [None, 3]
        assert env.env_is_wrapped(TimeLimit) == [False, False]
        with pytest.raises(ValueError, match=r"^indices must be None for .*, got \[0\]$"):
            env.env_method("added", 5, indices=[0])
        assert env.has_attr("number") and not env.has_attr("no_such_thing")
        for ask in (env.get_attr, env.env_method):
            with pytest.raises(AttributeError, match=r"no attribute 'no_such_thing'$"):
                ask("no_such_thing")
        assert env.step(np.zeros(2, int))[0]["vector"].shape == (2, 2)  # nobody has died of these questions
    finally:
        env.close()


@EVERY_MODE
def test_environments_in_processes_without_shared_memory(mode):
    inner = AsyncVectorEnv(functions(2), shared_memory=False, autoreset_mode=mode)
    try:
        if mode == AutoresetMode.NEXT_STEP:
            with pytest.raises(ValueError, match=r"^env must .* got AsyncVectorEnv.*, which begins them twice: .*SAME_STEP$"):
                VecEnvAdapter(inner)
        else:
            assert len(assert_same_play(VecEnvAdapter(inner), DummyVecEnv(functions(2)), steps=20)) > 3
    finally:
        inner.close()


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


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "no copy"])
@EVERY_MODE
def test_what_was_returned_is_not_written_to_later(mode, copy):
    env, rng = VecEnvAdapter(SyncVectorEnv(functions(), copy=copy, autoreset_mode=mode)), np.random.default_rng(0)
    env.seed(0)
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
    with pytest.raises(ValueError, match=r"^options must be the same for all environments of a VectorEnv, got .*$"):
        env.reset()


@pytest.mark.parametrize("env_type", [Noisy, Blank])
@EVERY_OTHER_MODE
def test_an_environment_that_ignores_the_mask_is_refused_at_once(mode, env_type):
    env = VecEnvAdapter(Blind([env_type] * 4, autoreset_mode=mode))
    with pytest.raises(ValueError, match=r"^env must .* got Blind.*, which ignores it: .*SAME_STEP$") as refusal:
        env.reset()
    assert "\n" not in str(refusal.value)


def test_a_single_environment_may_ignore_the_mask():
    blind = VecEnvAdapter(Blind([Noisy]))
    assert len(assert_same_play(blind, DummyVecEnv([Noisy]))) > 10


def test_the_cart_pole_of_gymnasium_is_refused_with_good_advice():
    with pytest.raises(
        ValueError, match=r"got CartPoleVectorEnv.*, which ignores it: make it by gym\.make_vec\(.*\)$"
    ) as refusal:
        VecEnvAdapter(gym.make_vec("CartPole-v1", 4))
    _, advice = str(refusal.value).split("make it by ")
    env = VecEnvAdapter(eval(advice, dict(gym=gym)))
    env.reset()
    assert env.num_envs == 4
    assert sum(env.step(np.full(4, t % 3 > 0, dtype=int))[2].sum() for t in range(60)) > 4
    VecEnvAdapter(gym.make_vec("CartPole-v1", 1)).reset()


@pytest.mark.parametrize("as_dict", [False, True], ids=["Box", "Dict"])
@EVERY_OTHER_MODE
def test_a_reset_may_return_the_begun_rows_alone(mode, as_dict):
    env = VecEnvAdapter(Terse(functions(as_dict=as_dict), autoreset_mode=mode))
    assert len(assert_same_play(env, DummyVecEnv(functions(as_dict=as_dict)))) > 20


def test_an_attribute_of_one_environment_is_asked_of_it_alone():
    env = VecEnvAdapter(SyncVectorEnv(functions()))
    env.set_attr("invented", 5, indices=[1])
    assert env.get_attr("invented", indices=[1]) == [5]
    with pytest.raises(AttributeError, match="invented"):
        env.get_attr("invented", indices=[0])


@pytest.mark.parametrize("told", ["easy", [1, 2, 3], [1], 7])
def test_infos_that_are_not_one_for_each_are_refused(told):
    with pytest.raises(ValueError, match=r"^infos\['mode'\] must have an entry for each of 2 environments, got"):
        _rows(dict(mode=told), 2)


def test_observations_of_other_rows_or_types_are_refused_at_the_reset():
    for wrap, got in ((lambda t: t[:1], r"the shape \(1, 1\)"), (list, "list"), (lambda t: dict(t=[*t]), "list")):
        with pytest.raises(ValueError, match=rf"^observations must be arrays of 2 rows, got {got} from .*OwnVector"):
            VecEnvAdapter(OwnVector(wrap=wrap)).reset()


READERS = {
    "index": lambda options: options["reset_mask"],
    "get": lambda options: options.get("reset_mask"),
    "pop": lambda options: options.pop("reset_mask", None),
    "in": lambda options: "reset_mask" in options,
    "loop": lambda options: [options[name] for name in options],
    "items": lambda options: [value for _, value in options.items()],
    "values": lambda options: [*options.values()],
    "dict": lambda options: dict(options),
    "unpacked": lambda options: {**options},
    "passed on": lambda options: (lambda **named: named)(**options),
    "copy": lambda options: options.copy(),
    "deepcopy": lambda options: deepcopy(options),
    "union": lambda options: options | dict(low=0),
    "union from the right": lambda options: dict(low=0) | options,
    "pickle": lambda options: pickle.dumps(options),
}


class Reading(OwnVector):
    """It does with the options what it is told."""

    def __init__(self, read):
        super().__init__()
        self.read = read

    def reset(self, *, seed=None, options=None):
        assert isinstance(options, dict)
        self.read(options)
        return super().reset(seed=seed)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_every_way_to_read_the_mask_is_noticed(read):
    observations, _ = reset_some(Reading(read), np.array([True, False]), np.zeros((2, 1)))
    assert observations.tolist() == [[0], [1]]


@pytest.mark.parametrize("read", [lambda options: options.get("low"), len, bool, lambda options: "high" in options])
def test_options_that_are_read_without_the_mask_are_noticed(read):
    for mask in ([True, False], [True, True]):
        with pytest.raises(ValueError, match=r"got Reading.* which ignores it"):
            reset_some(Reading(read), np.array(mask), np.zeros((2, 1)))


def test_options_of_a_partial_reset_reach_the_environment():
    told = []
    env = Reading(lambda options: told.append(pickle.loads(pickle.dumps(options))))
    reset_some(env, np.array([True, True]), None, None, dict(low=1))
    assert type(told[0]) is dict
    assert told[0].pop("reset_mask").all()
    assert told == [dict(low=1)]


@EVERY_OTHER_MODE
def test_to_be_adapted_leaves_the_environment_alone(mode):
    for make in (lambda: SyncVectorEnv(functions(), autoreset_mode=mode), lambda: CatchVectorEnv(4, autoreset_mode=mode)):
        env, untouched = make(), make()
        env.reset(seed=3)
        untouched.reset(seed=3)
        env.reset = None  # which is not asked
        adapter = VecEnvAdapter(env)
        del env.reset
        assert_same(adapter.reset(), untouched.reset()[0])


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


@EVERY_MODE
def test_an_attribute_is_created_in_some_environments(mode):
    env = VecEnvAdapter(SyncVectorEnv([Noisy, lambda: TimeLimit(Noisy(), 3)], autoreset_mode=mode))
    env.set_attr("invented", 3, indices=1)
    assert env.get_attr("number") == [0, 0] and not env.has_attr("invented")
    assert env.env.envs[1].get_wrapper_attr("invented") == 3
    env.set_attr("invented", 4, indices=[0])
    assert env.get_attr("invented") == [4, 3]


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
    assert [np.shape(picture) for picture in env.env_method("render")] == [np.shape(env.get_images()[0])] * 3
    state = env.env_method("get_state")
    assert len(state) == 3 and state[0] == state[1] == env.env.get_state()
    assert env.has_attr("rules") and not env.has_attr("no_such_thing")
    assert env.env_is_wrapped(TimeLimit) == [False] * 3
    for call in (lambda: env.set_attr("favourite", 4, indices=0), lambda: env.env_method("render", indices=0)):
        with pytest.raises(ValueError, match=r"^indices must be None for CatchVectorEnv.*, got 0$"):
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


def test_without_images_there_is_a_warning():
    env = adapted()
    env.reset()
    with pytest.warns(UserWarning, match="render mode is None"):
        assert env.get_images() == [None] * 4


def test_metadata_are_those_of_the_environments():
    assert VecEnvAdapter(CatchVectorEnv(2, render_mode="rgb_array")).metadata["render_fps"] == 8


def test_closing_closes_the_environments():
    env = adapted()
    inner = env.env.envs
    env.close()
    assert all(one.closed for one in inner)


def test_spaces_and_size_are_those_of_one_environment():
    env, expected = adapted(as_dict=True), DummyVecEnv(functions(as_dict=True))
    for name in ("num_envs", "observation_space", "action_space", "render_mode"):
        assert getattr(env, name) == getattr(expected, name)


@pytest.mark.parametrize("observation_space", REFUSED_TO_OBSERVE.values(), ids=REFUSED_TO_OBSERVE)
def test_observations_that_no_agent_takes_are_refused(observation_space):
    env = OwnVector()
    env.single_observation_space = observation_space
    with pytest.raises(ValueError, match=f"^observation_space must be .*, got {type(observation_space).__name__}") as refusal:
        VecEnvAdapter(env)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("action_space", REFUSED_TO_ACT.values(), ids=REFUSED_TO_ACT)
def test_actions_that_no_agent_takes_are_refused(action_space):
    env = OwnVector()
    env.single_action_space = action_space
    with pytest.raises(ValueError, match=f"^action_space must be .*, got {type(action_space).__name__}") as refusal:
        VecEnvAdapter(env)
    assert "\n" not in str(refusal.value)


def test_an_unknown_autoreset_mode_is_refused_in_one_line():
    env = OwnVector()
    env.metadata = dict(autoreset_mode="Sometimes")
    with pytest.raises(
        ValueError, match=r"^autoreset_mode must be one of NextStep, SameStep, Disabled, got 'Sometimes' .* OwnVector"
    ):
        VecEnvAdapter(env)
    env.metadata = dict(autoreset_mode="SameStep")
    VecEnvAdapter(env)


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: dict(t=t)], ids=["Box", "Dict"])
def test_a_vector_environment_of_one_s_own(wrap):
    env = VecEnvAdapter(OwnVector(wrap=wrap))
    assert_same(env.reset(), wrap(np.array([[0], [1]], np.float32)))
    env.step(np.zeros(2, int))
    observations, _, dones, infos = env.step(np.zeros(2, int))
    assert_same(observations, wrap(np.array([[2], [0]], np.float32)))
    assert dones.tolist() == [False, True]
    assert infos[0] == {}
    assert infos[1] == {"terminal_observation": wrap(np.array([3])), "TimeLimit.truncated": False}


def test_an_environment_that_hides_the_last_observation_is_refused():
    class Hiding(OwnVector):
        def step(self, actions):
            return *super().step(actions)[:4], {}

    env = VecEnvAdapter(Hiding())
    env.reset()
    env.step(np.zeros(2, int))
    with pytest.raises(ValueError, match=r"^infos\['final_obs'\] must be there .*, got none from .*Hiding.*$"):
        env.step(np.zeros(2, int))


@EVERY_MODE
def test_infos_are_numbers_of_python(mode):
    env = adapted(mode)
    env.reset()
    info = env.step(np.zeros(4, int))[3][0]
    assert {key: type(info[key]) for key in ("depth", "name", "odd")} == dict(depth=int, name=str, odd=bool)
    assert type(info["parts"]["half"]) is type(env.reset_infos[0]["born"]) is float


@EVERY_MODE
def test_infos_whose_names_begin_with_an_underscore(mode):
    class Whispering(Noisy):
        def step(self, action):
            *rest, info = super().step(action)
            return *rest, info | dict(_aside=self.depth, parts=dict(_half=1))

    envs = [lambda number=number: Whispering(number) for number in range(3)]
    assert len(assert_same_play(VecEnvAdapter(SyncVectorEnv(envs, autoreset_mode=mode)), DummyVecEnv(envs))) > 10


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


@GYMNASIUM_1_4
def test_episodes_are_told_of_that_gymnasium_has_recorded():
    recorded = RecordEpisodeStatistics(SyncVectorEnv(functions(), autoreset_mode=AutoresetMode.SAME_STEP))
    np.testing.assert_allclose(monitored(VecEnvAdapter(recorded)), monitored(VecMonitor(DummyVecEnv(functions()))), rtol=1e-5)


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
def test_pictures_can_be_stacked_and_transposed(mode):
    def wrapped(env):
        return VecFrameStack(VecTransposeImage(env), 3)

    make = [lambda number=number: Image(number) for number in range(3)]
    ends = assert_same_play(wrapped(VecEnvAdapter(SyncVectorEnv(make, autoreset_mode=mode))), wrapped(DummyVecEnv(make)))
    assert len(ends) > 20


@pytest.mark.parametrize(
    ("mode", "algorithm", "options"),
    [
        (AutoresetMode.NEXT_STEP, PPO, dict(batch_size=32, n_epochs=2)),
        (AutoresetMode.SAME_STEP, PPO, dict(batch_size=32, n_epochs=2)),
        (AutoresetMode.DISABLED, A2C, {}),
    ],
)
def test_an_algorithm_of_sb3_learns_what_it_learns_elsewhere(mode, algorithm, options):
    as_dict = algorithm is A2C
    policy = "MultiInputPolicy" if as_dict else "MlpPolicy"

    def trained(env):
        model = algorithm(policy, env, n_steps=16, seed=0, device="cpu", **options)
        model.set_logger(configure(None, []))
        model.learn(300)
        return [parameter.detach().numpy() for parameter in model.policy.parameters()]

    pairs = zip(trained(adapted(mode, as_dict=as_dict)), trained(DummyVecEnv(functions(as_dict=as_dict))), strict=True)
    for actual, expected in pairs:
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.processes
def test_the_adapters_are_imported_only_when_they_are_asked_for():
    code = """
        import sys, fw_rl.envs as envs
        assert {"VecEnvAdapter", "VectorEnvAdapter", "CatchEnv"} <= {*dir(envs)} & {*envs.__all__}
        assert not {"torch", "stable_baselines3"} & {*sys.modules}
        assert not hasattr(envs, "no_such_thing")
        from fw_rl.envs import VecEnvAdapter, VectorEnvAdapter
        assert VecEnvAdapter is envs.VecEnvAdapter is envs.sb3.VecEnvAdapter
    """
    subprocess.run([sys.executable, "-c", "if True:" + code], check=True)


def test_the_documentation_is_true():
    result = doctest.testmod(sb3)
    assert result.attempted
    assert not result.failed
