"""A rollout of experience: what it keeps, its advantages, and how acting fills it where episodes and time limits end."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.testing import assert_close

from fw_rl import memory
from fw_rl.agents import RecurrentA2C, RecurrentPPO
from fw_rl.agents.returns import generalized_advantages
from fw_rl.agents.rollout import RecurrentRollout
from tests.agents.helpers import (
    CELLS,
    PLAIN,
    VECTORIZATIONS,
    Scripted,
    every_cell_with,
    make_model,
    register_for_a_test,
    rollouts_of,
    scramble,
    scripted_envs,
)

EVERY_CELL = pytest.mark.parametrize("cell, options", CELLS.values(), ids=CELLS)
EVERY_VECTORIZATION = pytest.mark.parametrize("vectorize", VECTORIZATIONS.values(), ids=VECTORIZATIONS)

SCRIPTS = [
    ((3, "terminated"), (1, "truncated"), (6, "terminated")),
    ((1, "terminated"),),
    ((2, "truncated"), (9, "terminated"), (4, "truncated")),
]


def literal_advantages(rewards, values, ends, last_values, gamma, gae_lambda):
    """Eq. 16 of Schulman et al. 2016 as the sum that it is."""
    steps, rows = rewards.shape
    advantages = np.zeros((steps, rows))
    for row in range(rows):
        for begin in range(steps):
            for t in range(begin, steps):
                over = bool(ends[t, row])
                following = 0.0 if over else float(values[t + 1, row] if t + 1 < steps else last_values[row])
                error = float(rewards[t, row]) + gamma * following - float(values[t, row])
                advantages[begin, row] += (gamma * gae_lambda) ** (t - begin) * error
                if over:
                    break
    return advantages


def random_experience(seed, steps=9, rows=5, end_probability=0.25):
    rng = np.random.default_rng(seed)
    ends = torch.as_tensor(rng.random((steps, rows)) < end_probability)
    rewards, values = torch.as_tensor(rng.normal(size=(2, steps, rows)), dtype=torch.float32)
    return rewards, values, ends, torch.as_tensor(rng.normal(size=rows), dtype=torch.float32)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("end_probability", [0.0, 0.25, 1.0])
def test_advantages_are_the_literal_sum(gamma, gae_lambda, end_probability):
    for seed, steps in enumerate((1, 2, 9)):
        experience = random_experience(seed, steps, end_probability=end_probability)
        copies = [part.clone() for part in experience]
        advantages = generalized_advantages(*experience, gamma, gae_lambda)
        np.testing.assert_allclose(advantages, literal_advantages(*experience, gamma, gae_lambda), rtol=1e-5, atol=1e-5)
        assert advantages.dtype == torch.float32
        assert all(map(torch.equal, experience, copies))


def test_advantages_by_hand():
    rewards, values = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[10.0], [20.0], [30.0]])
    last_values = torch.tensor([40.0])
    going_on, ended = torch.zeros(3, 1, dtype=torch.bool), torch.tensor([[False], [True], [False]])
    # Errors with gamma 1/2: 1 + 10 - 10 = 1, 2 + 15 - 20 = -3 (or 2 - 20 = -18 at the end), 3 + 20 - 30 = -7.
    for ends, gae_lambda, expected in (
        (going_on, 0.0, [1, -3, -7]),
        (going_on, 1.0, [1 + 0.5 * (-3 + 0.5 * -7), -3 + 0.5 * -7, -7]),
        (going_on, 0.5, [1 + 0.25 * (-3 + 0.25 * -7), -3 + 0.25 * -7, -7]),
        (ended, 0.0, [1, -18, -7]),
        (ended, 1.0, [1 - 9, -18, -7]),
        (ended, 0.5, [1 - 4.5, -18, -7]),
    ):
        advantages = generalized_advantages(rewards, values, ends, last_values, 0.5, gae_lambda)
        np.testing.assert_allclose(advantages[:, 0], expected)


def test_with_lambda_1_advantage_and_value_are_the_discounted_return():
    rewards, values, ends, last_values = random_experience(3)
    advantages = generalized_advantages(rewards, values, ends, last_values, 0.9, 1.0)
    returns, following = torch.zeros_like(rewards), last_values
    for t in reversed(range(len(rewards))):
        returns[t] = following = rewards[t] + 0.9 * following.where(~ends[t], 0.0)
    np.testing.assert_allclose(advantages + values, returns, rtol=1e-5, atol=1e-5)


def test_nothing_after_an_end_reaches_an_advantage_before_it():
    rewards, values, _, last_values = random_experience(4)
    ends = torch.zeros_like(rewards, dtype=torch.bool)
    ends[4] = True
    before = generalized_advantages(rewards, values, ends, last_values, 0.9, 0.95)
    rewards[5:], values[5:], last_values = 1e6, -1e6, last_values * 1e6
    after = generalized_advantages(rewards, values, ends, last_values, 0.9, 0.95)
    assert torch.equal(after[:5], before[:5])
    assert (after[5:] != before[5:]).all()


OBSERVATION_SPACES = {
    "Box": spaces.Box(-1, 1, (2, 3), np.float32),
    "float64": spaces.Box(-1, 1, (3,), np.float64),
    "image": spaces.Box(0, 255, (1, 4, 4), np.uint8),
    "Discrete": spaces.Discrete(5),
    "MultiBinary": spaces.MultiBinary(3),
    "MultiDiscrete": spaces.MultiDiscrete([2, 7]),
    "Dict": spaces.Dict(
        dict(image=spaces.Box(0, 255, (4, 4), np.uint8), place=spaces.Discrete(3), speed=spaces.Box(-1, 1, (2,)))
    ),
}
ACTION_SPACES = {
    "Discrete": spaces.Discrete(4),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
    "Box": spaces.Box(-1, 1, (2,), np.float32),
}


def samples(space, steps, rows):
    """Random elements of a space, [T, B, ...], or a dictionary of them."""
    space.seed(0)
    if isinstance(space, spaces.Dict):
        return {key: samples(part, steps, rows) for key, part in space.spaces.items()}
    return np.array([[space.sample() for _ in range(rows)] for _ in range(steps)], dtype=space.dtype)


def at(observations, t):
    return {key: part[t] for key, part in observations.items()} if isinstance(observations, dict) else observations[t]


def filled(observation_space, action_space, steps=4, rows=3):
    """A rollout of random steps, and what was put in."""
    rollout = RecurrentRollout(steps, observation_space, action_space, n_envs=rows)
    rng = np.random.default_rng(0)
    given = dict(
        observations=samples(observation_space, steps, rows),
        actions=samples(action_space, steps, rows),
        episode_starts=rng.random((steps, rows)) < 0.4,
        rewards=rng.normal(size=(steps, rows)).astype(np.float32),
        outputs=torch.randn(steps, rows, 8, generator=torch.Generator().manual_seed(0)),
    )
    rollout.reset()
    rollout.add_state((torch.full((rows, 8), 7.0),))
    seen = []
    for t in range(steps):
        seen.append(rollout.add_observation(at(given["observations"], t), given["episode_starts"][t]))
        rollout.add(torch.as_tensor(given["actions"][t]), given["rewards"][t], given["outputs"][t])
    return rollout, given, seen


def assert_same_array(tensor, array):
    assert tensor.dtype == torch.as_tensor(array).dtype
    np.testing.assert_array_equal(tensor.numpy(), array)


def assert_same_observation(tensors, arrays):
    if isinstance(arrays, dict):
        assert tensors.keys() == arrays.keys()
        for key, array in arrays.items():
            assert_same_array(tensors[key], array)
    else:
        assert_same_array(tensors, arrays)


@pytest.mark.parametrize("observation_space", OBSERVATION_SPACES.values(), ids=OBSERVATION_SPACES)
def test_observations_come_back_as_they_went_in(observation_space):
    rollout, given, seen = filled(observation_space, spaces.Discrete(2))
    assert_same_observation(rollout.observations, given["observations"])
    for t, (observation, starts) in enumerate(seen):
        assert_same_observation(observation, at(given["observations"], t))
        assert_same_array(starts, given["episode_starts"][t])


@pytest.mark.parametrize("action_space", ACTION_SPACES.values(), ids=ACTION_SPACES)
def test_actions_and_all_else_come_back_as_they_went_in(action_space):
    rollout, given, _ = filled(spaces.Discrete(2), action_space)
    assert_same_array(rollout.actions, given["actions"])
    assert_same_array(rollout.episode_starts, given["episode_starts"])
    np.testing.assert_array_equal(rollout.rewards, given["rewards"])
    assert torch.equal(rollout.outputs, given["outputs"])
    assert torch.equal(rollout.states[0][0], torch.full((3, 8), 7.0))


def test_actions_out_of_bounds_are_kept_as_they_were_sampled():
    rollout = RecurrentRollout(1, spaces.Discrete(2), spaces.Box(-1, 1, (1,), np.float32), n_envs=2)
    rollout.add_observation(np.zeros(2), np.zeros(2, bool))
    rollout.add(torch.tensor([[-3.5], [2.25]]), np.zeros(2), torch.zeros(2, 1))
    assert rollout.actions.flatten().tolist() == [-3.5, 2.25]


def test_a_rollout_is_filled_anew_after_a_reset():
    rollout, _, _ = filled(spaces.Discrete(5), spaces.Discrete(4), steps=2, rows=2)
    state = (torch.ones(2, 3),)
    rollout.reset()
    rollout.add_state(state)
    for t in range(2):
        rollout.add_observation(np.array([t, t + 1]), np.array([False, True]))
        rollout.add(torch.tensor([t, t]), np.array([-1.0, t]), torch.full((2, 8), float(t)))
    assert rollout.states == [state]
    assert rollout.observations.tolist() == [[0, 1], [1, 2]]
    assert rollout.actions.tolist() == [[0, 0], [1, 1]]
    assert rollout.episode_starts.tolist() == [[False, True]] * 2
    assert rollout.rewards.tolist() == [[-1, 0], [-1, 1]]
    assert rollout.outputs[:, 0, 0].tolist() == [0, 1]


def test_an_observation_that_the_environment_overwrites_is_kept():
    rollout = RecurrentRollout(2, spaces.Box(0, 9, (1,), np.float32), spaces.Discrete(2), n_envs=2)
    shared = np.ones((2, 1), dtype=np.float32)
    for _ in range(2):
        rollout.add_observation(shared, np.zeros(2, bool))
        rollout.add(torch.zeros(2), np.zeros(2), torch.zeros(2, 1))
        shared += 1
    assert rollout.observations.flatten().tolist() == [1, 1, 2, 2]


def test_episodes_end_where_the_next_start_or_the_rollout_says():
    rollout = RecurrentRollout(3, spaces.Discrete(2), spaces.Discrete(2), gamma=0.5, gae_lambda=1.0, n_envs=2)
    starts = np.array([[True, False], [False, True], [False, False]])
    for t in range(3):
        rollout.add_observation(np.zeros(2), starts[t])
        rollout.add(torch.zeros(2), np.array([1.0, 1.0]), torch.zeros(2, 1))
    rollout.finish(torch.tensor([True, False]), torch.tensor([99.0, 8.0]))
    rollout.add_evaluation(torch.zeros(3, 2), torch.zeros(3, 2))
    np.testing.assert_allclose(rollout.advantages, [[1.75, 1.0], [1.5, 1 + 0.5 * (1 + 0.5 * 8)], [1.0, 1 + 0.5 * 8]])


def test_a_space_without_a_shape_is_refused_in_one_line():
    for space in (spaces.Tuple([spaces.Discrete(2)]), spaces.Dict(a=spaces.Tuple([spaces.Discrete(2)]))):
        with pytest.raises(ValueError, match=r"^.*has no shape.*$"):
            RecurrentRollout(2, space, spaces.Discrete(2))


SCALE = 0.3


def scripted_model(vectorize, cell="gru", *, n_steps=4, scripts=SCRIPTS, **kwargs):
    """A plain agent with random parameters that never change."""
    settings = dict(n_steps=n_steps, learning_rate=0.0, norm_reward=False, policy_kwargs=PLAIN) | kwargs
    model = make_model(vectorize(scripted_envs(scripts, scale=SCALE)), cell, **settings)
    scramble(model.policy)
    return model


def place(observation):
    """Which environment, episode and step an observation shows."""
    return (observation / SCALE).round().int().tolist()


def alone(policy, number, episode, t):
    """The cell's output at step t of an episode that a fresh memory sees from its first step, one step at a time."""
    state = policy.initial_state(1)
    for step in range(t + 1):
        observation = torch.tensor([[[number, episode, step]]], dtype=torch.float32) * SCALE
        with torch.no_grad():
            output, state = policy.remember(observation, state, torch.zeros(1, 1, dtype=torch.bool))
    return output[0, 0]


