"""The recurrent actor-critic: its network, its actions, and `predict` as whoever plays with it calls it."""

import warnings

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import BernoulliDistribution, DiagGaussianDistribution
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from torch import nn
from torch.testing import assert_close

from fw_rl.agents import RecurrentActorCriticPolicy
from fw_rl.cells import FastWeightsCell
from tests.agents.helpers import CELLS, act, every_cell_with, make_policy, register_for_a_test, scramble

EVERY_CELL = pytest.mark.parametrize("cell, options", CELLS.values(), ids=CELLS)
ACTION_SPACES = {
    "Discrete": spaces.Discrete(4),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
    "Box": spaces.Box(-0.5, 0.5, (2,), np.float32),
    "Box of two dimensions": spaces.Box(-0.5, 0.5, (2, 3), np.float32),
}
EVERY_ACTION_SPACE = pytest.mark.parametrize("action_space", ACTION_SPACES.values(), ids=ACTION_SPACES)


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def no_starts(*shape):
    return torch.zeros(*shape, dtype=torch.bool)


def one_hot(indices, size):
    return np.eye(size, dtype=np.float32)[indices]


def shapes(module):
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def test_by_default_actor_and_critic_have_a_net_each():
    policy = RecurrentActorCriticPolicy(spaces.Box(-1, 1, (4,)), spaces.Discrete(3), lambda progress: 1e-3)
    size, memory = policy.hidden_size, policy.actor_cell
    assert isinstance(memory, FastWeightsCell)
    assert [shapes(part) for part in (policy.cell.first, policy.encoder)] == [
        shapes(part) for part in (policy.cell.second, policy.critic_encoder)
    ]
    assert shapes(policy.mlp_extractor) == {
        f"{net}.0.{name}": shape
        for net in ("policy_net", "value_net")
        for name, shape in (("weight", (64, size)), ("bias", (64,)))
    }
    assert policy.observation_scaling.keys


def test_with_one_cell_it_is_the_network_of_the_paper():
    policy = make_policy(
        "fast-weights", observation_space=spaces.Box(0, 1, (256,)), hidden_size=128, encoder_arch=(128,), shared_cell=True
    )
    assert shapes(policy) == {
        "encoder.0.weight": (128, 256),
        "encoder.0.bias": (128,),
        "cell.input_map.weight": (128, 128),
        "cell.input_map.bias": (128,),
        "cell.recurrent_map.weight": (128, 128),
        "cell.norm.weight": (128,),
        "cell.norm.bias": (128,),
        "action_net.weight": (3, 128),
        "action_net.bias": (3,),
        "value_net.weight": (1, 128),
        "value_net.bias": (1,),
    }
    scramble(policy, scale=0.1)
    observations, actions, starts = torch.rand(5, 2, 256), torch.randint(3, (5, 2)), no_starts(5, 2)
    encoded = torch.relu(policy.encoder[0](observations))
    latent, _ = policy.cell(encoded, policy.cell.initial_state(2), starts)
    values, log_prob, entropy = policy.evaluate_actions(observations, actions, policy.initial_state(2), starts)
    log_softmax = policy.action_net(latent).log_softmax(dim=2)
    assert_close(values, policy.value_net(latent).squeeze(2))
    assert_close(log_prob, log_softmax.gather(2, actions[..., None]).squeeze(2))
    assert_close(entropy, -(log_softmax.exp() * log_softmax).sum(2))


def test_ortho_init_is_of_all_layers_but_the_cell():
    start = dict(hidden_size=8, encoder_arch=(4,), cell_kwargs=dict(recurrent_scale=0.05))
    policy = make_policy("fast-weights", ortho_init=True, **start)
    encoder, actor, critic = policy.encoder[0].weight, policy.action_net.weight, policy.value_net.weight
    assert_close(encoder @ encoder.T, 2 * torch.eye(4))
    assert_close(actor @ actor.T, 1e-4 * torch.eye(3))
    assert_close(critic @ critic.T, torch.eye(1))
    assert_close(policy.cell.recurrent_map.weight, 0.05 * torch.eye(8))
    free = make_policy("fast-weights", **start).encoder[0].weight
    assert (free @ free.T - 2 * torch.eye(4)).abs().max() > 0.1


