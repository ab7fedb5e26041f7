"""Agents learn from vector environments of Gymnasium and of EnvPool, or refuse them before the first step."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import NormalizeObservation

from fw_rl.agents import RecurrentA2C, RecurrentPPO
from fw_rl.agents.environments import wrap_env
from fw_rl.envs import CatchEnv, VecEnvAdapter
from tests.agents.helpers import make_model, same_parameters
from tests.envs.helpers import SameArray, functions
from tests.envs.shares import Terse

EVERY_AGENT = pytest.mark.parametrize("agent", [RecurrentA2C, RecurrentPPO])


@EVERY_AGENT
def test_what_cannot_begin_some_episodes_is_refused_when_handed_over(agent):
    with pytest.raises(ValueError, match=r"make it by gym\.make_vec\('CartPole-v1', 4, vectorization_mode='sync'\)$"):
        agent("RecurrentPolicy", gym.make_vec("CartPole-v1", 4))
    with pytest.raises(ValueError, match=r"^env must be without NormalizeObservation, .*: use SB3's VecNormalize$"):
        agent("RecurrentPolicy", NormalizeObservation(SyncVectorEnv(functions())))


@EVERY_AGENT
@pytest.mark.parametrize("env", [CatchEnv, 5])
def test_what_is_no_environment_is_refused(agent, env):
    with pytest.raises(ValueError, match=r"^env must be a Gymnasium environment, or a vector of them, .*, or an id, got "):
        agent("RecurrentPolicy", env)


def test_a_reset_of_the_begun_rows_alone_changes_nothing():
    terse, complete = (make_model(make(functions()), n_steps=8).learn(160) for make in (Terse, SyncVectorEnv))
    assert same_parameters(terse, complete)


@pytest.mark.parametrize("kind", ["Env", "NEXT_STEP", "DISABLED"])
def test_last_observations_outlive_a_reset_of_the_same_array(kind):
    env = TimeLimit(SameArray(), 3)
    vec_env = wrap_env(env if kind == "Env" else SyncVectorEnv([lambda: env], autoreset_mode=AutoresetMode[kind]))
    seen, last = [vec_env.reset()], []
    for _ in range(6):
        observation, _, dones, infos = vec_env.step(np.zeros(1, dtype=int))
        seen.append(observation)
        last += [info["terminal_observation"].item() for info, done in zip(infos, dones, strict=True) if done]
    assert [observation.item() for observation in seen] == [0, 1, 2, 0, 1, 2, 0]
    assert last == [3, 3]


def make_pool(count=4):
    envpool = pytest.importorskip("envpool")
    return envpool.make_gymnasium("CartPole-v1", num_envs=count, num_threads=1, seed=1)


def test_every_episode_of_envpool_begins_once_and_others_go_on():
    env = VecEnvAdapter(make_pool(), monitor=True)
    env.reset()
    rng, ages, episodes = np.random.default_rng(0), np.zeros(4, dtype=int), 0
    for _ in range(200):
        observations, rewards, dones, infos = env.step(rng.integers(2, size=4))
        ages += 1
        assert [info["elapsed_step"] for info in infos] == ages.tolist()
        assert (rewards == 1).all()
        assert (np.abs(observations[:, 2]) < 0.2095).all()
        assert (np.abs(observations[dones]) <= 0.05).all()
        for i in np.flatnonzero(dones):
            assert np.abs(infos[i]["terminal_observation"][2]) > 0.2 or np.abs(infos[i]["terminal_observation"][0]) > 2.4
            assert infos[i]["episode"]["l"] == ages[i]
        episodes += dones.sum()
        ages[dones] = 0
    assert episodes > 20


@EVERY_AGENT
def test_agents_learn_from_envpool(agent):
    model = agent("RecurrentPolicy", make_pool(), n_steps=32, device="cpu")
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(256)
    assert not any(torch.equal(*pair) for pair in zip(before, model.policy.parameters(), strict=True))
    assert len(model.ep_info_buffer) > 5


def test_envpool_that_steps_some_environments_at_a_time_is_refused():
    envpool = pytest.importorskip("envpool")
    pool = envpool.make_gymnasium("CartPole-v1", num_envs=4, batch_size=2)
    with pytest.raises(ValueError, match=r"^observations must be arrays of 4 rows, got the shape \(2, 4\) from CartPole"):
        make_model(pool, seed=None).learn(16)
