"""POPGym's games by themselves: players who remember everything, their ids, and agents that learn from them."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from fw_rl.agents import RecurrentPPO
from fw_rl.envs import GameVectorEnv, VecEnvAdapter, register_popgym
from fw_rl.envs.popgym import (
    Autoencode,
    Battleship,
    Concentration,
    CountRecall,
    HigherLower,
    MultiarmedBandit,
    PositionOnlyCartPole,
    PositionOnlyPendulum,
    RepeatFirst,
    RepeatPrevious,
    VelocityOnlyCartPole,
)
from fw_rl.experiments.agents import make_model
from fw_rl.experiments.settings import resolve

IDS = [env_id for env_id, spec in gym.registry.items() if "fw_rl.envs.popgym" in spec.kwargs.get("game", "")]
LEVELS = ("Easy", "Medium", "Hard")


def returns(game, player, num_envs=8, **rules):
    """The returns [num_envs] of first episodes, and their length; the player is given all that was seen and done."""
    envs = GameVectorEnv(game, num_envs, autoreset_mode="Disabled", **rules)
    seen, done, total = [envs.reset(seed=0)[0]], [], np.zeros(num_envs)
    while True:
        done.append(player(seen, done))
        observations, rewards, terminations, truncations, _ = envs.step(done[-1])
        seen.append(observations)
        total += rewards
        if (terminations | truncations).any():
            assert (terminations | truncations).all()
            return total, len(done)


@pytest.mark.parametrize(("decks", "steps"), [(1, 51), (8, 415)])
def test_who_keeps_the_first_card_earns_one(decks, steps):
    total, length = returns(RepeatFirst, lambda seen, done: seen[0], num_decks=decks)
    assert length == steps
    np.testing.assert_allclose(total, 1)
    total, _ = returns(RepeatFirst, lambda seen, done: (seen[0] + 1) % 4, num_decks=decks)
    np.testing.assert_allclose(total, -1)


@pytest.mark.parametrize(("decks", "k"), [(1, 1), (1, 4), (2, 32), (3, 64)])
def test_who_looks_back_k_cards_earns_one(decks, k):
    total, length = returns(RepeatPrevious, lambda seen, done: seen[-k] if len(seen) >= k else seen[0], num_decks=decks, k=k)
    assert length == 52 * decks - 1
    np.testing.assert_allclose(total, 1)


@pytest.mark.parametrize("decks", [1, 3])
def test_who_tells_the_deck_backwards_earns_one(decks):
    cards = 52 * decks

    def player(seen, done):
        assert (seen[-1][:, 0] == (len(seen) < cards)).all()  # to watch, until the last card is there
        told = len(done) - (cards - 1)
        return seen[cards - 1 - told][:, 1] if told >= 0 else np.zeros(8, int)

    total, length = returns(Autoencode, player, num_decks=decks)
    assert length == 2 * cards - 1
    np.testing.assert_allclose(total, 1)


@pytest.mark.parametrize(("decks", "kinds"), [(1, 2), (2, 4), (4, 13)])
def test_who_counts_earns_one(decks, kinds):
    def player(seen, done):
        dealt, asked = np.stack(seen)[:, :, 0], seen[-1][:, 1]
        return (dealt == asked).sum(axis=0)

    total, length = returns(CountRecall, player, num_decks=decks, kinds=kinds)
    assert length == 52 * decks - 1
    np.testing.assert_allclose(total, 1)


@pytest.mark.parametrize("decks", [1, 3])
def test_who_counts_cards_bets_better(decks):
    def by_rank(seen, done):
        return (seen[-1] > 6).astype(int)  # 1: the next card is lower

    def by_count(seen, done):
        ranks = np.stack(seen)
        left = 4 * decks - np.stack([(ranks == rank).sum(axis=0) for rank in range(13)], axis=1)
        higher = np.arange(13) > seen[-1][:, None]
        lower = np.arange(13) < seen[-1][:, None]
        return ((left * lower).sum(axis=1) > (left * higher).sum(axis=1)).astype(int)

    plain, counted = (returns(HigherLower, player, 200, num_decks=decks)[0].mean() for player in (by_rank, by_count))
    assert 0.45 < plain < counted < 0.6
    total, length = returns(HigherLower, lambda seen, done: np.zeros(200, int), 200, num_decks=decks)
    assert length == 52 * decks - 1
    assert abs(total.mean()) < 0.05


@pytest.mark.parametrize(("decks", "kinds"), [(1, 2), (1, 13)])
def test_who_remembers_the_cards_finds_all_pairs(decks, kinds):
    """One after another is turned; who has seen a kind before turns it as the second card."""
    envs = GameVectorEnv(Concentration, 1, num_decks=decks, kinds=kinds, autoreset_mode="Disabled")
    deck = envs.reset(seed=0)[0][0]
    assert (deck == kinds).all()  # all are hidden
    known = envs.get_state()["deck"][0]
    hidden, total, steps, ended = list(range(52 * decks)), 0.0, 0, False
    while not ended:
        first = hidden.pop(0)
        second = next(place for place in hidden if known[place] == known[first])
        hidden.remove(second)
        for place in (first, second):
            seen, rewards, terminations, _, _ = envs.step([place])
            assert seen[0][place] == known[place]
            total, steps, ended = total + rewards[0], steps + 1, terminations[0]
    assert steps == 52 * decks and total == pytest.approx(1)


def test_cards_that_are_no_pair_are_hidden_again():
    envs = GameVectorEnv(Concentration, 1, autoreset_mode="Disabled")
    envs.reset(seed=0)
    known = envs.get_state()["deck"][0]
    other = int((known != known[0]).argmax())
    twin = 1 + int((known[1:] == known[0]).argmax())

    def step(place):
        seen, rewards, *_ = envs.step([place])
        return set(np.flatnonzero(seen[0] != 13)), round(rewards[0] * envs.game.steps, 9)

    pair = round(envs.game.steps * 2 / 52, 9)
    assert step(0) == ({0}, 0) and step(other) == ({0, other}, -2)
    assert step(0) == ({0}, 0) and step(0) == ({0}, -2)  # one card is no pair
    assert step(twin) == ({twin}, 0) and step(0) == ({0, twin}, pair)
    assert step(0) == ({0, twin}, -1)  # which lies face up
    assert step(other) == ({0, twin, other}, 0) and step(twin) == ({0, twin, other}, -2)
    assert step(other) == ({0, twin, other}, 0)


def test_the_bandit_pays_by_the_chances_of_its_arms():
    envs = GameVectorEnv(MultiarmedBandit, 2000, arms=3, steps=60, autoreset_mode="Disabled")
    assert not envs.reset(seed=0)[0].any()
    chances, arm, paid = envs.get_state()["chances"], np.arange(2000) % 3, np.zeros(2000)
    for step in range(60):
        seen, rewards, _, truncations, _ = envs.step(arm)
        np.testing.assert_allclose(rewards, (2 * seen - 1) / 60)
        assert truncations.all() == truncations.any() == (step == 59)
        paid += seen
    chance = chances[np.arange(2000), arm]
    assert np.corrcoef(paid, chance)[0, 1] > 0.95
    assert abs((paid / 60 - chance).mean()) < 0.01
    assert abs(chances.mean() - 0.5) < 0.02


def test_battleship_counts_a_square_once():
    envs = GameVectorEnv(Battleship, 1, board_size=8, autoreset_mode="Disabled")
    envs.reset(seed=0)
    ships = envs.get_state()["ships"][0].reshape(8, 8)
    assert ships.sum() == 12
    target, water = np.argwhere(ships), np.argwhere(~ships)
    results = [envs.step([square]) for square in (target[0], target[0], water[0], *target[1:])]
    assert [result[0][0] for result in results] == [1, 0, 0] + [1] * 11
    np.testing.assert_allclose([result[1][0] for result in results], [1 / 12, -1 / 52, -1 / 52] + [1 / 12] * 11)
    assert [result[2][0] for result in results] == [False] * 13 + [True]


def test_battleship_is_cut_after_all_squares():
    envs = GameVectorEnv(Battleship, 1, board_size=8, autoreset_mode="Disabled")
    envs.reset(seed=0)
    water = np.argwhere(~envs.get_state()["ships"][0].reshape(8, 8))[:1]
    for step in range(64):
        _, _, terminations, truncations, _ = envs.step(water)
        assert (terminations[0], truncations[0]) == (False, step == 63)


def test_what_is_seen_of_a_cart_pole():
    place, velocity = GameVectorEnv(PositionOnlyCartPole, 50), GameVectorEnv(VelocityOnlyCartPole, 50)
    positions, velocities = [place.reset(seed=0)[0]], [velocity.reset(seed=0)[0]]
    np.testing.assert_array_equal(positions, velocities)  # as in popgym
    for action in (0, 1, 1, 0):
        positions.append(place.step([action] * 50)[0])
        velocities.append(velocity.step([action] * 50)[0])
    np.testing.assert_allclose(np.diff(positions, axis=0)[1:], 0.02 * np.array(velocities)[1:-1], atol=1e-6)


@pytest.mark.parametrize("game", [PositionOnlyCartPole, PositionOnlyPendulum])
def test_noise_is_normal_and_clipped_to_the_space(game):
    plain, noisy = GameVectorEnv(game, 4000), GameVectorEnv(game, 4000, noise=0.2)
    for envs in (plain, noisy):
        envs.action_space.seed(0)
        envs.reset(seed=0)
    actions = plain.action_space.sample()
    noise, seen = noisy.step(actions)[0] - plain.step(actions)[0], noisy.observation_space
    assert noisy.reset()[0] in seen
    assert abs(noise.mean()) < 0.02
    free = noise if game is PositionOnlyCartPole else noise[(abs(plain.step(actions)[0]) < 0.3)]
    assert abs(free.std() - 0.2) < 0.02


def test_a_pendulum_earns_from_minus_one_to_one():
    envs = GameVectorEnv(PositionOnlyPendulum, 500, autoreset_mode="Disabled")
    seen, _ = envs.reset(seed=0)
    np.testing.assert_allclose(np.square(seen).sum(axis=1), 1, atol=1e-5)
    total = np.zeros(500)
    for _ in range(200):
        _, rewards, _, truncations, _ = envs.step(envs.action_space.sample())
        assert (abs(rewards) <= 1 / 200).all()
        total += rewards
    assert truncations.all()
    assert -1 < total.min() < total.max() < 1


@pytest.mark.parametrize("env_id", IDS)
def test_every_id_makes_one_game_or_many(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env, envs = gym.make(env_id), gym.make_vec(env_id, num_envs=3)
    assert env.spec.max_episode_steps is None
    assert isinstance(envs, GameVectorEnv) and envs.num_envs == 3
    assert envs.single_observation_space == env.observation_space
    observations, _ = envs.reset(seed=0)
    assert observations in envs.observation_space
    for _ in range(5):
        assert envs.step(envs.action_space.sample())[0] in envs.observation_space
    VecEnvAdapter(envs)  # which refuses spaces that no agent takes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bounds as popgym has them
        check_env(env.unwrapped, skip_render_check=True)


def test_there_are_thirteen_games_in_three_levels():
    register_popgym()  # once more changes nothing
    assert len(IDS) == 39
    easy, medium, hard = ({env_id.removesuffix(f"{level}-v0") for env_id in IDS if level in env_id} for level in LEVELS)
    assert easy == medium == hard


def test_bad_rules():
    with pytest.raises(ValueError, match=r"^k must be from 1 to 51, got 52$"):
        gym.make("fw_rl/RepeatPreviousEasy-v0", k=52)


@pytest.mark.processes
@pytest.mark.parametrize("level", LEVELS)
def test_agents_learn_from_every_game(level):
    for env_id in IDS:
        if level in env_id:
            config = resolve(env=env_id, cell="gru", n_envs=2, n_steps=8, hidden_size=8, previous_step=True)
            assert make_model(config).learn(64).num_timesteps == 64, env_id


@pytest.mark.parametrize("name", ["RepeatPreviousEasy", "NoisyPositionOnlyCartPoleEasy", "BattleshipEasy"])
def test_training_goes_on_amid_the_episodes(name, tmp_path):
    def envs():
        return gym.make_vec(f"fw_rl/{name}-v0", 4, vectorization_mode="vector_entry_point")

    settings = dict(n_steps=30, batch_size=60, n_epochs=1, seed=0, policy_kwargs=dict(cell="gru", hidden_size=8))
    whole = RecurrentPPO("RecurrentPolicy", envs(), **settings).learn(240)
    whole.save(tmp_path / "agent")
    resumed = RecurrentPPO.load(tmp_path / "agent", envs(), force_reset=False)
    for model in (whole, resumed):
        torch.manual_seed(0)
        model.learn(240, reset_num_timesteps=False)
    for one, other in zip(whole.policy.parameters(), resumed.policy.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