def action_probabilities(policy, observation, state, starts):
    """Of three actions, [B, 3]."""
    observations, rows = observation.expand(1, 3, -1), len(observation)
    with torch.no_grad():
        log_prob = [
            policy.evaluate_actions(observations, torch.full((1, rows), action), state, starts[None])[1][0]
            for action in range(3)
        ]
    return torch.stack(log_prob, dim=1).exp()


@every_cell_with("vectorize", VECTORIZATIONS)
def test_outputs_depend_on_their_own_episode_only(cell, options, vectorize):
    model = scripted_model(vectorize, cell, cell_kwargs=options)
    firsts = 0
    for rollout in rollouts_of(model, 4):
        for observation, output in zip(rollout.observations.flatten(0, 1), rollout.outputs.flatten(0, 1), strict=True):
            number, episode, t = place(observation)
            assert_close(output, alone(model.policy, number, episode, t), rtol=1e-4, atol=1e-5)
            firsts += t == 0
    assert firsts > 20


@EVERY_VECTORIZATION
def test_an_episode_begins_with_a_fresh_memory(vectorize):
    model = scripted_model(vectorize, "fast-weights")
    policy, calls = model.policy, []
    act = policy.act

    def spy(observation, stepper, starts, **options):
        calls.append((observation.clone(), stepper.state, starts.clone()))
        return act(observation, stepper, starts, **options)

    policy.act = spy
    model.learn(16 * model.n_envs)
    differences = []
    for observation, state, starts in calls:
        first = observation[:, 2] == 0
        assert torch.equal(starts, first)
        probabilities = action_probabilities(policy, observation, state, starts)
        fresh = action_probabilities(policy, observation, policy.initial_state(3), torch.zeros(3, dtype=torch.bool))
        assert_close(probabilities[first], fresh[first], rtol=1e-5, atol=1e-6)
        differences += (probabilities - fresh)[~first].abs().amax(dim=1).tolist()
    assert len(differences) > 10
    assert min(differences) > 1e-4


