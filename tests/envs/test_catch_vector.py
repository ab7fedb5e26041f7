"""Many games: the same as one game each, and as Gymnasium's SyncVectorEnv in every mode."""

import itertools
import json
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from fw_rl.envs import CatchEnv, CatchVectorEnv
from tests.envs.helpers import GYMNASIUM_1_4

MODES = list(AutoresetMode)
SIZES = [
    {"n": 3, "m": 1},
    {"n": 5, "m": 5, "flatten": False},
    {"n": 6, "m": 2, "paddle_width": 1, "dtype": "uint8"},
    {"n": 8, "m": 3, "paddle_width": 4, "paddle_start": "center"},
]


@pytest.mark.parametrize("kwargs", SIZES)
def test_a_game_is_the_same_alone_and_among_others(kwargs):
    num_envs, n, width = 20, kwargs["n"], kwargs.get("paddle_width", 2)
    rng = np.random.default_rng(0)
    ball, paddle = rng.integers(n, size=num_envs), rng.integers(n - width + 1, size=num_envs)
    actions = rng.integers(3, size=(n - 1, num_envs))
    envs = CatchVectorEnv(num_envs, **kwargs, autoreset_mode="Disabled")
    observations, _ = envs.reset(options={"ball": ball, "paddle": paddle})
    steps = [envs.step(action) for action in actions]
    for i in range(num_envs):
        env = CatchEnv(**kwargs)
        observation, _ = env.reset(options={"ball": int(ball[i]), "paddle": int(paddle[i])})
        np.testing.assert_array_equal(observations[i], observation, strict=True)
        for action, step in zip(actions[:, i], steps, strict=True):
            observation, *rest = env.step(action)
            np.testing.assert_array_equal(step[0][i], observation, strict=True)
            assert [part[i] for part in step[1:4]] == rest[:3]
            assert step[4] == rest[3] == {}


def test_one_game_follows_the_seed_of_the_single_env():
    env, envs = CatchEnv(5, 2), CatchVectorEnv(1, 5, 2)
    observation, observations = env.reset(seed=3)[0], envs.reset(seed=3)[0]
    for action in np.random.default_rng(0).integers(3, size=40):
        np.testing.assert_array_equal(observations[0], observation)
        observation, reward, terminated, _, _ = env.step(action)
        observations, rewards, terminations, _, _ = envs.step([action])
        assert (rewards[0], terminations[0]) == (reward, terminated)
        if terminated:
            observation, _ = env.reset()


class ScriptedStarts:
    """Stands in for the generator of a CatchEnv: what it draws is given."""

    def __init__(self):
        self.columns = []

    def integers(self, high, size):
        return np.array([self.columns.pop(0)])


def random_play(envs, rng, steps):
    """Steps and resets of random masks, each as (call, argument, result)."""
    everyone = np.ones(envs.num_envs, bool)
    calls = [("reset", everyone, envs.reset(seed=0))]
    ended = ~everyone
    for _ in range(steps):
        mask = rng.random(envs.num_envs) < rng.choice([0, 0.3])
        if envs.autoreset_mode == AutoresetMode.DISABLED:
            mask |= ended
        if mask.any():
            calls.append(("reset", mask, envs.reset(options={"reset_mask": mask})))
        actions = rng.integers(3, size=envs.num_envs)
        calls.append(("step", actions, envs.step(actions)))
        ended = calls[-1][2][2]
    return calls


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kwargs", SIZES)
def test_every_call_returns_what_sync_vector_env_returns(mode, kwargs):
    num_envs, n = 7, kwargs["n"]
    envs = CatchVectorEnv(num_envs, **kwargs, autoreset_mode=mode)
    calls = random_play(envs, np.random.default_rng(1), steps=80)

    # Let the games of SyncVectorEnv begin as these did, which their first frames show.
    sync = SyncVectorEnv([lambda: CatchEnv(**kwargs)] * num_envs, autoreset_mode=mode)
    starts = [ScriptedStarts() for _ in range(num_envs)]
    for env, start in zip(sync.envs, starts, strict=True):
        env.np_random = start
    for call, argument, result in calls:
        screens = result[0].reshape(num_envs, n, n)
        for i in np.flatnonzero(screens[:, 0].any(axis=1)):
            if call == "step" or argument[i]:
                ball, paddle = screens[i, 0].argmax(), screens[i, -1].argmax()
                drawn = [ball] if "paddle_start" in kwargs else [ball, paddle]
                starts[i].columns += drawn

    for call, argument, result in calls:
        expected = sync.step(argument) if call == "step" else sync.reset(options={"reset_mask": argument})
        assert data_equivalence(result, expected, exact=True)


