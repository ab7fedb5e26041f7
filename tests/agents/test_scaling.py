"""Observations and rewards come to the net in one range, by statistics that the policy keeps."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import VecNormalize
from torch.testing import assert_close

from fw_rl.agents import A3C, RecurrentA2C, RecurrentPPO
from fw_rl.agents.features import standard_extractor
from fw_rl.agents.scaling import ObservationScaling, RewardScaling, RunningStatistics
from tests.agents.helpers import make_model, rollouts_of
from tests.agents.test_normalization import Sensors

SPACES = {
    "unbounded": (spaces.Box(-np.inf, np.inf, (3,)), True),
    "within one": (spaces.Box(-1, 1, (3,)), True),
    "bytes": (spaces.Box(0, 255, (128,), np.uint8), True),
    "small image": (spaces.Box(0, 255, (3, 7, 7), np.uint8), True),
    "image": (spaces.Box(0, 255, (3, 64, 64), np.uint8), False),
    "image of floats": (spaces.Box(0, 1, (1, 40, 40)), False),
    "pixels of 0 and 1": (spaces.Box(0, 1, (256,)), False),
    "choice": (spaces.Discrete(4), False),
    "marks": (spaces.MultiBinary(4), False),
}


@pytest.mark.parametrize("space, scaled", SPACES.values(), ids=SPACES)
def test_numbers_are_scaled_and_choices_and_pictures_not(space, scaled):
    assert bool(ObservationScaling(space).keys) == scaled
    in_a_dict = ObservationScaling(spaces.Dict(part=space, other=spaces.Discrete(2)))
    assert in_a_dict.keys == (["part"] if scaled else [])


def test_a_reward_is_at_most_ten_deviations_long():
    rewards = torch.tensor([[0.0]] * 999 + [[-1e6]] + [[1.0]])
    scaled = RewardScaling().scale(rewards, torch.zeros(1001, 1, dtype=torch.bool), torch.zeros(1, dtype=torch.float64), 0.9)
    assert scaled.min() == -10
    assert 0 < scaled[-1] < 1e-3


def test_statistics_are_those_of_all_values_together():
    statistics, generator = RunningStatistics((2,)), torch.Generator().manual_seed(0)
    batches = [torch.randn(n, 2, generator=generator, dtype=torch.float64) * 7 + 300 for n in (1, 5, 40)]
    for batch in batches:
        statistics.update(batch)
    together = torch.cat(batches)
    assert_close(statistics.mean, together.mean(dim=0))
    assert_close(statistics.var, together.var(dim=0, correction=0))
    assert statistics.count == 46


def test_statistics_of_two_are_those_of_one():
    """Two that begin with the same statistics see different values, and both add what is new to the statistics in common."""
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(n, 2, generator=generator, dtype=torch.float64) * 7 + 300 for n in (30, 5, 1)]
    for first in (batches[:1], []):
        common = RunningStatistics((2,))
        for batch in first:
            common.update(batch)
        workers = [copy.deepcopy(common), copy.deepcopy(common)]
        before = copy.deepcopy(common)
        for worker, batch in zip(workers, batches[1:], strict=True):
            worker.update(batch)
        for worker in workers:
            common.catch_up(worker, before)
        together = torch.cat([*first, *batches[1:]])
        assert_close(common.mean, together.mean(dim=0))
        assert_close(common.var, together.var(dim=0, correction=0))
        assert common.count == len(together)


def test_what_is_applied_changes_only_when_refreshed():
    scaling, seen = ObservationScaling(spaces.Box(-np.inf, np.inf, (1,))), torch.tensor([[[1.0]], [[3.0]]])
    scaling.update(seen)
    assert_close(scaling(seen), seen)
    assert_close(scaling(torch.tensor([500.0])), torch.tensor([500.0]))
    scaling.refresh()
    assert_close(scaling(seen), torch.tensor([[[-1.0]], [[1.0]]]))
    assert_close(scaling(torch.tensor([500.0])), torch.tensor([10.0]))


@pytest.mark.parametrize("normalize_images", [True, False])
def test_a_small_image_is_scaled_in_the_units_that_the_net_sees(normalize_images):
    grid = spaces.Box(0, 255, (3, 7, 7), np.uint8)
    scaling = ObservationScaling(spaces.Dict(grid=grid), normalize_images)
    shown = torch.randint(0, 11, (20, 4, 3, 7, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    scaling.update(dict(grid=shown))
    scaling.refresh()
    seen = scaling(preprocess_obs(dict(grid=shown.flatten(0, 1)), spaces.Dict(grid=grid), normalize_images))["grid"]
    assert_close(seen.mean(dim=0), torch.zeros(3, 7, 7), atol=1e-3, rtol=0)
    assert_close(seen.std(dim=0, correction=0), torch.ones(3, 7, 7), atol=1e-2, rtol=0)


@pytest.mark.parametrize("normalize_images", [True, False])
@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1000, 1000, (3, 40, 40)),
        spaces.Box(-1000, 1000, (2, 40, 40)),
        spaces.Box(-1000, 1000, (3, 20, 20)),
        spaces.Box(0, 255, (3, 40, 40), np.uint8),
        spaces.Box(0, 255, (3, 20, 20), np.uint8),
    ],
)
def test_what_no_cnn_sees_is_scaled(space, normalize_images):
    seen_by_cnn = standard_extractor(space, normalize_images) is NatureCNN
    assert bool(ObservationScaling(space, normalize_images).keys) != seen_by_cnn


def shifted():
    """CartPole on another scale."""
    env = gym.make("CartPole-v1")
    wide = spaces.Box(-np.inf, np.inf, (4,), np.float64)
    return TransformObservation(env, lambda seen: np.asarray(seen, dtype=np.float64) * 1000 + 5000, wide)


def test_the_scale_of_an_environment_makes_no_difference():
    seen = np.random.default_rng(0).normal(size=(50, 4))
    actions = []
    for make, observations in ((lambda: gym.make("CartPole-v1"), seen), (shifted, seen * 1000 + 5000)):
        policy = make_model(make_vec_env(make, n_envs=2), n_steps=4).policy
        policy.observation_scaling.update(torch.as_tensor(observations).unsqueeze(1))
        policy.observation_scaling.refresh()
        actions.append(policy.encode(torch.as_tensor(observations).unsqueeze(1)))
    assert_close(*actions, rtol=1e-3, atol=1e-3)


def test_rewards_are_scaled_as_by_vec_normalize():
    kept = []
    for norm_reward in (True, False):
        env = make_vec_env("Pendulum-v1", n_envs=3, seed=0)
        if not norm_reward:
            env = VecNormalize(env, norm_obs=False, gamma=0.9)
            env.ret_rms.count = 0.0
        options = dict(cell="gru", n_steps=250, gamma=0.9, learning_rate=1e-9, policy_kwargs=dict(norm_obs=False))
        model = make_model(env, norm_reward=norm_reward, **options)
        model._bootstrap_values = lambda dones, infos: torch.zeros(3)
        kept.append([rollout.rewards for rollout in rollouts_of(model, 2)])
    np.testing.assert_allclose(*kept, rtol=1e-5)
    assert np.abs(kept[0]).max() < 10


def test_a_prediction_takes_what_the_environment_shows(tmp_path):
    model = RecurrentPPO("RecurrentPolicy", make_vec_env(Sensors, n_envs=2), n_steps=20, batch_size=40, seed=0).learn(80)
    near, far = model.policy.observation_scaling.parts
    assert_close(near.statistics.mean, torch.full((2,), 5.0, dtype=torch.float64), rtol=0.01, atol=0)
    assert_close(far.factor, torch.tensor([0.01]), rtol=0.3, atol=0)
    observation = model.get_env().reset()
    model.save(tmp_path / "agent")
    loaded = RecurrentPPO.load(tmp_path / "agent")
    (_, one), (_, other) = (agent.predict(observation, deterministic=True) for agent in (model, loaded))
    np.testing.assert_array_equal(one[0], other[0])
    blank = RecurrentPPO.load(tmp_path / "agent")
    blank.policy.observation_scaling = ObservationScaling(spaces.Dict())
    assert not np.allclose(blank.predict(observation, deterministic=True)[1][0], one[0])


def test_an_episode_begins_without_the_rewards_of_the_last():
    model = RecurrentA2C("RecurrentPolicy", make_vec_env("CartPole-v1", n_envs=2), n_steps=5, seed=0).learn(200)
    model._discounted_returns[:] = 1000.0
    model.learn(10, reset_num_timesteps=True)
    assert (model._discounted_returns < 10).all()


@pytest.mark.processes
def test_workers_share_what_they_know_of_the_scale():
    model = A3C("RecurrentPolicy", "CartPole-v1", n_steps=10, policy_kwargs=dict(hidden_size=8)).learn(400)
    assert model.policy.reward_scaling.count > model.num_timesteps / 2  # they write without a lock: now and then one is lost
    place, _, angle, _ = model.policy.observation_scaling.parts[0].statistics.var
    assert max(place, angle) < 0.5  # they begin at 1, and both are small in CartPole, other than the velocities


def test_an_agent_learns_with_the_scaling_that_it_acted_with():
    model = make_model(make_vec_env(shifted, n_envs=2, seed=0), n_steps=6, learning_rate=0.0)
    _, rollout = rollouts_of(model, 2)
    outputs, _ = model.policy.remember(rollout.observations, rollout.state, rollout.episode_starts)
    assert_close(outputs, rollout.outputs)


def test_bootstrap_values_are_of_scaled_rewards():
    kept = []
    for value in (0.0, 50.0):
        model = make_model(make_vec_env("Pendulum-v1", n_envs=3, seed=0), n_steps=250, gamma=0.9)
        model._bootstrap_values = lambda dones, infos, value=value: value * torch.as_tensor(dones, dtype=torch.float32)
        kept.append(rollouts_of(model, 1)[0].rewards)
    added = kept[1] - kept[0]
    np.testing.assert_allclose(added[199], 0.9 * 50, rtol=1e-5)
    assert not np.delete(added, 199, axis=0).any()
