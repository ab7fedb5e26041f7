"""The net that RLlib gets is the policy of our agents, seen from the other side: raw observations, sequences batch first."""

import doctest

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn
from torch.testing import assert_close

from fw_rl.agents import RecurrentA2C, batch_first
from fw_rl.agents.batch_first import BatchFirstPolicy
from tests.agents.helpers import CELLS, PLAIN, make_policy, scramble
from tests.agents.test_spaces import ACTION_SPACES, OBSERVATION_SPACES, Noise

EVERY_CELL = pytest.mark.parametrize("cell, options", CELLS.values(), ids=CELLS)
EVERY_OBSERVATION = pytest.mark.parametrize("space", OBSERVATION_SPACES.values(), ids=OBSERVATION_SPACES)
SMALL = dict(hidden_size=8, encoder_arch=(6,))
TAKEN = {name: ACTION_SPACES[name][0] for name in ("Discrete", "MultiDiscrete", "Box", "Box of integers")}
B, T = 3, 7


def make_net(observation_space=OBSERVATION_SPACES["Box"], action_space=TAKEN["Discrete"], **policy_kwargs):
    net = BatchFirstPolicy(observation_space, action_space, SMALL | policy_kwargs)
    scramble(net.policy)
    return net


def sample(space, seed=0):
    """Raw observations [B, T, ...] of a space, as NumPy arrays."""
    batched = batch_space(batch_space(space, T), B)
    batched.seed(seed)
    return batched.sample()


def tensors(observations):
    if isinstance(observations, dict):
        return {key: torch.as_tensor(part) for key, part in observations.items()}
    return torch.as_tensor(observations)


def at(observations, t):
    if isinstance(observations, dict):
        return {key: part[:, t] for key, part in observations.items()}
    return observations[:, t]


def step_by_step(net, observations):
    state, outputs = net.initial_state(B), []
    for t in range(T):
        one = at(observations, slice(t, t + 1))
        latent, state = net(one, state)
        outputs.append(latent)
    return torch.cat(outputs, dim=1), state


@EVERY_OBSERVATION
def test_the_same_weights_give_the_outputs_of_the_agent(space):
    model = RecurrentA2C("RecurrentPolicy", DummyVecEnv([lambda: Noise(space, TAKEN["Discrete"])] * B), policy_kwargs=SMALL)
    net = make_net(space)
    model.policy.load_state_dict(net.policy.state_dict())
    raw = sample(space)
    latent, _ = net(tensors(raw), net.initial_state(B))
    likeliest = net.action_parameters(latent).argmax(dim=-1)
    env, state, starts = model.get_env(), None, np.ones(B, dtype=bool)
    for t in range(T):
        seen = at(raw, t)
        if hasattr(env, "transpose_observations"):
            seen = env.transpose_observations(dict(seen) if isinstance(seen, dict) else seen)
        actions, state = model.predict(seen, state, starts, deterministic=True)
        np.testing.assert_array_equal(actions, likeliest[:, t])
        starts = np.zeros(B, dtype=bool)


@EVERY_CELL
@pytest.mark.parametrize("shared_cell", [True, False], ids=["one cell", "two cells"])
def test_probabilities_and_values_are_those_of_the_policy(cell, options, shared_cell):
    net = make_net(cell=cell, cell_kwargs=options, shared_cell=shared_cell)
    observations = tensors(sample(OBSERVATION_SPACES["Box"]))
    latent, _ = net(observations, net.initial_state(B))
    policy, starts = net.policy, torch.zeros(T, B, dtype=torch.bool)
    actions = torch.randint(4, (T, B))
    values, log_prob, entropy = policy.evaluate_actions(observations.transpose(0, 1), actions, policy.initial_state(B), starts)
    distribution = torch.distributions.Categorical(logits=net.action_parameters(latent))
    assert_close(net.values(latent), values.T)
    assert_close(distribution.log_prob(actions.T), log_prob.T)
    assert_close(distribution.entropy(), entropy.T)