@pytest.mark.parametrize("mode", MODES)
def test_the_spaces_and_metadata_are_those_of_sync_vector_env(mode):
    envs = CatchVectorEnv(3, 5, 2, autoreset_mode=mode)
    sync = SyncVectorEnv([lambda: CatchEnv(5, 2)] * 3, autoreset_mode=mode)
    for name in (
        "observation_space",
        "action_space",
        "single_observation_space",
        "single_action_space",
    ):
        assert getattr(envs, name) == getattr(sync, name)
    assert envs.metadata["autoreset_mode"] is mode
    assert CatchVectorEnv.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


@pytest.mark.parametrize("n", [3, 4, 16])
@pytest.mark.parametrize("width", [1, 2])
def test_a_perfect_player_always_catches(n, width):
    ball, paddle = np.array(list(itertools.product(range(n), range(n - width + 1)))).T
    envs = CatchVectorEnv(len(ball), n, n, paddle_width=width, flatten=False)
    frames, _ = envs.reset(options={"ball": ball, "paddle": paddle})
    for _ in range(n - 1):
        target = frames[:, :-1].any(axis=1).argmax(axis=1)
        left = frames[:, -1].argmax(axis=1)
        actions = np.where(target >= left + width, 1, np.where(target < left, 2, 0))
        frames, rewards, terminations, _, _ = envs.step(actions)
    assert terminations.all()
    assert (rewards == 1).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("m", [1, 5])
def test_a_later_call_never_writes_into_returned_arrays(mode, m):
    def arrays(value):
        if isinstance(value, np.ndarray) and value.dtype == object:
            return [item for item in value if item is not None]
        if isinstance(value, dict | tuple):
            parts = value.values() if isinstance(value, dict) else value
            return [array for part in parts for array in arrays(part)]
        return [value]

    envs = CatchVectorEnv(5, 5, m, autoreset_mode=mode)
    actions = np.ones(5, int)
    results = [envs.reset(seed=0)]
    copies = [[array.copy() for array in arrays(results[0])]]
    for step in range(30):
        must_reset = mode == AutoresetMode.DISABLED and step % 5 == 4
        results.append(envs.reset() if must_reset else envs.step(actions))
        copies.append([array.copy() for array in arrays(results[-1])])
    for result, copy in zip(results, copies, strict=True):
        assert data_equivalence(arrays(result), copy, exact=True)
    for first, second in itertools.combinations([result[0] for result in results], 2):
        assert not np.shares_memory(first, second)
    # Nor does a call read what the caller writes into them.
    for result in results:
        result[0][:] = 7
    assert envs.reset()[0].max() == 1
    assert (actions == 1).all()


def test_blank_final_frames_are_shared_and_so_read_only():
    envs = CatchVectorEnv(3, 4, 2)
    envs.reset(seed=0)
    for _ in range(3):
        *_, infos = envs.step([0, 0, 0])
    for frame in infos["final_obs"]:
        assert frame in envs.single_observation_space
        assert not frame.any()
        assert not frame.flags.writeable


def test_a_seed_fixes_all_games():
    def frames(seed, mask):
        envs = CatchVectorEnv(4, 6, 1)
        results = [envs.reset(seed=seed)[0], envs.reset(options={"reset_mask": mask})[0]]
        return np.stack(results + [envs.step([0] * 4)[0] for _ in range(25)])

    mask = np.array([True, False, True, False])
    for seed in (5, [5, 6, 7, 8]):
        np.testing.assert_array_equal(frames(seed, mask), frames(seed, mask))
    np.testing.assert_array_equal(frames(np.int64(5), mask), frames(5, mask))
    others = [frames(seed, mask) for seed in (5, 6, [5, 6, 7, 8], [5, 6, 7, 9])]
    for first, second in itertools.combinations(others, 2):
        assert not np.array_equal(first, second)
    envs = CatchVectorEnv(4)
    envs.reset(seed=5)
    assert envs.np_random_seed == 5


def test_starts_are_independent_and_uniform():
    frames, _ = CatchVectorEnv(6000, 4, 1, flatten=False).reset(seed=0)
    pairs = frames[:, 0].argmax(axis=1) * 3 + frames[:, -1].argmax(axis=1)
    np.testing.assert_allclose(np.bincount(pairs, minlength=12) / 6000, 1 / 12, atol=0.015)


def test_the_starts_of_a_masked_reset():
    envs = CatchVectorEnv(4, 5, 5, flatten=False)
    envs.reset(options={"ball": 0, "paddle": [0, 1, 2, 3]})
    envs.step([0] * 4)
    options = {"ball": [4, 3, 2, 1], "reset_mask": np.array([False, True, False, True])}
    given = dict(options)
    frames, infos = envs.reset(options=options)
    assert infos == {}
    assert options == given
    np.testing.assert_array_equal(frames[:, 0].argmax(axis=1), [0, 3, 0, 1])
    np.testing.assert_array_equal(frames[:, 1].argmax(axis=1), [0, 0, 0, 0])
    assert frames[[0, 2], 1, 0].all()
    np.testing.assert_array_equal(frames[[0, 2], -1].argmax(axis=1), [0, 2])


