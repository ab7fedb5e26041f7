"""An episode is played as `predict` plays it: with one memory from its start to its end, of either kind, and within masks."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from fw_rl.envs import VecEnvAdapter
from fw_rl.experiments.agents import evaluate, make_model
from fw_rl.experiments.episodes import play_episode
from fw_rl.experiments.settings import resolve
from tests.agents import helpers
from tests.agents.helpers import Scripted, scramble

STEPS = 12


class Noted(Scripted):
    """Twelve steps until it is cut off, that draw nothing; `done` has the actions."""

    render_mode = None

    def __init__(self):
        super().__init__(((STEPS, "truncated"),), scale=0.3)
        self.done = []

    def step(self, action):
        self.done.append(int(action))
        return super().step(action)


class Masked(Noted):
    """The same, and each step allows one action."""

    def action_masks(self):
        return np.arange(3) == self.t % 3


def model_for(env, scale):
    """An agent that knows what it wants, if the scale is large."""
    model = helpers.make_model(DummyVecEnv([env]))
    scramble(model.policy, scale=scale)
    return model


def test_an_episode_is_played_as_predict_plays_it():
    model, env = model_for(Noted, 2.0), Noted()
    episode = play_episode(model, env, seed=0)
    assert episode.ended
    assert episode.rewards == list(range(1, STEPS + 1))
    state, expected = None, []
    for step, observation in enumerate(episode.observations):
        action, state = model.predict(observation, state, episode_start=np.array([step == 0]), deterministic=True)
        expected.append(int(action))
    assert env.done == expected
    assert len(set(expected)) > 1


def test_actions_are_drawn_if_they_are_not_to_be_greedy():
    torch.manual_seed(0)
    model = model_for(Noted, 0.3)
    greedy, drawn = Noted(), [Noted() for _ in range(5)]
    play_episode(model, greedy, seed=0)
    for env in drawn:
        play_episode(model, env, seed=0, greedy=False)
    assert len({tuple(env.done) for env in drawn} - {tuple(greedy.done)}) > 1


def test_an_episode_keeps_to_the_masks():
    model, env = model_for(Masked, 0.3), Masked()
    play_episode(model, env, seed=0)
    assert env.done == [step % 3 for step in range(STEPS)]


@pytest.mark.parametrize("greedy", [True, False])
def test_an_evaluation_has_other_episodes_than_the_training(greedy, monkeypatch):
    seeds = []
    seed = VecEnvAdapter.seed
    monkeypatch.setattr(VecEnvAdapter, "seed", lambda self, given=None: seeds.append(given) or seed(self, given))
    config = resolve(env="Catch-5-2", cell="gru", n_envs=4, n_steps=4, hidden_size=8, timesteps=480, seed=7)
    model = make_model(config)
    (trained,) = seeds
    random = torch.get_rng_state()
    first, again = (evaluate(config, model, 30, greedy) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), random)
    assert np.array_equal(first, again)
    assert len(seeds) == 3
    assert min(seeds[1:]) > trained + 1000 * config.n_envs
