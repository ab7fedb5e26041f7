"""Our games of POPGym beside those of the package: the same draws and actions give the same in every step."""

from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import fw_rl  # noqa: F401 (registers the ids)
from fw_rl.envs import GameVectorEnv
from fw_rl.envs.popgym import Battleship

popgym = pytest.importorskip("popgym", reason="needs pip install 'fw-rl[envs]'")

pytestmark = pytest.mark.processes

NUM_ENVS = 20
STEPS = 2500  # three episodes of the longest game, each with 20 environments
IDS = [env_id for env_id, spec in gym.registry.items() if "fw_rl.envs.popgym" in spec.kwargs.get("game", "")]


def of_popgym(env_id):
    """One game of the package."""
    name = env_id.removeprefix("fw_rl/").replace("VelocityOnlyCartPole", "VelocityOnlyCartpole")
    return gym.make(f"popgym-{name}", disable_env_checker=True).unwrapped


class Given:
    """Stands in for the generator of a game: what it draws is given."""

    def __init__(self):
        self.draws = []

    def shuffle(self, cards):
        cards[:] = self.draws.pop(0)

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.draws.pop(0)


def deck(game, name, dealt):
    """The numbers of the cards in popgym's order, which deals the last one first, if these kinds are dealt."""
    cards = np.empty_like(dealt)
    kinds = game.deck.ranks_idx if name.startswith("HigherLower") else getattr(game, "deck_idx_type", None)
    kinds = game.deck.suits_idx if kinds is None else kinds
    cards[np.argsort(dealt, kind="stable")] = np.argsort(kinds, kind="stable")
    return cards if name.startswith("Concentration") else cards[::-1]  # which lies on the table


def first_draws(game, name, state):
    """What popgym draws for an episode that begins in our state."""
    if name.startswith("CountRecall"):
        return [deck(game, name, state["seen"][:, part]) for part in (0, 1)]
    if name.startswith("Autoencode"):
        return [deck(game, name, state["seen"][: game.deck.num_cards, 1])]
    if "answers" in state or "deck" in state:
        return [deck(game, name, state["deck" if "deck" in state else "seen"])]
    if "chances" in state:
        return [state["chances"]]
    motion = [state[part] for part in ("x", "x_velocity", "angle", "angle_velocity", "velocity") if part in state]
    return [np.array(motion), *([state["noise"]] if "noise" in state else [])]


def good_actions(name, state, rng):
    """Actions [n] of players who see the hidden state and win, in games that others hardly ever finish."""
    if "CartPole" in name:
        return (state["angle"] + 0.3 * state["angle_velocity"] + 0.02 * state["x"] + 0.05 * state["x_velocity"] > 0).astype(int)
    if name.startswith("Battleship"):
        square = state["ships"].argmax(axis=1)
        return np.stack(np.divmod(square, int(state["ships"].shape[1] ** 0.5)), axis=1)
    if name.startswith("Concentration"):
        hidden, first = ~state["up"], state["first"]
        wanted = np.take_along_axis(state["deck"], np.maximum(first, 0)[:, None], 1)
        places = np.arange(hidden.shape[1])
        pairs = hidden & ((first < 0)[:, None] | ((state["deck"] == wanted) & (places != first[:, None])))
        return (pairs * rng.random(pairs.shape)).argmax(axis=1)
    return None


class Pair:
    """One of our games among others, and one of popgym's that gets its draws."""

    def __init__(self, env_id):
        self.name = env_id.removeprefix("fw_rl/")
        self.game = of_popgym(env_id)
        self.game.np_random = Given()

    def begin(self, state):
        """What popgym's game returns when it begins in our state."""
        if self.name.startswith("Battleship"):
            self.game.place_ship = lambda board, size: board
            begun = self.game.reset()
            self.game.board[:] = state["ships"].reshape(self.game.board.shape)
            return begun
        return self.call(self.game.reset, first_draws(self.game, self.name, state))

    def call(self, method, draws, *args):
        """What a method returns that needs exactly these draws."""
        self.game.np_random.draws = list(draws)
        result = method(*args)
        assert self.game.np_random.draws == []
        return result