@EVERY_CELL
def test_no_gradient_crosses_the_start_of_an_episode(cell, options):
    model = scripted_model(DummyVecEnv, cell, cell_kwargs=options, n_steps=12)
    scramble(model.policy, scale=0.4)
    rollouts_of(model, 1)
    rollout, policy = model.rollout_buffer, model.policy
    observations = rollout.observations.requires_grad_()
    episodes = (observations.detach()[..., 1] / SCALE).round()
    for outputs in (None, rollout.outputs):
        values, log_prob, entropy = policy.evaluate_actions(
            observations, rollout.actions, rollout.states[0], rollout.episode_starts, outputs
        )
        reached = torch.zeros(12, 3, dtype=torch.bool)
        for t in range(12):
            for row in range(3):
                loss = values[t, row] + log_prob[t, row] + entropy[t, row]
                (gradient,) = torch.autograd.grad(loss, observations, retain_graph=True)
                same = torch.zeros(12, 3, dtype=torch.bool)
                same[: t + 1, row] = episodes[: t + 1, row] == episodes[t, row]
                assert not gradient[~same].any()
                reached[t, row] = gradient[same].any()
        assert reached.float().mean() > 0.9


def in_one_matrix(model, state):
    """h and the fast weights, whose writes are folded at other times while acting."""
    h, fast = model.policy.cell.unpack(state)
    folded = memory.fold(fast)
    return h, folded.matrix * folded.faded[:, None, None]


