"""Environments of a game: the same as Gymnasium's SyncVectorEnv around single ones in every mode, and what they refuse."""

import json
from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from fw_rl.envs import Game, GameEnv, GameVectorEnv, RetrievalGame
from tests.envs.helpers import EVERY_MODE


class Countdown(Game):
    """Terminates after a random number of steps, or is truncated before by action 2; a step earns what is left."""

    def __init__(self, longest=6):
        self.longest = longest
        self.observation_space = spaces.MultiDiscrete([longest + 1, 3])
        self.action_space = spaces.Discrete(3)

    def begin(self, rng, num):
        return dict(left=rng.integers(1, self.longest, size=num), last=np.zeros(num, np.int64))

    def step(self, state, actions, rng):
        state["left"] -= 1
        state["last"] = actions
        return state["left"] * 1.0, state["left"] == 0, actions == 2

    def observe(self, state):
        return np.stack([state["left"], state["last"]], axis=1)


class Torque(Countdown):
    """The same with a number for an action, which is not looked at, and with another observation."""

    def __init__(self):
        super().__init__()
        self.action_space = spaces.Box(-2, 2, (1,))
        self.observation_space = spaces.Discrete(7)

    def step(self, state, actions, rng):
        return super().step(state, np.zeros(len(actions), np.int64), rng)

    def observe(self, state):
        return state["left"].copy()


GAMES = pytest.mark.parametrize("game", [Countdown, Torque])


class Given:
    """Stands in for the generator of a single environment: what it draws is given."""

    def __init__(self):
        self.draws = []

    def integers(self, low, high, size):
        return np.array([self.draws.pop(0)])


def random_play(envs, rng, steps):
    """Steps and resets of random masks, as (call, argument, result, state)."""
    calls = []
    ended = np.ones(envs.num_envs, bool)
    envs.action_space.seed(0)
    calls.append(("reset", ended, envs.reset(seed=0), envs.get_state()))
    ended = ~ended
    for _ in range(steps):
        mask = rng.random(envs.num_envs) < rng.choice([0, 0.3])
        if envs.autoreset_mode == AutoresetMode.DISABLED:
            mask |= ended
        if mask.any():
            calls.append(("reset", mask, envs.reset(options={"reset_mask": mask}), envs.get_state()))
        actions = envs.action_space.sample()
        calls.append(("step", actions, envs.step(actions), envs.get_state()))
        ended = calls[-1][2][2] | calls[-1][2][3]
    return calls


@GAMES
@EVERY_MODE
def test_every_call_returns_what_sync_vector_env_returns(game, mode):
    num_envs = 7
    calls = random_play(GameVectorEnv(game, num_envs, autoreset_mode=mode), np.random.default_rng(1), steps=80)
    sync = SyncVectorEnv([lambda: GameEnv(game)] * num_envs, autoreset_mode=mode)
    generators = [Given() for _ in range(num_envs)]
    for env, generator in zip(sync.envs, generators, strict=True):
        env.np_random = generator
    for call, argument, result, state in calls:
        for i in np.flatnonzero(state["t"] == 0):
            if call == "step" or argument[i]:
                generators[i].draws.append(state["left"][i])
        expected = sync.step(argument) if call == "step" else sync.reset(options={"reset_mask": argument})
        assert data_equivalence(deepcopy(result), expected, exact=True)
    assert all(generator.draws == [] for generator in generators)
    assert {call for call, *_ in calls} == {"reset", "step"}


@GAMES
@EVERY_MODE
def test_the_spaces_and_metadata_are_those_of_sync_vector_env(game, mode):
    envs, sync = GameVectorEnv(game, 3, autoreset_mode=mode), SyncVectorEnv([lambda: GameEnv(game)] * 3, autoreset_mode=mode)
    for name in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(envs, name) == getattr(sync, name)
    assert envs.metadata["autoreset_mode"] is mode
    assert GameVectorEnv.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


@EVERY_MODE
def test_a_later_call_never_writes_into_returned_arrays(mode):
    envs = GameVectorEnv(Countdown, 5, autoreset_mode=mode)
    copies = []

    class Copying:
        """The environments, with a copy of whatever they return."""

        def __getattr__(self, name):
            found = getattr(envs, name)
            if name not in ("reset", "step"):
                return found

            def call(*arguments, **options):
                result = found(*arguments, **options)
                copies.append(deepcopy(result))
                return result

            return call

    calls = random_play(Copying(), np.random.default_rng(0), 30)
    assert len(copies) == len(calls) and data_equivalence([result for _, _, result, _ in calls], copies, exact=True)


class FromOne(Countdown):
    """A game whose actions count from one."""

    def __init__(self):
        super().__init__()
        self.action_space = spaces.Discrete(3, start=1)

    def step(self, state, actions, rng):
        assert set(actions) <= {1, 2, 3}
        return super().step(state, actions - 1, rng)


def test_actions_may_count_from_another_number():
    envs = GameVectorEnv(FromOne, 3)
    envs.reset(seed=0)
    envs.step(np.array([1, 2, 3]))
    for action in (0, 4):
        with pytest.raises(ValueError, match="actions must be 3 of Discrete"):
            envs.step(np.array([1, 2, action]))


