"""What a policy answers step by step: SB3's methods, each with the memory's state."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from fw_rl.agents import RecurrentA2C, RecurrentPPO
from fw_rl.cells import available_cells

B = 3


class Choices(gym.Env):
    """Looks at a number, and takes one of four actions."""

    observation_space = spaces.Discrete(5)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return int(self.np_random.integers(5)), {}

    def step(self, action):
        return int(self.np_random.integers(5)), float(action), bool(self.np_random.random() < 0.2), False, {}


@pytest.fixture
def policy():
    return RecurrentPPO("RecurrentPolicy", "CartPole-v1", seed=0).policy


def observations(seed=0, steps=1):
    return np.random.default_rng(seed).normal(size=(steps, B, 4)).astype(np.float32)


def after_some_steps(policy):
    """The state after two steps, as `predict` returns it."""
    state = None
    for observation in observations(seed=1, steps=2):
        _, state = policy.predict(observation, state, np.full(B, state is None))
    return state


def test_a_distribution_is_that_of_the_actions_that_are_evaluated(policy):
    state, starts = after_some_steps(policy), np.array([0, 1, 0])
    tensor, _ = policy.obs_to_tensor(observations()[0])
    distribution, new_state = policy.get_distribution(tensor, state, starts)
    actions = distribution.mode()
    memory = tuple(map(torch.as_tensor, state))
    arguments = tensor[None], actions[None], memory, torch.as_tensor(starts)[None].bool()
    values, log_prob, entropy = policy.evaluate_actions(*arguments)
    torch.testing.assert_close(distribution.log_prob(actions), log_prob[0])
    torch.testing.assert_close(distribution.entropy(), entropy[0])
    torch.testing.assert_close(policy.predict_values(tensor, state, starts), values[0])
    _, expected = policy.predict(observations()[0], state, starts)
    for part, other in zip(new_state, expected, strict=True):
        torch.testing.assert_close(part.detach(), torch.as_tensor(other))


def test_a_distribution_depends_on_what_was_seen_before(policy):
    tensor, _ = policy.obs_to_tensor(observations()[0])
    state = after_some_steps(policy)
    goes_on, begins = (policy.get_distribution(tensor, state, np.full(B, start))[0] for start in (False, True))
    anew, _ = policy.get_distribution(tensor, policy.initial_state(B), np.ones(B))
    assert not torch.allclose(goes_on.distribution.logits, begins.distribution.logits)
    torch.testing.assert_close(begins.distribution.logits, anew.distribution.logits)


def test_a_later_distribution_leaves_an_earlier_one_as_it_is(policy):
    first, second = (policy.obs_to_tensor(seen)[0] for seen in observations(steps=2))
    earlier, _ = policy.get_distribution(first, policy.initial_state(B), np.ones(B))
    before = earlier.distribution.logits.clone()
    policy.get_distribution(second, policy.initial_state(B), np.ones(B))
    assert torch.equal(earlier.distribution.logits, before)


def test_a_distribution_heeds_masks(policy):
    tensor, _ = policy.obs_to_tensor(observations()[0])
    masks = np.array([[True, False], [False, True], [True, True]])
    distribution, _ = policy.get_distribution(tensor, policy.initial_state(B), np.ones(B), masks)
    assert torch.equal(distribution.distribution.probs > 1e-6, torch.as_tensor(masks))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32, np.int64])
def test_starts_may_be_of_any_type_of_zeros_and_ones(policy, dtype):
    tensor, _ = policy.obs_to_tensor(observations()[0])
    state, starts = after_some_steps(policy), np.array([1, 0, 1])
    values = policy.predict_values(tensor, state, starts.astype(dtype))
    torch.testing.assert_close(values, policy.predict_values(tensor, state, torch.as_tensor(starts, dtype=torch.bool)))


@pytest.mark.parametrize("method", ["forward", "get_distribution", "predict_values"])
def test_rows_must_be_as_many_as_observations(policy, method):
    tensor, _ = policy.obs_to_tensor(observations()[0])
    with pytest.raises(ValueError, match="state must have 3 rows, as many as observations, got 2"):
        getattr(policy, method)(tensor, policy.initial_state(2), np.ones(B))
    with pytest.raises(ValueError, match="episode_start must have 3 entries, as many as observations, got 2"):
        getattr(policy, method)(tensor, policy.initial_state(B), np.ones(2))


def test_actions_of_one_step_are_not_evaluated(policy):
    tensor, _ = policy.obs_to_tensor(observations()[0])
    with pytest.raises(ValueError, match=r"episode_starts must be \[T, B\], as all that is evaluated, got \[3\]"):
        policy.evaluate_actions(tensor, torch.zeros(B), policy.initial_state(B), torch.ones(B, dtype=torch.bool))


def test_what_has_no_place_for_a_state_is_refused(policy):
    with pytest.raises(NotImplementedError, match="call predict or forward"):
        policy._predict(torch.zeros(1, 4))


def test_one_choice_is_an_array_as_in_sb3():
    model = RecurrentPPO("RecurrentPolicy", Choices(), seed=0)
    action, state = model.predict(np.array(2))
    assert isinstance(action, np.ndarray) and action.shape == () and action.dtype == np.int64
    assert all(len(part) == 1 for part in state)


def test_the_pair_of_a_reset_is_explained():
    model = RecurrentPPO("RecurrentPolicy", "CartPole-v1")
    with pytest.raises(ValueError, match="got a tuple: of Gymnasium's"):
        model.predict(gym.make("CartPole-v1").reset(seed=0))


@pytest.mark.parametrize("cell", available_cells())
def test_a_policy_that_has_learned_can_be_copied(cell):
    model = RecurrentA2C("RecurrentPolicy", "CartPole-v1", n_steps=4, seed=0, policy_kwargs=dict(cell=cell, hidden_size=8))
    model.learn(8)
    twin = copy.deepcopy(model.policy)
    (action, state), (other, its_state) = (p.predict(observations()[0], deterministic=True) for p in (model.policy, twin))
    assert np.array_equal(action, other)
    assert all(np.array_equal(part, its_part) for part, its_part in zip(state, its_state, strict=True))
    before = [parameter.clone() for parameter in twin.parameters()]
    model.learn(8)
    assert all(torch.equal(old, now) for old, now in zip(before, twin.parameters(), strict=True))
