"""One game: the rules by hand, the perfect player, and what Gymnasium and SB3 ask for."""

import importlib.util
import itertools
import sys
import warnings
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3.common.env_checker as sb3_checker
from gymnasium.utils.env_checker import check_env

from fw_rl.envs import CatchEnv, CatchRules

STAY, RIGHT, LEFT = 0, 1, 2


def play(env, ball, paddle, actions):
    """The frames, rewards and terminations of one episode."""
    observation, info = env.reset(options={"ball": ball, "paddle": paddle})
    frames, rewards, terminations = [observation], [], []
    assert info == {}
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        frames.append(observation)
        rewards.append(reward)
        terminations.append(terminated)
        assert (truncated, info) == (False, {})
    return np.array(frames), rewards, terminations


def test_a_4x4_game_by_hand():
    env = CatchEnv(n=4, m=4, flatten=False)
    frames, rewards, terminations = play(env, 0, 2, [LEFT, STAY, LEFT])
    expected = [
        [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]],
        [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]],
    ]
    np.testing.assert_array_equal(frames, expected)
    assert rewards == [0, 0, 1]
    assert terminations == [False, False, True]


def test_a_3x3_game_that_is_missed_and_goes_blank():
    frames, rewards, terminations = play(CatchEnv(n=3, m=2), 2, 0, [STAY, LEFT])
    np.testing.assert_array_equal(frames, [[0, 0, 1, 0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1, 1, 1, 0], [0] * 9])
    assert rewards == [0, -1]
    assert terminations == [False, True]


def test_the_paddle_moves_before_the_ball_is_checked():
    assert play(CatchEnv(3, 1, paddle_width=1), 2, 0, [RIGHT, RIGHT])[1] == [0, 1]
    assert play(CatchEnv(3, 1, paddle_width=1), 1, 0, [RIGHT, RIGHT])[1] == [0, -1]


@pytest.mark.parametrize("width", [1, 2, 3])
def test_actions_and_walls(width):
    env = CatchEnv(6, 6, paddle_width=width, flatten=False)
    for start, action in itertools.product(range(6 - width + 1), (STAY, RIGHT, LEFT)):
        frames, _, _ = play(env, 0, start, [action] * 4)
        for step, frame in enumerate(frames):
            moved = start + step * {STAY: 0, RIGHT: 1, LEFT: -1}[action]
            left = min(max(moved, 0), 6 - width)
            assert np.flatnonzero(frame[-1]).tolist() == list(range(left, left + width))


@pytest.mark.parametrize(("n", "m"), [(3, 1), (5, 2), (8, 8), (16, 3)])
def test_m_frames_are_seen_and_all_later_ones_are_blank(n, m):
    frames, _, terminations = play(CatchEnv(n, m), 1, 0, [STAY] * (n - 1))
    assert len(frames) == n
    assert terminations == [False] * (n - 2) + [True]
    assert [frame.any() for frame in frames] == [frame < m for frame in range(n)]


@pytest.mark.parametrize(("n", "m", "width"), [(3, 1, 2), (4, 4, 1), (7, 2, 3), (9, 5, 8), (16, 3, 2), (16, 16, 1)])
def test_a_perfect_player_always_catches(n, m, width):
    """It sees the first frame, remembers it, and knows its own moves."""
    env = CatchEnv(n, m, paddle_width=width, flatten=False)
    for ball, paddle in itertools.product(range(n), range(n - width + 1)):
        frame, _ = env.reset(options={"ball": ball, "paddle": paddle})
        target, left = np.flatnonzero(frame[0])[0], np.flatnonzero(frame[-1])[0]
        terminated, steps = False, 0
        while not terminated:
            move = int(target >= left + width) - int(target < left)
            left += move
            _, reward, terminated, _, _ = env.step({0: STAY, 1: RIGHT, -1: LEFT}[move])
            steps += 1
        assert (reward, steps) == (1, n - 1)