def test_steps_that_need_a_reset():
    envs = CatchVectorEnv(2, 3, 1, autoreset_mode="Disabled", render_mode="ansi")
    mask = np.array([True, False])
    for call in (lambda: envs.step([0, 0]), envs.render):
        with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) first"):
            call()
    with pytest.raises(gym.error.ResetNeeded, match="the first reset must begin all games"):
        envs.reset(options={"reset_mask": mask})
    envs.reset()
    envs.step([0, 0])
    assert envs.step([0, 0])[2].all()
    for _ in range(2):
        with pytest.raises(gym.error.ResetNeeded, match="some episodes have ended"):
            envs.step([0, 0])
        envs.reset(options={"reset_mask": mask})
    envs.reset(options={"reset_mask": ~mask})
    assert not envs.step([0, 0])[2].any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("steps", [0, 1, 3, 4, 17])
def test_a_state_goes_on_in_other_envs(mode, steps):
    def play(envs, steps, rng):
        results = []
        for _ in range(steps):
            results.append(envs.step(rng.integers(3, size=4)))
            if mode == AutoresetMode.DISABLED and results[-1][2].any():
                results.append(envs.reset(options={"reset_mask": results[-1][2]}))
        return results

    envs, others = (CatchVectorEnv(4, 5, 2, autoreset_mode=mode, render_mode="ansi") for _ in range(2))
    envs.reset(seed=0)
    envs.reset(options={"reset_mask": np.array([True, False, True, False])})
    play(envs, steps, np.random.default_rng(0))
    state = json.loads(json.dumps(envs.get_state()))
    others.reset(seed=1)
    play(others, 3, np.random.default_rng(2))
    others.set_state(state)
    assert others.get_state() == envs.get_state() == state
    assert others.render() == envs.render()
    results = [play(each, 12, np.random.default_rng(1)) for each in (envs, others)]
    assert data_equivalence(*results, exact=True)
    assert data_equivalence(envs.reset(), others.reset(), exact=True)


def test_the_state_before_the_first_reset():
    envs, others = CatchVectorEnv(3), CatchVectorEnv(3)
    others.reset()
    others.set_state(envs.get_state())
    with pytest.raises(gym.error.ResetNeeded):
        others.step([0, 0, 0])
    assert data_equivalence(envs.reset(), others.reset(), exact=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [1, 2]}, "state['rows'] must be 3 integers from 0 to 5, got int64 of shape (2,) from 1 to 2"),
        ({"rows": [0, 1, 6]}, "state['rows'] must be 3 integers from 0 to 5"),
        ({"rows": [0, 1, 5]}, "state['rows'] must be 5 (before the first reset) for all games or none, got"),
        ({"rows": [4, 4, 5]}, "state['rows'] must be 5 (before the first reset) for all games or none, got"),
        ({"balls": [0, 1, 5]}, "state['balls'] must be 3 integers from 0 to 4"),
        ({"balls": [0, 1, -1]}, "state['balls'] must be 3 integers from 0 to 4"),
        ({"balls": [0, 1, 1.5]}, "state['balls'] must be 3 integers from 0 to 4"),
        ({"balls": [[0], [1], [1]]}, "state['balls'] must be 3 integers from 0 to 4"),
        ({"paddles": [0, 1, 4]}, "state['paddles'] must be 3 integers from 0 to 3"),
        ({"paddles": None}, "state['paddles'] must be 3 integers from 0 to 3, got"),
        ({"paddles": [2**70, 0, 0]}, "state['paddles'] must be 3 integers from 0 to 3, got"),
        ({"random": None}, "state['random'] must be that of a PCG64 generator"),
        ({"random": {}}, "state['random'] must be that of a PCG64 generator"),
        ({"random": np.random.MT19937(0).state}, "state['random'] must be that of a PCG64 generator"),
        ({"random": {"bit_generator": "PCG64"}}, "state['random'] must be that of a PCG64 generator"),
        (None, "state must be a dict with 'rows', got None"),
    ],
)
def test_bad_states_change_nothing(change, message):
    envs = CatchVectorEnv(3, 5, 2)
    envs.reset(seed=0)
    envs.step([0, 1, 2])
    state = envs.get_state()
    with pytest.raises(ValueError, match=r"^.*$") as error:
        envs.set_state(change and {**state, **change})
    assert message in str(error.value)
    assert envs.get_state() == state


