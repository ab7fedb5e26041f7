"""A player remembers for its environments as `predict` does that is handed every state and every end."""

import doctest

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import RecordEpisodeStatistics
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from fw_rl.agents import Player, RecurrentA2C, player
from fw_rl.envs import CatchEnv, CatchVectorEnv, VecEnvAdapter
from tests.agents.helpers import CELLS, PLAIN, Recorder, Scripted, make_model, register_for_a_test, scramble, scripted_envs

EVERY_CELL = pytest.mark.parametrize("cell, options", CELLS.values(), ids=CELLS)
SCRIPTS = [((3, "terminated"), (5, "truncated")), ((2, "terminated"),)]


def model_of(env, cell="gru", **options):
    model = make_model(env, cell, cell_kwargs=options)
    scramble(model.policy)
    return model


def test_what_it_plays_begins_with_an_empty_memory(monkeypatch):
    register_for_a_test(monkeypatch)
    model = make_model(DummyVecEnv(scripted_envs(SCRIPTS)), "tally", policy_kwargs=PLAIN | dict(encoder_arch=(), hidden_size=3))
    with torch.no_grad():  # action 0 once the sum of all that was seen is above 50, else 1
        model.policy.action_net.weight.copy_(torch.tensor([[1.0] * 3, [0.0] * 3, [0.0] * 3]))
        model.policy.action_net.bias.copy_(torch.tensor([0.0, 50.0, 0.0]))
    fresh, used = Player(model), Player(model)
    used.act(np.full((2, 3), 100.0, dtype=np.float32))
    used.observe(np.zeros(2, dtype=bool))
    played = [Recorder(DummyVecEnv(scripted_envs(SCRIPTS, scale=0.3))) for _ in range(2)]
    fresh.play(played[0], 8)
    used.play(played[1], 8)
    np.testing.assert_array_equal(played[0]["actions"], played[1]["actions"])


@pytest.mark.parametrize("deterministic", [True, False])
@EVERY_CELL
def test_it_plays_as_predict_does(cell, options, deterministic):
    model = model_of(DummyVecEnv(scripted_envs(SCRIPTS, scale=0.3)), cell, **options)
    played = {}
    for way in ("player", "predict"):
        torch.manual_seed(5)
        env, played[way] = DummyVecEnv(scripted_envs(SCRIPTS, scale=0.3)), []
        observation, playing, state, done = env.reset(), Player(model), None, True
        for _ in range(12):
            if way == "player":
                action = playing.act(observation, deterministic)
                state = tuple(part.numpy() for part in playing.state)
            else:
                action, state = model.predict(observation, state, done, deterministic)
            played[way].append((action, *state))
            observation, _reward, done, _ = env.step(action)
            if way == "player":
                playing.observe(done)
    for one, other in zip(played["player"], played["predict"], strict=True):
        for part, expected in zip(one, other, strict=True):
            np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-5)


def test_its_memory_is_that_of_the_running_episodes():
    model = model_of(DummyVecEnv(scripted_envs(SCRIPTS)))
    playing, observation = Player(model), np.ones((2, 3), dtype=np.float32)
    assert playing.state is None
    playing.act(observation)
    fresh = playing.state
    playing.observe(np.array([False, True]))
    playing.act(observation)
    for before, after in zip(fresh, playing.state, strict=True):  # of actor and critic
        np.testing.assert_allclose(after[1], before[1], atol=1e-6)
        assert (after[0] - before[0]).abs().max() > 1e-3


def test_one_environment_without_a_batch():
    model = model_of(CatchEnv(5, 2))
    env, playing = CatchEnv(5, 2), Player(model)
    for seed in range(3):
        (observation, _), state, first, ended = env.reset(seed=seed), None, True, False
        while not ended:
            action = playing.act(observation)
            expected, state = model.predict(observation, state, first, deterministic=True)
            assert np.shape(action) == ()
            assert action == expected
            observation, _reward, terminated, truncated, _ = env.step(action)
            first, ended = False, terminated or truncated
            playing.observe(ended)


def test_after_a_reset_it_may_play_in_other_environments():
    model = model_of(CatchVectorEnv(3, 5, 2))
    playing, observation = Player(model), np.ones((3, 25), dtype=np.float32)
    playing.act(observation)
    fresh = playing.state[0]
    playing.reset()
    assert playing.state is None
    assert playing.act(observation[:2]).shape == (2,)
    torch.testing.assert_close(playing.state[0], fresh[:2])


