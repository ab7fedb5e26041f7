"""The retrieval game: what is shown, what is asked and what a right answer earns, by hand; and its ids."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from fw_rl.agents import RecurrentPPO
from fw_rl.envs import GameEnv, GameVectorEnv, RetrievalGame, retrieval_id
from fw_rl.envs.retrieval_picture import RIGHT, WRONG, color_of

NOTHING = [0, 0]


class Dealt(RetrievalGame):
    """Two games with pairs of our choice: 5-2 and 9-7, asked in this order, and 1-3 and 16-3, asked the other way round."""

    def begin(self, rng, num):
        keys, values, order = np.array([[5, 9], [1, 16]]), np.array([[2, 7], [3, 3]]), np.array([[0, 1], [1, 0]])
        return self.deal(keys[:num], values[:num], order[:num])


def play(envs, actions):
    """Observations [T + 1, num, 2], rewards [T, num] and ends [T, num] of one episode."""
    observations, rewards, ends = [envs.reset(seed=0)[0]], [], []
    for action in actions:
        observation, reward, terminated, truncated, infos = envs.step(action)
        observations.append(np.stack(infos["final_obs"]) if terminated.all() else observation)
        rewards.append(reward)
        ends.append(terminated)
        assert not truncated.any()
    return np.array(observations), np.array(rewards), np.array(ends)


def test_pairs_are_shown_then_keys_are_asked_for():
    observations, _, ends = play(GameVectorEnv(Dealt, 2, pairs=2), np.zeros((4, 2), int))
    assert observations[:, 0].tolist() == [[5, 2], [9, 7], [5, 0], [9, 0], NOTHING]
    assert observations[:, 1].tolist() == [[1, 3], [16, 3], [16, 0], [1, 0], NOTHING]
    assert ends.tolist() == [[False, False]] * 3 + [[True, True]]


def test_a_gap_is_blank():
    observations, rewards, _ = play(GameVectorEnv(Dealt, 2, pairs=2, gap=3), np.full((7, 2), 6))
    assert observations[:, 0].tolist() == [[5, 2], [9, 7], NOTHING, NOTHING, NOTHING, [5, 0], [9, 0], NOTHING]
    assert rewards[:, 0].tolist() == [0, 0, 0, 0, 0, 0, 0.5]


def test_only_a_right_answer_to_a_question_earns():
    """The answer is the value less one; what is done while pairs are shown counts for nothing."""
    _, rewards, _ = play(GameVectorEnv(Dealt, 2, pairs=2), [[1, 2], [6, 2], [1, 2], [1, 2]])
    assert rewards.tolist() == [[0, 0], [0, 0], [0.5, 0.5], [0, 0.5]]


@pytest.mark.parametrize(("pairs", "gap"), [(1, 0), (4, 0), (8, 5), (16, 1)])
def test_each_key_is_asked_for_once_and_earns_its_share(pairs, gap):
    """A player that writes down what it sees always earns 1."""
    envs = GameVectorEnv(RetrievalGame, 50, pairs=pairs, gap=gap)
    observations, _ = envs.reset(seed=1)
    notes, total, asked = np.zeros((50, 17), int), np.zeros(50), []
    for step in range(2 * pairs + gap):
        keys, values = observations.T
        shown = values > 0
        assert shown.all() if step < pairs else not shown.any()
        notes[np.flatnonzero(shown), keys[shown]] = values[shown]
        asked += [keys] if step >= pairs + gap else []
        observations, rewards, terminated, _, _ = envs.step(np.maximum(notes[np.arange(50), keys] - 1, 0))
        total += rewards
        assert terminated.all() == (step == 2 * pairs + gap - 1)
    np.testing.assert_allclose(total, 1)
    assert all(len(set(keys)) == pairs for keys in np.array(asked).T)


@pytest.mark.parametrize(("pairs", "earned"), [(4, 0.412), (8, 0.325)])
def test_the_most_frequent_value_earns_what_the_docs_say(pairs, earned):
    """The best that a player can do who knows which values there were, but not of which keys."""
    envs = GameVectorEnv(RetrievalGame, 4000, pairs=pairs)
    observations, counts, total = envs.reset(seed=0)[0], np.zeros((4000, 9)), 0
    for _ in range(2 * pairs):
        counts[np.arange(4000), observations[:, 1]] += 1
        observations, rewards, *_ = envs.step(counts[:, 1:].argmax(axis=1))
        total = total + rewards
    assert total.mean() == pytest.approx(earned, abs=0.01)


def test_keys_values_and_questions_are_evenly_drawn():
    state = RetrievalGame(4).begin(np.random.default_rng(0), 8000)
    keys, values = state["seen"][:, :4].reshape(-1, 2).T
    np.testing.assert_allclose(np.bincount(keys)[1:] / 2000, 1, atol=0.1)
    np.testing.assert_allclose(np.bincount(values)[1:] / 4000, 1, atol=0.1)
    places = (state["seen"][:, 4:5, 0] == state["seen"][:, :4, 0]).mean(axis=0)
    np.testing.assert_allclose(places, 0.25, atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(pairs=0), "pairs must be an integer from 1 to keys = 16, got 0"),
        (dict(pairs=17), "pairs must be an integer from 1 to keys = 16, got 17"),
        (dict(gap=-1), "gap must be an integer of at least 0, got -1"),
        (dict(keys=0), "keys must be an integer of at least 1, got 0"),
        (dict(values=1), "values must be an integer of at least 2, got 1"),
        (dict(pairs=True), "pairs must be an integer from 1 to keys = 16, got True"),
    ],
)
def test_rules_that_cannot_be(arguments, message):
    with pytest.raises(ValueError) as error:
        RetrievalGame(**arguments)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("name", "pairs", "gap"),
    [("Retrieval-4", 4, 0), ("fw_rl/Retrieval-8-v0", 8, 0), ("Retrieval-3-gap16", 3, 16), ("fw_rl/Retrieval-5-gap2-v0", 5, 2)],
)
def test_pairs_and_gap_are_in_the_id(name, pairs, gap):
    env, envs = gym.make(retrieval_id(name)), gym.make_vec(retrieval_id(name), 3)
    assert isinstance(env.unwrapped, GameEnv) and isinstance(envs, GameVectorEnv)
    assert (envs.game.pairs, envs.game.gap) == (pairs, gap)
    assert env.spec.max_episode_steps is None
    assert retrieval_id(retrieval_id(name)) == env.spec.id


@pytest.mark.parametrize(
    "name", ["Retrieval-", "Retrieval-0", "Retrieval-17", "Retrieval-4-16", "Retrieval-4-gap", "Catch-16-3", "Retrieval-4\n"]
)
def test_bad_names_of_the_retrieval_game(name):
    registered = set(gym.registry)
    with pytest.raises(ValueError, match=r"^env must be Retrieval-<pairs> or Retrieval-<pairs>-gap<steps>, such as") as error:
        retrieval_id(name)
    assert "\n" not in str(error.value)
    assert set(gym.registry) == registered


def test_the_registered_ids_and_rules_by_keyword():
    assert {"fw_rl/Retrieval-v0", "fw_rl/Retrieval-4-v0", "fw_rl/Retrieval-8-v0"} <= set(gym.registry)
    envs = gym.make_vec("fw_rl/Retrieval-v0", 2, pairs=2, gap=1, keys=3, values=4)
    assert envs.single_observation_space == gym.spaces.MultiDiscrete([4, 5])
    assert envs.single_action_space == gym.spaces.Discrete(4)


def frames_of(actions, **rules):
    env = GameEnv(Dealt, render_mode="rgb_array", **rules)
    env.reset(seed=0)
    frames = [env.render()]
    for action in actions:
        env.step(action)
        frames.append(env.render())
    return np.array(frames)


def test_a_frame_shows_pair_question_and_whether_answers_were_right():
    """Pairs 5-2 and 9-7, asked in this order: answers 1 and 6 are right."""
    right, wrong, other = (frames_of(actions, pairs=2) for actions in ([0, 0, 1, 6], [0, 0, 2, 6], [3, 3, 1, 6]))
    assert right.shape == (5, 300, 300, 3)
    assert (right[:3] == wrong[:3]).all() and (right == other).all()  # what is done while pairs are shown is not drawn
    assert all((right[step] != right[step + 1]).any() for step in range(4))
    changed = (right[3] != wrong[3]).any(axis=(1, 2))
    assert changed.any() and not changed[:200].any()  # in the row of answers alone
    green = (right == RIGHT).all(axis=3).any(axis=(1, 2))
    assert green.tolist() == [False, False, False, True, True]
    assert (wrong == WRONG).all(axis=3).any(axis=(1, 2)).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("rules", [dict(pairs=16), dict(pairs=1, gap=2), dict(pairs=30, keys=30, values=20)])
def test_any_rules_can_be_drawn(rules):
    env = gym.make("fw_rl/Retrieval-v0", render_mode="rgb_array", **rules)
    env.reset(seed=0)
    ended, shapes = False, {env.render().shape}
    while not ended:
        ended = env.step(1)[2]
        shapes.add(env.render().shape)
    assert shapes == {(300, 300, 3)}


def test_values_have_different_colours():
    assert len({color_of(value, 8) for value in range(1, 9)}) == 8


def test_pictures_need_an_episode_and_a_mode():
    with pytest.raises(gym.error.ResetNeeded, match="nothing to render"):
        GameEnv(RetrievalGame, render_mode="rgb_array").render()
    with pytest.raises(TypeError, match=r"^render_mode must be None or rgb_array, got 'ansi'$"):
        GameEnv(RetrievalGame, render_mode="ansi")


def test_gymnasium_finds_no_fault():
    check_env(gym.make("fw_rl/Retrieval-4-v0").unwrapped)


def test_an_agent_takes_the_id():
    model = RecurrentPPO("RecurrentPolicy", "fw_rl/Retrieval-4-v0", n_steps=8, batch_size=8, policy_kwargs=dict(cell="gru"))
    assert model.observation_space == RetrievalGame(4).observation_space
