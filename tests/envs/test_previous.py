"""What was done and earned is told at the next step, and never across the end of an episode."""

import doctest

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv

from fw_rl.agents import RecurrentA2C
from fw_rl.envs import CatchEnv, CatchVectorEnv, PreviousStep, VecEnvAdapter, VecPreviousStep, previous

ACTIONS = {
    "Discrete": (spaces.Discrete(3), 2, [0, 0, 1]),
    "MultiDiscrete": (spaces.MultiDiscrete([2, 3]), [1, 0], [0, 1, 1, 0, 0]),
    "MultiBinary": (spaces.MultiBinary(2), [1, 0], [1, 0]),
    "Box": (spaces.Box(-2, 2, (2, 1)), [[0.5], [-1.5]], [0.5, -1.5]),
}


class Counter(gym.Env):
    """Shows and pays the number of the step; an episode has three."""

    def __init__(self, action_space=None, seen=None):
        self.action_space = action_space or spaces.Discrete(3)
        self.observation_space = seen or spaces.Box(0, 9, (1,), np.float32)

    def _see(self):
        one = np.array([self.t], dtype=np.float32)
        return {name: one for name in self.observation_space} if isinstance(self.observation_space, spaces.Dict) else one

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._see(), {}

    def step(self, action):
        self.t += 1
        return self._see(), float(self.t), self.t == 3, False, {}


@pytest.mark.parametrize("space, action, told", ACTIONS.values(), ids=ACTIONS)
def test_an_action_is_told_as_numbers(space, action, told):
    env = PreviousStep(Counter(space))
    observation, _ = env.reset()
    assert np.array_equal(observation["previous_action"], np.zeros(len(told)))
    assert np.array_equal(observation["previous_reward"], [0])
    for t in (1, 2, 3):
        observation, *_ = env.step(np.array(action, dtype=space.dtype))
        assert np.array_equal(observation["previous_action"], told)
        assert np.array_equal(observation["previous_reward"], [t])
        assert np.array_equal(observation["observation"], [t])
        assert env.observation_space.contains(observation)


def test_an_episode_does_not_know_the_one_before():
    env = VecPreviousStep(DummyVecEnv([Counter] * 2))
    assert not np.any(env.reset()["previous_action"])
    for t in range(1, 8):
        observation, rewards, dones, infos = env.step(np.array([2, 1]))
        ended = t % 3 == 0
        assert np.array_equal(rewards, [(t - 1) % 3 + 1] * 2)
        assert np.array_equal(dones, [ended] * 2)
        expected = np.zeros((2, 3)) if ended else np.eye(3)[[2, 1]]
        assert np.array_equal(observation["previous_action"], expected)
        assert np.array_equal(observation["previous_reward"], np.zeros((2, 1)) if ended else rewards[:, None])
        if ended:
            last = infos[1]["terminal_observation"]
            assert np.array_equal(last["previous_action"], [0, 1, 0])
            assert np.array_equal(last["previous_reward"], [3])
            assert np.array_equal(last["observation"], [3])


def test_both_ways_tell_the_same():
    one = DummyVecEnv([lambda: PreviousStep(CatchEnv(6, 2))])
    many = VecPreviousStep(DummyVecEnv([lambda: CatchEnv(6, 2)]))
    one.seed(3), many.seed(3)
    a, b = one.reset(), many.reset()
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)
        action = rng.integers(3, size=1)
        (a, *_), (b, *_) = one.step(action), many.step(action)
    assert one.observation_space == many.observation_space


def test_only_one_of_them():
    assert list(PreviousStep(Counter(), action=False).observation_space) == ["observation", "previous_reward"]
    assert list(PreviousStep(Counter(), reward=False).observation_space) == ["observation", "previous_action"]


def test_a_dict_keeps_its_keys():
    seen = spaces.Dict(a=spaces.Box(0, 9, (1,)), b=spaces.Box(0, 9, (1,)))
    observation, _ = PreviousStep(Counter(seen=seen)).reset()
    assert list(observation) == ["a", "b", "previous_action", "previous_reward"]


def test_it_passes_the_checker_of_gymnasium():
    check_env(PreviousStep(CatchEnv(6, 2)), skip_render_check=True)


@pytest.mark.processes
def test_an_agent_learns_and_goes_on_from_a_file(tmp_path):
    def make():
        return VecPreviousStep(VecEnvAdapter(CatchVectorEnv(4, n=6, m=2), monitor=True))

    memory = dict(cell="gru", hidden_size=8, encoder_arch=(8,))
    model = RecurrentA2C("RecurrentPolicy", make(), n_steps=5, seed=0, policy_kwargs=memory, device="cpu")
    model.learn(100)
    model.save(tmp_path / "agent")
    model.learn(100, reset_num_timesteps=False)
    again = RecurrentA2C.load(tmp_path / "agent", make(), device="cpu").learn(100, reset_num_timesteps=False)
    for one, other in zip(model.policy.parameters(), again.policy.parameters(), strict=True):
        assert np.array_equal(one.detach(), other.detach())


def test_what_cannot_be_told():
    with pytest.raises(ValueError, match=r"^action or reward must be True, got False for both$"):
        PreviousStep(Counter(), action=False, reward=False)
    with pytest.raises(ValueError, match=r"^observation_space must have no part .*, got previous_action$"):
        PreviousStep(PreviousStep(Counter(), reward=False))


def test_the_examples_in_the_documentation():
    result = doctest.testmod(previous)
    assert result.attempted
    assert not result.failed