def play(env_id):
    """Yields what our games return, and what popgym's do, after every reset and step: arrays, with a row for each game."""
    envs = gym.make_vec(env_id, NUM_ENVS, vectorization_mode="vector_entry_point", autoreset_mode="Disabled")
    envs.action_space.seed(0)
    rng, able = np.random.default_rng(0), np.arange(NUM_ENVS) < NUM_ENVS // 2
    pairs = [Pair(env_id) for _ in range(NUM_ENVS)]
    name = pairs[0].name
    ended, seed = np.ones(NUM_ENVS, bool), 0
    for _ in range(STEPS):
        if ended.any():
            observations, _ = envs.reset(seed=seed, options={"reset_mask": ended})
            seed, state = None, envs.get_state()
            del state["random"]
            begun = [pairs[i].begin({part: rows[i] for part, rows in state.items()})[0] for i in np.flatnonzero(ended)]
            yield (observations[ended],), (np.array(begun),)
        actions, good = envs.action_space.sample(), good_actions(name, envs.get_state(), rng)
        if good is not None:
            at_work = able & (rng.random(NUM_ENVS) < 0.98)
            actions[at_work] = good[at_work]
        chance = deepcopy(envs.np_random)
        results = envs.step(actions)[:4]
        draws = np.zeros((NUM_ENVS, 0))
        if "Bandit" in name:
            draws = chance.random((NUM_ENVS, 1))
        elif "Noisy" in name:
            draws = envs.get_state()["noise"][:, None]
        steps = [pair.call(pair.game.step, draw, action) for pair, draw, action in zip(pairs, draws, actions, strict=True)]
        yield results, [np.array(part) for part in list(zip(*steps, strict=True))[:4]]
        ended = results[2] | results[3]


@pytest.mark.parametrize("env_id", IDS)
def test_the_same_draws_and_actions_give_the_same(env_id):
    ours, theirs = gym.make(env_id).unwrapped, of_popgym(env_id)
    assert ours.action_space == theirs.action_space
    assert spaces.flatten_space(ours.observation_space) == spaces.flatten_space(theirs.observation_space)
    ends = np.zeros(2, int)
    for our, their in play(env_id):
        np.testing.assert_array_equal(our[0], their[0])
        if len(our) > 1:
            # NumPy squares numbers and arrays in two ways.
            np.testing.assert_allclose(our[1], their[1], rtol=0, atol=1e-11 if "Pendulum" in env_id else 0)
            np.testing.assert_array_equal(our[2:], their[2:])
            ends += np.sum(their[2:], axis=1)
    truncates = any(word in env_id for word in ("Bandit", "Pendulum", "CartPole", "Battleship", "Concentration"))
    terminates = not any(word in env_id for word in ("Bandit", "Pendulum"))
    assert list(ends >= 20) == [terminates, truncates], ends


@pytest.mark.parametrize("level", ["Easy", "Medium", "Hard"])
def test_ships_lie_as_often_where_popgym_puts_them(level):
    ours = GameVectorEnv(Battleship, 4000, board_size=dict(Easy=8, Medium=10, Hard=12)[level])
    ours.reset(seed=0)
    boards = ours.get_state()["ships"].reshape(4000, ours.game.size, ours.game.size)
    theirs = of_popgym(f"fw_rl/Battleship{level}-v0")
    theirs.reset(seed=0)
    expected = np.stack([(theirs.reset(), theirs.board.copy())[1] for _ in range(4000)])
    np.testing.assert_allclose(boards.mean(axis=0), expected.mean(axis=0), atol=0.045)
    neighbours = [(b[:, 1:] & b[:, :-1]).sum(axis=(1, 2)).mean() for b in (boards, expected)]
    assert neighbours[0] == pytest.approx(neighbours[1], abs=0.15)