def test_a_rollout_goes_on_from_the_last_state():
    model = scripted_model(DummyVecEnv, "fast-weights", cell_kwargs=dict(window=3))
    rollouts = rollouts_of(model, 4)
    assert not any(part.any() for part in rollouts[0].state)
    for rollout in rollouts:
        with torch.no_grad():
            outputs, after = model.policy.remember(rollout.observations, rollout.state, rollout.episode_starts)
        assert_close(rollout.outputs, outputs, rtol=1e-4, atol=1e-5)
        for ours, again in zip(in_one_matrix(model, rollout.after), in_one_matrix(model, after), strict=True):
            assert_close(ours, again, rtol=1e-4, atol=1e-5)
    for rollout, following in pairwise(rollouts):
        assert following.state[0].any()
        assert_close(following.state, rollout.after, rtol=0, atol=0)


def tally_model(monkeypatch, env, *, n_steps, value=(0.0, 0.0, 1.0), gamma=0.5, **kwargs):
    """An agent whose value is the sum over the episode so far of `value` . (number, episode, t)."""
    register_for_a_test(monkeypatch)
    settings = dict(n_steps=n_steps, gamma=gamma, learning_rate=0.0, norm_reward=False) | kwargs
    model = make_model(env, "tally", policy_kwargs=PLAIN | dict(encoder_arch=(), hidden_size=3), **settings)
    with torch.no_grad():
        model.policy.value_net.weight.copy_(torch.tensor([value]))
        model.policy.value_net.bias.zero_()
    return model