def test_pictures_are_those_of_the_single_env():
    envs = CatchVectorEnv(3, 4, 1, render_mode="rgb_array")
    texts = CatchVectorEnv(3, 4, 1, render_mode="ansi")
    options = {"ball": [0, 1, 2], "paddle": [2, 1, 0]}
    for vector, mode in ((envs, "rgb_array"), (texts, "ansi")):
        vector.reset(options=options)
        vector.step([1, 1, 1])
        pictures = vector.render()
        assert isinstance(pictures, tuple)
        for i in range(3):
            env = CatchEnv(4, 1, render_mode=mode)
            env.reset(options={"ball": options["ball"][i], "paddle": options["paddle"][i]})
            env.step(1)
            np.testing.assert_array_equal(pictures[i], env.render())
    silent = CatchVectorEnv(1)
    silent.reset()
    with pytest.warns(UserWarning, match="without a render_mode"):
        assert silent.render() is None


@pytest.mark.parametrize("mode", [pytest.param(AutoresetMode.SAME_STEP, marks=GYMNASIUM_1_4), AutoresetMode.NEXT_STEP])
def test_gymnasium_wrappers_take_it(mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = RecordEpisodeStatistics(CatchVectorEnv(4, 5, 2, autoreset_mode=mode))
        envs.reset(seed=0)
        for _ in range(20):
            envs.step(envs.action_space.sample())
        assert set(envs.length_queue) == {4}
        assert set(envs.return_queue) <= {1.0, -1.0}
        envs.close()


@pytest.mark.parametrize(
    "actions",
    [[], [0, 1], [[0, 1, 2]], 1, [0, 1, 3], [0, -1, 2], [0.0, 1.0, 2.0], [True, False, True]],
)
def test_bad_actions(actions):
    envs = CatchVectorEnv(3)
    envs.reset()
    with pytest.raises(ValueError, match=r"^actions must be 3 integers of 0 \(stay\), .* got .*$"):
        envs.step(actions)


@pytest.mark.parametrize("mask", [[True, False, True], np.ones(2, bool), np.ones(3), np.zeros(3, bool), None])
def test_bad_reset_masks(mask):
    envs = CatchVectorEnv(3)
    with pytest.raises(ValueError, match=r"^reset_mask must be a boolean array of shape \(3,\)"):
        envs.reset(options={"reset_mask": mask})


@pytest.mark.parametrize("options", [{"ball": [1, 2]}, {"ball": [1, 2, 16]}, {"paddle": np.array([0, -1, 1])}, {"x": 1}])
def test_bad_options(options):
    with pytest.raises(
        ValueError,
        match=r"^(ball|paddle) must be a column from 0 to .* or an array of them, got |^options .*'x'$",
    ):
        CatchVectorEnv(3).reset(options=options)


@pytest.mark.parametrize("seed", [[1, 2], [1, 2, -3], [1, 2, None], [0.5, 1, 2], "abc"])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match=r"^seed must be an integer of at least 0 or 3 of them"):
        CatchVectorEnv(3).reset(seed=seed)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_envs": 0}, "num_envs must be an integer of at least 1, got 0"),
        ({"num_envs": 2.0}, "num_envs must be an integer of at least 1, got 2.0"),
        ({"n": 2}, "n must be an integer of at least 3, got 2"),
        ({"dtype": "O"}, "dtype must be a boolean, integer or float type, got 'O'"),
        ({"render_mode": "human"}, "render_mode must be one of rgb_array, ansi or None, got 'human'"),
        ({"autoreset_mode": "later"}, "'later' is not a valid AutoresetMode"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=r"^.*$") as error:
        CatchVectorEnv(**kwargs)
    assert message in str(error.value)


def test_distractors_are_those_of_the_single_env_and_state():
    rules = dict(n=6, m=2, distractors=3)
    env, envs = CatchEnv(**rules), CatchVectorEnv(1, **rules, autoreset_mode="Disabled")
    for seed in range(3):
        np.testing.assert_array_equal(envs.reset(seed=seed)[0][0], env.reset(seed=seed)[0])
        for _ in range(3):
            np.testing.assert_array_equal(envs.step([1])[0][0], env.step(1)[0])
    others = CatchVectorEnv(1, **rules, autoreset_mode="Disabled")
    others.set_state(envs.get_state())
    np.testing.assert_array_equal(others.step([0])[0], envs.step([0])[0])


def test_last_frames_with_distractors_are_told():
    envs = CatchVectorEnv(3, n=4, m=1, distractors=2)
    envs.reset(seed=0)
    for _ in range(3):
        _, _, terminations, _, infos = envs.step([0, 0, 0])
    assert terminations.all()
    frames = np.stack(infos["final_obs"])
    assert all(1 <= frame.sum() <= 2 for frame in frames)
    assert len({frame.tobytes() for frame in frames}) > 1