@EVERY_CELL
def test_step_by_step_is_the_sequence(cell, options):
    net = make_net(cell=cell, cell_kwargs=options)
    observations = tensors(sample(OBSERVATION_SPACES["Box"]))
    expected, last = net(observations, net.initial_state(B))
    outputs, state = step_by_step(net, observations)
    assert_close(outputs, expected)
    assert_close(state, last)
    assert [part.shape for part in state] == [part.shape for part in net.initial_state(B)]


def test_a_gaussian_is_means_and_log_standard_deviations():
    net = make_net(action_space=TAKEN["Box"])
    latent, _ = net(tensors(sample(OBSERVATION_SPACES["Box"])), net.initial_state(B))
    means, log_std = net.action_parameters(latent).chunk(2, dim=-1)
    distribution = net.policy._distribution(latent.flatten(0, 1)).distribution
    assert_close(means.flatten(0, 1), distribution.mean)
    assert_close(log_std.flatten(0, 1).exp(), distribution.stddev)


def test_parameters_of_a_multidiscrete_are_logits_in_a_row():
    net = make_net(action_space=TAKEN["MultiDiscrete"])
    latent, _ = net(tensors(sample(OBSERVATION_SPACES["Box"])), net.initial_state(B))
    first, second = net.action_parameters(latent).flatten(0, 1).split([2, 3], dim=-1)
    expected = net.policy._distribution(latent.flatten(0, 1)).distribution
    assert_close(first.softmax(-1), expected[0].probs)
    assert_close(second.softmax(-1), expected[1].probs)


def test_the_parameters_are_those_of_the_policy_and_no_others():
    net = make_net(cell="fast-weights", cell_kwargs=dict(decay=0.1), hidden_size=16)
    assert [id(part) for part in net.parameters()] == [id(part) for part in net.policy.parameters()]
    assert set(net.state_dict()) == {f"policy.{name}" for name in net.policy.state_dict()}
    latent, _ = net(tensors(sample(OBSERVATION_SPACES["Box"])), net.initial_state(B))
    (net.values(latent).sum() + net.action_parameters(latent).square().sum()).backward()
    assert [name for name, part in net.named_parameters() if part.grad is None or not part.grad.any()] == []


def test_weights_go_there_and_back():
    net = make_net(cell="lstm", **PLAIN)
    policy = make_policy("lstm", observation_space=OBSERVATION_SPACES["Box"], action_space=TAKEN["Discrete"], seed=5)
    net.policy.load_state_dict(policy.state_dict())
    other = make_policy("lstm", observation_space=OBSERVATION_SPACES["Box"], action_space=TAKEN["Discrete"], seed=6)
    other.load_state_dict(net.policy.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), other.parameters(), strict=True))


@EVERY_CELL
def test_a_state_keeps_its_shapes(cell, options):
    net = make_net(cell=cell, cell_kwargs=options)
    state = before = net.initial_state(B)
    for t in range(1, 4):
        _, state = net(tensors(sample(OBSERVATION_SPACES["Box"]))[:, :t], state)
        assert [part.shape for part in state] == [part.shape for part in before]


@pytest.mark.parametrize("name", sorted(set(ACTION_SPACES) - set(TAKEN)))
def test_other_actions_are_refused(name):
    space, policy_kwargs = ACTION_SPACES[name]
    with pytest.raises(
        ValueError,
        match=r"^(action_space must be Discrete, or a Box or a MultiDiscrete|squash_output must be False).*, got .*$",
    ):
        BatchFirstPolicy(OBSERVATION_SPACES["Box"], space, policy_kwargs)


def test_the_activation_and_the_layers_can_be_chosen():
    net = make_net(net_arch=dict(pi=[5], vf=[4]), activation_fn=nn.Tanh, encoder_arch=())
    latent, _ = net(tensors(sample(OBSERVATION_SPACES["Box"])), net.initial_state(B))
    assert latent.shape == (B, T, 8 + 8)
    assert net.action_parameters(latent).shape == (B, T, 4)
    assert net.values(latent).shape == (B, T)


def test_the_example_in_the_documentation():
    result = doctest.testmod(batch_first, extraglobs=dict(spaces=spaces, torch=torch))
    assert result.attempted
    assert not result.failed