def test_starts_are_uniform_and_cover_the_screen():
    env = CatchEnv(4, 1, flatten=False)
    env.reset(seed=0)
    frames = np.array([env.reset()[0] for _ in range(1200)])
    balls = frames[:, 0].mean(axis=0)
    paddles = np.bincount(frames[:, -1].argmax(axis=1)) / len(frames)
    np.testing.assert_allclose(balls, 1 / 4, atol=0.05)
    np.testing.assert_allclose(paddles, 1 / 3, atol=0.05)


@pytest.mark.parametrize(("start", "column"), [("center", 7), (0, 0), (14, 14), (np.int64(3), 3)])
def test_paddle_start(start, column):
    env = CatchEnv(16, 3, paddle_start=start, flatten=False)
    for _ in range(5):
        assert env.reset()[0][-1].nonzero()[0].tolist() == [column, column + 1]


def test_a_seed_fixes_the_episodes_whatever_start_is_fixed():
    def episodes(seed, **options):
        env = CatchEnv()
        return [env.reset(seed=seed, options=options)[0]] + [env.reset()[0] for _ in range(9)]

    np.testing.assert_array_equal(episodes(7), episodes(7))
    np.testing.assert_array_equal(episodes(7)[1:], episodes(7, ball=0, paddle=0)[1:])
    assert not np.array_equal(episodes(7), episodes(8))


@pytest.mark.parametrize("dtype", ["float32", "uint8", bool, np.int8, np.float64])
@pytest.mark.parametrize("flatten", [True, False])
def test_observations_have_the_type_and_shape_asked_for(dtype, flatten):
    env = CatchEnv(5, 1, dtype=dtype, flatten=flatten)
    env.reset(seed=0)
    for observation in (env.reset()[0], env.step(STAY)[0]):
        assert observation.dtype == np.dtype(dtype)
        assert observation.shape == ((25,) if flatten else (5, 5))
        assert observation in env.observation_space