@EVERY_VECTORIZATION
def test_time_limits_are_bootstrapped_and_real_ends_are_not(monkeypatch, vectorize):
    scripts = [((3, "truncated"),), ((3, "terminated"),), ((2, "terminated"), (2, "truncated"))]
    (rollout,) = rollouts_of(tally_model(monkeypatch, vectorize(scripted_envs(scripts)), n_steps=4), 1)
    # The value of the last observation of three steps: 0 + 1 + 2 + 3 = 6; of two: 0 + 1 + 2 = 3.
    np.testing.assert_allclose(rollout.rewards[:, 0], [1, 2, 3 + 0.5 * 6, 1])
    np.testing.assert_allclose(rollout.rewards[:, 1], [1, 2, 3, 1])
    np.testing.assert_allclose(rollout.rewards[:, 2], [1, 2, 1, 2 + 0.5 * 3])


def test_a_time_limit_at_the_end_of_a_rollout(monkeypatch):
    env = DummyVecEnv(scripted_envs([((4, "truncated"),), ((2, "truncated"),)]))
    first, second, third = rollouts_of(tally_model(monkeypatch, env, n_steps=2), 3)
    for rollout, rewards, dones, values in (
        (first, [[1, 1], [2, 2 + 0.5 * 3]], [False, True], [3, 0]),
        (second, [[3, 1], [4 + 0.5 * 10, 2 + 0.5 * 3]], [True, True], [0, 0]),
        (third, [[1, 1], [2, 2 + 0.5 * 3]], [False, True], [3, 0]),
    ):
        np.testing.assert_allclose(rollout.rewards, rewards)
        np.testing.assert_array_equal(rollout.last_dones, dones)
        np.testing.assert_allclose(rollout.last_values, values)


def test_several_time_limits_at_once_are_not_mixed_up(monkeypatch):
    scripts = [((2, "terminated"),), ((2, "truncated"),), ((3, "terminated"),), ((2, "truncated"),)]
    model = tally_model(monkeypatch, DummyVecEnv(scripted_envs(scripts)), n_steps=2, value=(1.0, 0.0, 0.0))
    (rollout,) = rollouts_of(model, 1)
    np.testing.assert_allclose(rollout.rewards[1], [2, 2 + 0.5 * 1 * 3, 2, 2 + 0.5 * 3 * 3])


@pytest.mark.parametrize(
    "env", [Scripted(((3, "truncated"),)), TimeLimit(Scripted(((9, "terminated"),)), 3)], ids=["the game's own", "TimeLimit"]
)
def test_a_single_environment_with_a_time_limit(monkeypatch, env):
    (rollout,) = rollouts_of(tally_model(monkeypatch, env, n_steps=5), 1)
    np.testing.assert_allclose(rollout.rewards[:, 0], [1, 2, 3 + 0.5 * 6, 1, 2])


@EVERY_VECTORIZATION
def test_an_end_in_the_step_of_the_limit_counts(monkeypatch, vectorize):
    env = vectorize([lambda: TimeLimit(Scripted(((2, "terminated"),)), 2)])
    (rollout,) = rollouts_of(tally_model(monkeypatch, env, n_steps=2), 1)
    np.testing.assert_allclose(rollout.rewards[:, 0], [1, 2])