def test_a_state_that_no_episode_leads_to_is_refused():
    envs = GameVectorEnv(RetrievalGame, 2, pairs=2)
    envs.reset(seed=0)
    before = envs.get_state()
    for wrong in (before | dict(t=np.full(2, 1000)), before | dict(t=np.full(2, -60)), 5):
        with pytest.raises(ValueError, match=r"^state must be "):
            envs.set_state(wrong)
    assert data_equivalence(envs.get_state(), before, exact=True)
    envs.set_state(before)


def test_many_games_are_not_drawn():
    with pytest.raises(TypeError, match=r"^render_mode must be None for many games at once, got 'rgb_array'"):
        gym.make_vec("fw_rl/Retrieval-4-v0", 2, render_mode="rgb_array")


def test_a_seed_fixes_all_games():
    def observations(seed):
        envs = GameVectorEnv(Countdown, 4)
        envs.reset(seed=seed)
        return np.stack([envs.step([0] * 4)[0] for _ in range(40)])

    for seed in (5, [5, 6, 7, 8]):
        np.testing.assert_array_equal(observations(seed), observations(seed))
    assert not np.array_equal(observations(5), observations(6))
    assert not np.array_equal(observations([5, 6, 7, 8]), observations([5, 6, 7, 9]))
    env, envs = GameEnv(Countdown), GameVectorEnv(Countdown, 1)
    for seed in range(5):
        np.testing.assert_array_equal(env.reset(seed=seed)[0], envs.reset(seed=seed)[0][0])


@EVERY_MODE
@pytest.mark.parametrize("steps", [0, 1, 4, 17])
def test_a_state_goes_on_in_other_envs(mode, steps):
    def play(envs, steps):
        results = []
        for _ in range(steps):
            results.append(envs.step([0, 1, 1, 0]))
            if mode == AutoresetMode.DISABLED and results[-1][2].any():
                results.append(envs.reset(options={"reset_mask": results[-1][2]}))
        return results

    envs, others = (GameVectorEnv(Countdown, 4, autoreset_mode=mode) for _ in range(2))
    envs.reset(seed=0)
    play(envs, steps)
    others.set_state(envs.get_state())
    assert data_equivalence(play(others, 20), play(envs, 20), exact=True)


def test_a_state_before_the_first_reset():
    envs, others = GameVectorEnv(Countdown, 2), GameVectorEnv(Countdown, 2)
    others.reset(seed=1)
    others.set_state(envs.get_state())
    with pytest.raises(gym.error.ResetNeeded):
        others.step([0, 0])
    np.testing.assert_array_equal(others.reset()[0], envs.reset()[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(left=np.zeros(2, int)), "state['left'] must be int64 of shape (3,), got int64 of shape (2,)"),
        (dict(left=np.zeros(3)), "state['left'] must be int64 of shape (3,), got float64 of shape (3,)"),
        (dict(more=np.zeros(3)), "state must have left, last, t, ended, got left, last, t, ended, more"),
        (dict(random={}), "state['random'] must be that of a PCG64 generator"),
    ],
)
def test_bad_states_change_nothing(change, message):
    envs = GameVectorEnv(Countdown, 3)
    envs.reset(seed=0)
    before = envs.get_state()
    with pytest.raises(ValueError, match=r"^.*$") as error:
        envs.set_state(before | change)
    assert message in str(error.value)
    assert data_equivalence(envs.get_state(), before, exact=True)
    assert "random" in before and json.dumps(before["random"])


def test_steps_that_need_a_reset():
    envs, mask = GameVectorEnv(Countdown, 2, autoreset_mode="Disabled"), np.array([True, False])
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) first"):
        envs.step([0, 0])
    with pytest.raises(gym.error.ResetNeeded, match="the first reset must begin all games"):
        envs.reset(options={"reset_mask": mask})
    envs.reset(seed=0)
    assert envs.step([2, 0])[3].tolist() == [True, False]
    with pytest.raises(gym.error.ResetNeeded, match="some episodes have ended"):
        envs.step([0, 0])
    envs.reset(options={"reset_mask": mask})
    envs.step([0, 0])


@pytest.mark.parametrize(
    ("game", "actions"),
    [
        *((Countdown, actions) for actions in ([], [0, 1], [[0, 1, 2]], 1, [0, 1, 3], [0, -1, 2], [0.0, 1.0, 2.0], [True] * 3)),
        *((Torque, actions) for actions in ([0.0, 1.0, 2.0], [[0.0], [np.nan], [1.0]], [["a"], ["b"], ["c"]])),
    ],
)
def test_bad_actions(game, actions):
    envs = GameVectorEnv(game, 3)
    envs.reset()
    with pytest.raises(ValueError, match=r"^actions must be 3 of (Discrete|Box)\(.*\), got .*$"):
        envs.step(actions)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"^num_envs must be an integer of at least 1, got 0$"):
        GameVectorEnv(Countdown, 0)
    with pytest.raises(TypeError, match=r"^render_mode must be None, since the game has no pictures, got 'human'$"):
        GameEnv(Countdown, render_mode="human")
    with pytest.raises(ValueError, match=r"^options must be reset_mask alone, got 'left'$"):
        GameVectorEnv(Countdown).reset(options={"left": 3})
    with pytest.raises(ValueError, match=r"^seed must be an integer of at least 0 or 2 of them, got int64 of shape \(3,\)"):
        GameVectorEnv(Countdown, 2).reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match=r"^reset_mask must be a boolean array of shape \(2,\)"):
        GameVectorEnv(Countdown, 2).reset(options={"reset_mask": np.zeros(2, bool)})