@pytest.mark.parametrize("kwargs", [{}, {"n": 5, "m": 5}, {"dtype": "uint8"}])
@pytest.mark.parametrize("render_mode", [None, "rgb_array", "ansi"])
def test_the_checkers_of_gymnasium_and_sb3_have_nothing_to_say(kwargs, render_mode, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame_is_missing = importlib.util.find_spec("pygame") is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make("fw_rl/Catch-v0", render_mode=render_mode, **kwargs).unwrapped
        check_env(env, skip_render_check=pygame_is_missing)
        sb3_checker.check_env(env)


def test_returned_frames_are_new_and_writable():
    env = CatchEnv(4, 2)
    frames = [env.reset()[0]] + [env.step(STAY)[0] for _ in range(3)]
    copies = [frame.copy() for frame in frames]
    env.reset()[0][:] = 5
    np.testing.assert_array_equal(frames, copies)
    assert all(frame.flags.writeable for frame in frames)


def test_steps_outside_an_episode():
    env = CatchEnv(3, 1, render_mode="ansi")
    with pytest.raises(gym.error.ResetNeeded):
        env.step(STAY)
    with pytest.raises(gym.error.ResetNeeded):
        env.render()
    play(env, 0, 0, [STAY, STAY])
    with pytest.raises(gym.error.ResetNeeded):
        env.step(STAY)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n": 2}, "n must be an integer of at least 3, got 2"),
        ({"n": 16.0}, "n must be an integer of at least 3, got 16.0"),
        ({"n": True}, "n must be an integer of at least 3, got True"),
        ({"n": "16"}, "n must be an integer of at least 3, got '16'"),
        ({"m": 0}, "m must be an integer from 1 to n = 16, got 0"),
        ({"m": 17}, "m must be an integer from 1 to n = 16, got 17"),
        ({"m": None}, "m must be an integer from 1 to n = 16, got None"),
        ({"paddle_width": 0}, "paddle_width must be an integer from 1 to n - 1 = 15, got 0"),
        ({"paddle_width": 16}, "paddle_width must be an integer from 1 to n - 1 = 15, got 16"),
        ({"paddle_start": 15}, "or a column from 0 to n - paddle_width = 14, got 15"),
        ({"paddle_start": -1}, "or a column from 0 to n - paddle_width = 14, got -1"),
        ({"paddle_start": "left"}, "paddle_start must be 'random', 'center' or a column"),
        ({"paddle_start": False}, "paddle_start must be 'random', 'center' or a column"),
        ({"dtype": "complex64"}, "dtype must be a boolean, integer or float type"),
        ({"dtype": "pixels"}, "dtype must be a boolean, integer or float type, got 'pixels'"),
        ({"render_mode": "svg"}, "render_mode must be one of"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match="must be") as error:
        CatchEnv(**kwargs)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bal": 3}, "options must be among ball, paddle, got 'bal'"),
        ({"ball": 16}, "ball must be a column from 0 to 15, got 16"),
        ({"ball": -1}, "ball must be a column from 0 to 15, got -1"),
        ({"paddle": 15}, "paddle must be a column from 0 to 14, got 15"),
        ({"paddle": 1.0}, "paddle must be a column from 0 to 14, got 1.0"),
        ({"paddle": [1, 2]}, "must be a column from 0 to 14, got int64 of shape (2,) from 1 to 2"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=r"^(ball|paddle|options) must be") as error:
        CatchEnv().reset(options=options)
    assert message in str(error.value)


@pytest.mark.parametrize("action", [3, -1, 1.0, None])
def test_bad_actions(action):
    env = CatchEnv()
    env.reset()
    with pytest.raises(ValueError, match=r"^action must be 0 \(stay\), 1 \(right\) or 2 \(left\), got"):
        env.step(action)


def center(image, n, row, column):
    """The colour in the middle of a cell."""
    margin = 6
    cell = (len(image) - 2 * margin) / n
    y, x = ((index + 0.5) * cell + margin for index in (row, column))
    return image[int(y), int(x)].astype(int)


@pytest.mark.parametrize("n", [3, 16, 24, 50, 100])
def test_pictures_show_what_is_seen_and_dim_what_is_hidden(n):
    env = CatchEnv(n, 1, render_mode="rgb_array")
    env.reset(options={"ball": 0, "paddle": 1})
    seen = env.render()
    env.step(STAY)
    blank = env.render()
    for image in (seen, blank):
        assert image.dtype == np.uint8
        assert image.shape == (len(image), len(image), 3)
        assert 250 <= len(image) <= 412
        assert len(image) % 2 == 0
    for row, image in enumerate((seen, blank)):
        ball, paddle, empty = (center(image, n, *at) for at in ((row, 0), (n - 1, 1), (1 - row, 1)))
        assert ball[0] > paddle[0] > empty[0]  # a warm ball, a cool paddle, a dark screen
        assert paddle[2] > ball[2] > empty[2]
    assert center(blank, n, 1, 0).sum() < 0.7 * center(seen, n, 0, 0).sum()
    assert center(blank, n, n - 1, 1).sum() < 0.7 * center(seen, n, n - 1, 1).sum()
    assert blank[0, 0].sum() < 0.5 * seen[0, 0].sum()  # the border


def test_text():
    env = CatchEnv(4, 1, render_mode="ansi")
    env.reset(options={"ball": 3, "paddle": 0})
    assert env.render().splitlines() == [
        "frame 1 of 4: seen", "+----+", "|...O|", "|....|", "|....|", "|==..|", "+----+",
    ]  # fmt: skip
    env.step(RIGHT)
    assert env.render().splitlines() == [
        "frame 2 of 4: blank", "+----+", "|    |", "|   o|", "|    |", "| -- |", "+----+",
    ]  # fmt: skip


def test_render_without_a_mode_warns():
    env = CatchEnv()
    env.reset()
    with pytest.warns(UserWarning, match="without a render_mode"):
        assert env.render() is None


def test_a_window_without_pygame(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    env = CatchEnv(render_mode="human")
    with pytest.raises(gym.error.DependencyNotInstalled, match=r"pip install .fw-rl\[human\]"):
        env.reset()
    env.close()


def test_a_window(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame = pytest.importorskip("pygame")
    env = CatchEnv(render_mode="human")
    env.metadata = {**env.metadata, "render_fps": 1000}
    env.reset(seed=0)
    env.step(RIGHT)
    assert pygame.display.get_surface().get_size() == (300, 300)
    env.close()
    env.close()
    assert pygame.display.get_surface() is None


def test_rules_are_the_same_for_one_game_and_for_many():
    rules = CatchRules(6, 4, paddle_width=3, distractors=2)
    rng = np.random.default_rng(0)
    row, ball, paddle, key = rng.integers(6, size=50), *rules.start(partial(rng.integers, size=50))
    actions = rng.integers(3, size=50)
    moved, reward = rules.move(paddle, actions), rules.reward(row, ball, paddle)
    frames = rules.screen(row, ball, paddle, key, np.uint8)
    for i in range(50):
        game = row[i : i + 1], ball[i : i + 1], paddle[i : i + 1]
        assert rules.move(game[2], actions[i : i + 1]) == moved[i]
        assert rules.reward(*game) == reward[i]
        np.testing.assert_array_equal(rules.screen(*game, key[i : i + 1], np.uint8)[0], frames[i])


@pytest.mark.parametrize(("n", "m", "distractors"), [(5, 2, 1), (6, 1, 4), (4, 4, 3)])
def test_distractors_light_up_in_blank_frames_and_change_nothing_else(n, m, distractors):
    plain = play(CatchEnv(n, m), 1, 0, [STAY] * (n - 1))
    frames, *outcome = play(CatchEnv(n, m, distractors=distractors), 1, 0, [STAY] * (n - 1))
    np.testing.assert_array_equal(frames[:m], plain[0][:m])
    assert tuple(outcome) == plain[1:]
    for frame in frames[m:]:
        assert set(np.unique(frame)) <= {0, 1}
        assert 1 <= frame.sum() <= distractors


def test_distractors_are_anywhere_and_differ_between_frames_and_games():
    env = CatchEnv(4, 1, distractors=2)
    env.reset(seed=0)
    games = np.array([play(env, 0, 0, [STAY] * 3)[0][1:] for _ in range(2000)])  # [games, frames, pixels]
    np.testing.assert_allclose(games.mean(axis=0), 1 - (15 / 16) ** 2, atol=0.03)
    for one, other in itertools.combinations(range(3), 2):
        together = (games[:, one, :, None] * games[:, other, None, :]).mean(axis=0)
        np.testing.assert_allclose(together, (1 - (15 / 16) ** 2) ** 2, atol=0.02)


def test_what_is_drawn_is_what_the_player_sees():
    env = CatchEnv(6, 1, distractors=3, flatten=False, render_mode="ansi")
    env.reset(seed=3)
    for _ in range(5):
        frame = env.step(STAY)[0]
        lines = env.render().splitlines()[2:-1]
        assert [[mark == "*" for mark in line[1:-1]] for line in lines] == frame.astype(bool).tolist()
    rgb = CatchEnv(6, 1, distractors=3, flatten=False, render_mode="rgb_array")
    rgb.reset(seed=3)
    frame = rgb.step(STAY)[0]
    cells = rgb.render()[6:-6, 6:-6].reshape(6, 48, 6, 48, 3)[:, 24, :, 24].mean(axis=-1)
    assert (cells > 200).tolist() == frame.astype(bool).tolist()


@pytest.mark.parametrize("distractors", [-1, 9, 1.0, True])
def test_an_impossible_number_of_distractors_is_refused(distractors):
    with pytest.raises(ValueError, match=r"distractors must be an integer from 0 to n \* n - 1 = 8"):
        CatchEnv(3, 1, distractors=distractors)