def test_the_last_values_are_of_episodes_that_go_on(monkeypatch):
    scripts = [((9, "terminated"),), ((3, "terminated"),), ((2, "terminated"), (9, "terminated")), ((3, "truncated"),)]
    model = tally_model(monkeypatch, DummyVecEnv(scripted_envs(scripts)), n_steps=3, gae_lambda=1.0)
    (rollout,) = rollouts_of(model, 1)
    # 0 + 1 + 2 + 3 in the first environment; 0 + 1 in the third, which began again one step ago.
    np.testing.assert_allclose(rollout.last_values, [6, 0, 1, 0])
    model.rollout_buffer.add_evaluation(torch.zeros(3, 4), torch.zeros(3, 4))
    np.testing.assert_allclose(model.rollout_buffer.advantages[2], [3 + 0.5 * 6, 3, 1 + 0.5 * 1, 3 + 0.5 * 6])


def test_predicting_a_value_leaves_the_memory_as_it_was(monkeypatch):
    model = tally_model(monkeypatch, DummyVecEnv(scripted_envs([((9, "terminated"),), ((2, "truncated"),)])), n_steps=3)
    # The sum of t over what the agent has acted on: 0 + 1 + 2, then up to 5, then up to 8.
    assert [rollout.after[0][:, 2].tolist() for rollout in rollouts_of(model, 3)] == [[3, 0], [15, 1], [36, 0]]


class StopAt(BaseCallback):
    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def _on_step(self):
        return self.n_calls < self.calls


def test_after_a_stop_learning_sees_episodes_from_their_first_step():
    for calls in range(1, 8):
        model = scripted_model(DummyVecEnv, "gru", scripts=[((3, "terminated"),)])
        model.learn(40, callback=StopAt(calls))
        (rollout,) = rollouts_of(model, 1, reset_num_timesteps=False)
        assert place(rollout.observations[0, 0])[2] == calls % 3
        for observation, start, output in zip(rollout.observations, rollout.episode_starts, rollout.outputs, strict=True):
            number, episode, t = place(observation[0])
            assert bool(start) == (t == 0)
            assert_close(output[0], alone(model.policy, number, episode, t), rtol=1e-4, atol=1e-5)


class Reads(BaseCallback):
    """Reads of the rollout, before anything was learned, what callbacks of SB3 read."""

    def _on_step(self):
        self.step = {name: self.locals[name] for name in ("obs_tensor", "clipped_actions", "new_obs", "rewards", "dones")}
        return True

    def _on_rollout_end(self):
        rollout = self.model.rollout_buffer
        names = ("values", "log_probs", "advantages", "returns")
        self.read = {name: getattr(rollout, name).copy() for name in names}
        self.sizes = rollout.pos, rollout.full, rollout.buffer_size, rollout.size()


@pytest.mark.parametrize("agent_class, options", [(RecurrentA2C, {}), (RecurrentPPO, dict(batch_size=8, n_epochs=1))])
def test_a_callback_reads_the_rollout_as_in_sb3(agent_class, options):
    callback = Reads()
    model = agent_class("RecurrentPolicy", "CartPole-v1", n_steps=8, seed=0, **options)
    twin = copy.deepcopy(model.policy)
    model.learn(8, callback)
    assert callback.sizes == (8, True, 8, 8)
    (sequences,) = model.rollout_buffer.sequences()
    values, log_prob, _ = twin.evaluate_actions(*sequences._replace(outputs=None))
    np.testing.assert_allclose(callback.read["values"], values.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(callback.read["log_probs"], log_prob.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(callback.read["returns"], callback.read["advantages"] + callback.read["values"], atol=1e-6)
    learned = {name: getattr(model.rollout_buffer, name) for name in callback.read}
    assert all(np.array_equal(callback.read[name], learned[name]) for name in learned), "they are of the policy that acted"
    assert callback.step["obs_tensor"].shape == (1, 4) and callback.step["clipped_actions"].dtype == np.int64


def test_outputs_that_were_read_amid_a_rollout_go_on():
    rollout = RecurrentRollout(3, spaces.Box(-1, 1, (1,)), spaces.Discrete(2), n_envs=2)
    for step in range(3):
        rollout.add_observation(np.zeros((2, 1), dtype=np.float32), np.zeros(2, dtype=bool))
        rollout.add(torch.zeros(2), np.zeros(2, dtype=np.float32), torch.full((2, 4), float(step)))
        assert rollout.outputs[:, 0, 0].tolist() == [*range(step + 1)]