def test_the_cell_and_its_options_are_chosen_by_name():
    policy = make_policy("fast-weights", hidden_size=7, cell_kwargs=dict(eta=0.25, inner_steps=2))
    assert (policy.cell.eta, policy.cell.inner_steps, policy.cell.hidden_size, policy.cell.input_size) == (0.25, 2, 7, 6)


def test_a_cell_of_one_s_own(monkeypatch):
    register_for_a_test(monkeypatch)
    policy = make_policy("tally", encoder_arch=(), hidden_size=4)
    latent, _ = policy.remember(torch.ones(3, 2, 4), policy.initial_state(2), no_starts(3, 2))
    assert latent[:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(cell="elephant"), "cell must be one of .*, got 'elephant'"),
        (dict(cell="gru", cell_kwargs=dict(eta=0.5)), "an option of cell 'gru' must be one of layers, got 'eta'"),
        (dict(cell="fast-weights", cell_kwargs=dict(decay=2.0)), "decay must be between 0 and 1, got 2.0"),
        (dict(cell="gru", hidden_size=0), "hidden_size must be at least 1, got 0"),
        (dict(cell="gru", use_sde=True), "use_sde must be False, .*, got True"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(kwargs, message):
    with pytest.raises(ValueError, match=message) as refusal:
        make_policy(**kwargs)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("encoder_arch", [(), (5,), (5, 7)])
def test_the_encoder_has_the_layers_that_were_asked_for(encoder_arch):
    policy = make_policy("gru", encoder_arch=encoder_arch, activation_fn=nn.Tanh)
    observations = rand(3, 2, 4)
    expected = observations
    linear = [layer for layer in policy.encoder if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == list(encoder_arch)
    for layer in linear:
        expected = torch.tanh(layer(expected))
    assert_close(policy.encode(observations), expected)
    assert policy.cell.input_size == expected.shape[2]


@pytest.mark.parametrize(
    ("net_arch", "actor", "critic"),
    [([5], [5], [5]), (dict(pi=[5, 6], vf=[7]), [5, 6], [7]), (dict(vf=[7]), [], [7]), (None, [64], [64])],
)
def test_layers_after_the_cell(net_arch, actor, critic):
    policy = scramble(make_policy("gru", net_arch=net_arch, activation_fn=nn.Tanh))
    observations, actions = rand(3, 2, 4), torch.zeros(3, 2, dtype=torch.int64)
    latent, _ = policy.remember(observations, policy.initial_state(2), no_starts(3, 2))
    values, log_prob, _ = policy.evaluate_actions(observations, actions, policy.initial_state(2), no_starts(3, 2))
    results = []
    for layers, sizes in ((policy.mlp_extractor.policy_net, actor), (policy.mlp_extractor.value_net, critic)):
        result, linear = latent, [layer for layer in layers if isinstance(layer, nn.Linear)]
        assert [layer.out_features for layer in linear] == sizes
        for layer in linear:
            result = torch.tanh(layer(result))
        results.append(result)
    assert_close(log_prob, policy.action_net(results[0]).log_softmax(2)[..., 0])
    assert_close(values, policy.value_net(results[1]).squeeze(2))


@every_cell_with("action_space", ACTION_SPACES)
def test_acting_step_by_step_agrees_with_the_evaluation(cell, options, action_space):
    policy = scramble(make_policy(cell, cell_kwargs=options, action_space=action_space))
    observations, starts = rand(6, 3, 4), rand(6, 3, seed=1) > 0.8
    state = policy.initial_state(3)
    outputs, actions, values, log_prob = [], [], [], []
    for t in range(6):
        with torch.no_grad():
            action, value, one_log_prob, after = policy.forward(observations[t], state, starts[t])
            assert_close(policy.predict_values(observations[t], state, starts[t]), value)
        _, output, state = act(policy, observations[t], state, starts[t])
        assert_close(state, after)
        for kept, new in ((outputs, output), (actions, action), (values, value), (log_prob, one_log_prob)):
            kept.append(new)
    for given in (None, torch.stack(outputs)):
        evaluated = policy.evaluate_actions(observations, torch.stack(actions), policy.initial_state(3), starts, given)
        assert_close(evaluated[0], torch.stack(values), rtol=1e-4, atol=1e-5)
        assert_close(evaluated[1], torch.stack(log_prob), rtol=1e-4, atol=1e-4)


def test_acting_keeps_no_graph():
    policy = make_policy("gru")
    action, output, state = act(policy, rand(3, 4), policy.initial_state(3), no_starts(3))
    assert not any(tensor.requires_grad for tensor in (action, output, *state))


def constant_policy(action_space, bias):
    """A policy whose head says the same for every observation."""
    policy = make_policy("gru", action_space=action_space)
    with torch.no_grad():
        policy.action_net.weight.zero_()
        policy.action_net.bias.copy_(torch.tensor(bias))
    return policy


def sampled(policy, count=20_000, deterministic=False, seed=0):
    torch.manual_seed(seed)
    action, _, _ = act(policy, torch.zeros(count, 4), policy.initial_state(count), no_starts(count), deterministic)
    return action


def chi_square(actions, probabilities):
    counts = torch.bincount(actions, minlength=len(probabilities)).double()
    expected = torch.tensor(probabilities, dtype=torch.float64) * len(actions)
    return ((counts - expected) ** 2 / expected).sum().item()


@pytest.mark.parametrize("offset", [0.0, -50.0, 50.0])
@pytest.mark.parametrize("probabilities", [[0.25] * 4, [0.7, 0.2, 0.09, 0.01]])
def test_discrete_actions_follow_the_softmax(probabilities, offset):
    policy = constant_policy(spaces.Discrete(4), (np.log(probabilities) + offset).tolist())
    for seed in range(3):
        actions = sampled(policy, seed=seed)
        assert actions.shape == (20_000,)
        # Of three degrees of freedom, one in ten thousand.
        assert chi_square(actions, probabilities) < 21.1
    assert chi_square(actions, probabilities[::-1]) > 1000 or len(set(probabilities)) == 1


def test_discrete_actions_of_different_rows_are_independent():
    first, second = sampled(constant_policy(spaces.Discrete(2), [0.0, 0.0])).view(2, -1)
    assert chi_square(2 * first + second, [0.25] * 4) < 21.1


def test_multi_discrete_actions_follow_their_softmaxes():
    actions = sampled(constant_policy(spaces.MultiDiscrete([2, 3]), np.log([0.2, 0.8, 0.5, 0.3, 0.2]).tolist()))
    assert actions.shape == (20_000, 2)
    assert chi_square(actions[:, 0], [0.2, 0.8]) < 15.1
    assert chi_square(actions[:, 1], [0.5, 0.3, 0.2]) < 18.4


def test_multi_binary_actions_follow_their_logits():
    policy = constant_policy(spaces.MultiBinary(3), [-2.0, 0.0, 1.0])
    assert isinstance(policy.action_dist, BernoulliDistribution)
    frequencies = sampled(policy).float().mean(0)
    assert_close(frequencies, torch.sigmoid(torch.tensor([-2.0, 0.0, 1.0])), rtol=0, atol=0.015)


def test_box_actions_follow_their_gaussian():
    policy = constant_policy(spaces.Box(-1, 1, (2,), np.float32), [0.25, -0.5])
    assert isinstance(policy.action_dist, DiagGaussianDistribution)
    with torch.no_grad():
        policy.log_std.copy_(torch.log(torch.tensor([0.5, 2.0])))
    actions = sampled(policy)
    assert_close(actions.mean(0), torch.tensor([0.25, -0.5]), rtol=0, atol=0.05)
    assert_close(actions.std(0), torch.tensor([0.5, 2.0]), rtol=0.03, atol=0)


@EVERY_ACTION_SPACE
def test_a_deterministic_action_is_the_most_likely_one(action_space):
    policy = scramble(make_policy("gru", action_space=action_space))
    observation, state = rand(6, 4), policy.initial_state(6)
    action, output, _ = act(policy, observation, state, no_starts(6), deterministic=True)
    best = policy.evaluate_actions(observation[None], action[None], state, no_starts(1, 6))[1]
    head = policy.action_net(output)
    if isinstance(action_space, spaces.Discrete):
        assert torch.equal(action, head.argmax(1))
    for seed in range(30):
        torch.manual_seed(seed)
        other, _, _ = act(policy, observation, state, no_starts(6))
        assert (policy.evaluate_actions(observation[None], other[None], state, no_starts(1, 6))[1] <= best + 1e-6).all()
    again, _, _ = act(policy, observation, state, no_starts(6), deterministic=True)
    assert torch.equal(action, again)


@EVERY_ACTION_SPACE
def test_predicted_actions_belong_to_the_space(action_space):
    policy = scramble(make_policy("gru", action_space=action_space), scale=2.0)
    state = None
    for observation in rand(5, 3, 4).numpy():
        actions, state = policy.predict(observation, state, episode_start=state is None)
        assert actions.shape == (3, *action_space.shape)
        assert actions.dtype == action_space.dtype or not isinstance(action_space, spaces.Box)
        assert all(action_space.contains(action.astype(action_space.dtype)) for action in actions)
        single, _ = policy.predict(observation[0])
        assert np.shape(single) == action_space.shape
        assert action_space.contains(single if action_space.shape == () else single.astype(action_space.dtype))


def test_box_actions_are_clipped_to_bounds_that_differ():
    low, high = np.array([-1.0, 0.0], dtype=np.float32), np.array([2.0, 0.5], dtype=np.float32)
    policy = constant_policy(spaces.Box(low, high), [0.0, 0.25])
    with torch.no_grad():
        policy.log_std.fill_(3.0)
    actions, _ = policy.predict(np.zeros((500, 4), dtype=np.float32))
    assert_close(actions.min(0), low)
    assert_close(actions.max(0), high)
    inside = (actions > low) & (actions < high)
    assert inside.any()


@EVERY_CELL
def test_predict_remembers_through_the_state_that_it_returns(cell, options):
    policy = scramble(make_policy(cell, cell_kwargs=options))
    observations, state = rand(8, 3, 4), None
    with torch.no_grad():
        latent, _ = policy.remember(observations, policy.initial_state(3), no_starts(8, 3))
        policy.action_net.bias -= policy.action_net(latent).mean((0, 1))
        expected = policy.action_net(latent).argmax(2).numpy()
        latent, _ = policy.remember(observations.view(1, 24, 4), policy.initial_state(24), no_starts(1, 24))
        forgetful = policy.action_net(latent).argmax(2).view(8, 3).numpy()
    assert (forgetful != expected).any()
    for t in range(8):
        actions, state = policy.predict(observations[t].numpy(), state, t == 0, deterministic=True)
        np.testing.assert_array_equal(actions, expected[t])
        assert isinstance(state, tuple)
        assert all(isinstance(part, np.ndarray) and len(part) == 3 for part in state)


@EVERY_CELL
def test_predict_without_a_batch_is_that_row_of_a_batch(cell, options):
    policy = scramble(make_policy(cell, cell_kwargs=options))
    states, state = None, None
    for observation in rand(8, 3, 4).numpy():
        first = states is None
        actions, states = policy.predict(observation, states, first, deterministic=True)
        action, state = policy.predict(observation[1], state, first, deterministic=True)
        assert np.shape(action) == ()
        assert action == actions[1]
        for one, many in zip(state, states, strict=True):
            np.testing.assert_allclose(one[0], many[1], rtol=1e-4, atol=1e-5)


@EVERY_CELL
def test_episode_start_resets_those_rows_only(cell, options):
    policy = scramble(make_policy(cell, cell_kwargs=options))
    observations = rand(4, 3, 4).numpy()
    _, used = policy.predict(observations[0], episode_start=np.ones(3, dtype=bool))
    for observation in observations[1:3]:
        _, used = policy.predict(observation, used, episode_start=np.zeros(3, dtype=bool))
    _, after = policy.predict(observations[3], used, episode_start=np.array([False, True, False]))
    _, going_on = policy.predict(observations[3], used, episode_start=False)
    _, fresh = policy.predict(observations[3])
    assert not np.allclose(going_on[0], fresh[0], atol=1e-3)
    np.testing.assert_allclose(after[0][[0, 2]], going_on[0][[0, 2]], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after[0][1], fresh[0][1], rtol=1e-5, atol=1e-6)
    later = [policy.predict(observations[0], state, episode_start=False)[1] for state in (after, going_on, fresh)]
    np.testing.assert_allclose(later[0][0][[0, 2]], later[1][0][[0, 2]], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(later[0][0][1], later[2][0][1], rtol=1e-4, atol=1e-5)


def test_a_state_without_episode_starts_is_refused_in_one_line():
    policy = make_policy("gru")
    observation = np.zeros((2, 4), dtype=np.float32)
    _, state = policy.predict(observation)
    with pytest.raises(
        ValueError, match=r"^episode_start must be the dones of the step before where a state is given, got None$"
    ):
        policy.predict(observation, state)


def test_it_warns_of_an_episode_without_its_state():
    policy = make_policy("gru")
    observation = np.zeros((2, 4), dtype=np.float32)
    with pytest.warns(UserWarning, match=r"^episode_start says that an episode goes on, but no state came with it: .*$"):
        policy.predict(observation, episode_start=np.array([True, False]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, state = policy.predict(observation, episode_start=np.array([True, True]))
        policy.predict(observation, state, episode_start=np.array([True, False]))


@pytest.mark.parametrize("episode_start", [[], [True], [False] * 3])
def test_episode_starts_of_other_rows_are_refused_in_one_line(episode_start):
    with pytest.raises(ValueError, match=rf"^episode_start must have 2 entries, .*, got {len(episode_start)}$"):
        make_policy("gru").predict(np.zeros((2, 4), dtype=np.float32), episode_start=episode_start)


def test_one_episode_start_is_that_of_all_rows():
    policy = scramble(make_policy("gru"))
    observation = rand(3, 4).numpy()
    _, used = policy.predict(observation)
    for one in (True, False):
        for given in (one, [one] * 3):
            _, after = policy.predict(observation, used, episode_start=given)
            np.testing.assert_array_equal(after[0], policy.predict(observation, used, np.full(3, one))[1][0])
        assert np.allclose(after[0], used[0], atol=1e-6) == one


@pytest.mark.parametrize("episode_start", [True, [True], np.array([True]), np.array([1.0])], ids=repr)
def test_episode_start_of_a_single_environment(episode_start):
    policy = scramble(make_policy("gru"))
    observation = rand(4).numpy()
    _, used = policy.predict(rand(4, seed=1).numpy())
    np.testing.assert_array_equal(policy.predict(observation, used, episode_start)[1][0], policy.predict(observation)[1][0])


def test_predict_leaves_the_given_state_as_it_was():
    policy = scramble(make_policy("fast-weights", cell_kwargs=dict(window=2)))
    observation, state = rand(2, 4).numpy(), None
    for _ in range(4):
        _, state = policy.predict(observation, state, episode_start=state is None)
        copies = [part.copy() for part in state]
        policy.predict(observation, state, episode_start=np.array([True, False]))
        for part, copied in zip(state, copies, strict=True):
            np.testing.assert_array_equal(part, copied)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_state_of_other_rows_is_refused_in_one_line(rows):
    policy = make_policy("gru")
    state = tuple(part.numpy() for part in policy.initial_state(rows))
    with pytest.raises(ValueError, match=rf"^state must have 2 rows, as many as observations, got {rows}$"):
        policy.predict(np.zeros((2, 4), dtype=np.float32), state, episode_start=False)


def test_predict_leaves_the_training_mode_of_sb3():
    policy = make_policy("gru")
    policy.set_training_mode(True)
    policy.predict(np.zeros(4, dtype=np.float32))
    assert not policy.training


@pytest.mark.parametrize(
    "space, sample, features",
    [
        (spaces.Discrete(5), np.array([[3, 0], [4, 1]]), lambda x: one_hot(x, 5)),
        (spaces.MultiBinary(3), np.array([[[0, 1, 1]] * 2, [[1, 0, 0]] * 2]), lambda x: x.astype(np.float32)),
        (
            spaces.MultiDiscrete([2, 3]),
            np.array([[[1, 2], [0, 1]], [[1, 0], [0, 2]]]),
            lambda x: np.concatenate([one_hot(x[..., 0], 2), one_hot(x[..., 1], 3)], axis=-1),
        ),
        (spaces.Box(-1, 1, (2, 2), np.float64), np.full((2, 2, 2, 2), 0.5), lambda x: x.reshape(2, 2, 4).astype(np.float32)),
    ],
    ids=["Discrete", "MultiBinary", "MultiDiscrete", "Box"],
)
def test_observations_of_any_space_reach_the_cell(space, sample, features):
    policy = make_policy("gru", observation_space=space, encoder_arch=())
    assert_close(policy.encode(torch.as_tensor(sample)), torch.as_tensor(features(sample)))
    actions, state = policy.predict(sample[0])
    assert actions.shape == (2,)
    single, _ = policy.predict(sample[0][0])
    assert np.shape(single) == ()
    assert len(state[0]) == 2


def test_dict_observations():
    space = spaces.Dict(dict(place=spaces.Discrete(3), speed=spaces.Box(-1, 1, (2,), np.float32)))
    policy = scramble(make_policy("gru", observation_space=space, encoder_arch=(), features_extractor_class=CombinedExtractor))
    places, speeds = torch.tensor([[0, 2], [1, 1], [2, 0]]), rand(3, 2, 2)
    encoded = policy.encode(dict(place=places, speed=speeds))
    assert_close(encoded, torch.cat([torch.as_tensor(one_hot(places.numpy(), 3)), speeds], dim=2))
    observation = dict(place=places[0].numpy(), speed=speeds[0].numpy())
    actions, state = policy.predict(observation, deterministic=True)
    assert actions.shape == (2,)
    row, alone = policy.predict({key: part[1] for key, part in observation.items()}, deterministic=True)
    assert row == actions[1]
    np.testing.assert_allclose(alone[0][0], state[0][1], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="state must have 1 rows, as many as observations, got 2"):
        policy.predict({key: part[1] for key, part in observation.items()}, state, episode_start=False)


@pytest.mark.parametrize("channel_last", [False, True])
def test_images_through_a_convolutional_net(channel_last):
    policy = make_policy(
        "gru",
        observation_space=spaces.Box(0, 255, (3, 36, 36), np.uint8),
        features_extractor_class=NatureCNN,
        features_extractor_kwargs=dict(features_dim=10),
        encoder_arch=(),
    )
    images = np.random.default_rng(0).integers(256, size=(4, 3, 36, 36), dtype=np.uint8)
    with torch.no_grad():
        expected = policy.features_extractor(torch.as_tensor(images) / 255)
        assert_close(policy.encode(torch.as_tensor(images).view(2, 2, 3, 36, 36)), expected.view(2, 2, 10))
    given = images.transpose(0, 2, 3, 1) if channel_last else images
    actions, state = policy.predict(given, deterministic=True)
    assert actions.shape == (4,)
    assert policy.predict(given[2], deterministic=True)[0] == actions[2]
    assert state[0].shape == (4, 8)


def test_a_float64_observation_is_fine_where_float32_is_expected():
    policy = make_policy("gru")
    single, double = (policy.predict(np.ones(4, dtype=dtype), deterministic=True)[1][0] for dtype in (np.float32, np.float64))
    np.testing.assert_array_equal(single, double)


def test_a_policy_alone_is_neither_pickled_nor_unpickled(tmp_path):
    with pytest.raises(NotImplementedError, match="save the agent"):
        make_policy("rnn").save(str(tmp_path / "policy"))
    with pytest.raises(NotImplementedError, match="load the agent"):
        RecurrentActorCriticPolicy.load(str(tmp_path / "policy"))