def test_actions_of_a_box_stay_within_it():
    space = spaces.Box(-0.1, 0.1, (2,), np.float32)
    model = model_of(Scripted(action_space=space))
    assert space.contains(Player(model).act(np.full(3, 9.0, dtype=np.float32)))


def test_a_turn_that_is_missed_is_refused_in_one_line():
    model, observation = model_of(CatchVectorEnv(2, 5, 2)), np.zeros((2, 25), dtype=np.float32)
    playing = Player(model)
    with pytest.raises(ValueError, match=r"^observe must come after player.act.*$"):
        playing.observe(np.zeros(2, dtype=bool))
    playing.act(observation)
    with pytest.raises(ValueError, match=r"^act must come after player.observe.*$"):
        playing.act(observation)
    with pytest.raises(ValueError, match=r"^done must have 2 entries, got 3$"):
        playing.observe(np.zeros(3, dtype=bool))
    playing.observe(np.zeros(2, dtype=bool))
    with pytest.raises(ValueError, match=r"^observation must have 2 rows until player.reset\(\), got 1$"):
        playing.act(observation[:1])


def test_every_environment_plays_its_share():
    scripts = [((1, "terminated"),), ((4, "terminated"),), ((3, "truncated"), (2, "terminated"))]
    model = model_of(DummyVecEnv(scripted_envs(scripts)))
    returns = Player(model).play(DummyVecEnv(scripted_envs(scripts)), 7)
    assert sorted(returns) == [1, 1, 1 + 2, 1 + 2 + 3, 1 + 2 + 3, 10, 10]


def test_episodes_tell_their_length_and_whether_they_were_cut_off():
    scripts = [((3, "truncated"), (2, "terminated"))]
    model = model_of(DummyVecEnv(scripted_envs(scripts)))
    assert [*Player(model).episodes(DummyVecEnv(scripted_envs(scripts)), 2)] == [(1 + 2 + 3, 3, True), (1 + 2, 2, False)]


def test_it_plays_in_environments_of_gymnasium():
    model = model_of(CatchVectorEnv(5, 6, 2))
    for env in (gym.make("fw_rl/Catch-v0", n=6, m=2), CatchVectorEnv(5, 6, 2)):
        assert set(Player(model).play(env, 7)) <= {-1.0, 1.0}


def test_its_returns_are_those_that_sb3_evaluates():
    model = model_of(CatchVectorEnv(5, 6, 2))
    returns = []
    for way in (
        lambda env: Player(model).play(env, 12),
        lambda env: evaluate_policy(model, env, 12, return_episode_rewards=True)[0],
    ):
        env = VecEnvAdapter(CatchVectorEnv(5, 6, 2), monitor=True)
        env.seed(3)
        returns.append(way(env))
    assert np.array_equal(*returns)


def test_a_monitor_knows_what_was_earned_before_it_was_normalized():
    model = model_of(CatchVectorEnv(2, 6, 2))
    env = VecNormalize(VecEnvAdapter(CatchVectorEnv(2, 6, 2), monitor=True), norm_obs=False)
    assert set(Player(model).play(env, 6)) <= {-1.0, 1.0}


class Lives(gym.Wrapper):
    """The end of every second step is that of a life, as in SB3's `EpisodicLifeEnv`."""

    over, life = True, 0

    def reset(self, **kwargs):
        self.life = 0
        return self.env.reset(**kwargs) if self.over else (self.unwrapped._observe(), {})

    def step(self, action):
        observation, reward, self.over, truncated, info = self.env.step(action)
        self.life += 1
        return observation, np.sign(reward), self.over or self.life == 2, truncated, info


@pytest.mark.parametrize("counter", [Monitor, RecordEpisodeStatistics])
def test_a_lost_life_is_no_whole_episode(counter):
    envs = [lambda: Lives(counter(Scripted(((5, "terminated"),))))] * 2
    assert Player(model_of(DummyVecEnv(envs))).play(DummyVecEnv(envs), 4).tolist() == [1 + 2 + 3 + 4 + 5] * 4


def test_a_loaded_agent_plays(tmp_path):
    model, observation = model_of(CatchVectorEnv(2, 5, 2)), np.eye(2, 25, dtype=np.float32)
    model.save(tmp_path / "agent")
    players = [Player(model), Player(RecurrentA2C.load(tmp_path / "agent"))]
    for _ in range(4):
        one, other = (playing.act(observation).tolist() for playing in players)
        assert one == other
        for playing in players:
            playing.observe(np.array([False, True]))
    torch.testing.assert_close(players[0].state, players[1].state)


def test_the_documentation_is_true():
    result = doctest.testmod(player)
    assert result.attempted
    assert not result.failed
