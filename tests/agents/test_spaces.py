"""The agent learns, plays, is saved and is loaded with every space that SB3 takes."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.testing import assert_close

from fw_rl.agents import Player, RecurrentA2C, RecurrentPPO
from tests.agents.helpers import CELLS, PLAIN, every_cell_with, make_model, make_policy, same_parameters, scramble
from tests.envs.helpers import REFUSED_TO_ACT, REFUSED_TO_OBSERVE

OBSERVATION_SPACES = {
    "Box": spaces.Box(-1, 1, (3,), np.float32),
    "Box of float64": spaces.Box(-1, 1, (2, 2), np.float64),
    "Box of integers": spaces.Box(-5, 5, (3,), np.int16),
    "Discrete": spaces.Discrete(5),
    "MultiDiscrete": spaces.MultiDiscrete([2, 4]),
    "MultiBinary": spaces.MultiBinary(3),
    "MultiBinary of two dimensions": spaces.MultiBinary([2, 3]),
    "image": spaces.Box(0, 255, (36, 40, 3), np.uint8),
    "image, channels first": spaces.Box(0, 255, (1, 36, 36), np.uint8),
    "small image": spaces.Box(0, 255, (8, 8, 1), np.uint8),
    "Dict": spaces.Dict(
        dict(
            image=spaces.Box(0, 255, (36, 36, 1), np.uint8),
            place=spaces.Discrete(3),
            places=spaces.MultiDiscrete([2, 2]),
            flags=spaces.MultiBinary(2),
            speed=spaces.Box(-1, 1, (2,), np.float32),
        )
    ),
}
ACTION_SPACES = {
    "Discrete": (spaces.Discrete(4), {}),
    "MultiDiscrete": (spaces.MultiDiscrete([2, 3]), {}),
    "MultiBinary": (spaces.MultiBinary(3), {}),
    "Box": (spaces.Box(-0.5, 2.0, (2,), np.float32), {}),
    "Box of two dimensions": (spaces.Box(-1, 1, (2, 2), np.float64), {}),
    "Box of no dimension": (spaces.Box(-1, 1, ()), {}),
    "Box of integers": (spaces.Box(-1, 2, (2,), np.int64), {}),
    "Box of bytes, squashed": (spaces.Box(-128, 127, (2,), np.int8), dict(squash_output=True)),
    "Box, squashed": (spaces.Box(-0.5, 2.0, (2,), np.float32), dict(squash_output=True)),
    "Box of two dimensions, squashed": (spaces.Box(-1, 3, (2, 2), np.float64), dict(squash_output=True)),
}


EVERY_CELL = CELLS | {"associative-lstm": ("associative-lstm", {})}


class Noise(gym.Env):
    """Random observations of a space in episodes of five steps; each action must be of its space."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action)), action
        self.t += 1
        return self.observation_space.sample(), float(np.sum(action)), False, self.t == 5, {}


def noise(observation_space=OBSERVATION_SPACES["Box"], action_space=ACTION_SPACES["Discrete"][0], count=2):
    return DummyVecEnv([lambda: Noise(observation_space, action_space)] * count)


def goes_through_its_life(env, path, cell="fast-weights", cell_kwargs=None, **policy_kwargs):
    model, untaught = (make_model(env, cell, cell_kwargs=cell_kwargs, n_steps=4, policy_kwargs=policy_kwargs) for _ in range(2))
    model.learn(24)
    assert not same_parameters(model, untaught)
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    model.save(path)
    loaded = RecurrentA2C.load(path, env)
    assert same_parameters(model, loaded)
    players, env_observation = [Player(model), Player(loaded), Player(RecurrentA2C.load(path))], env.reset()
    for _ in range(7):
        actions = [player.act(env_observation) for player in players]
        for other in actions[1:]:
            np.testing.assert_array_equal(other, actions[0])
        env_observation, _rewards, dones, _ = env.step(actions[0])
        for player in players:
            player.observe(dones)
    evaluate_policy(loaded, env, n_eval_episodes=3, deterministic=False, warn=False)
    loaded.learn(24, reset_num_timesteps=False)
    assert not same_parameters(model, loaded)
    return model


@pytest.mark.parametrize("observation_space", OBSERVATION_SPACES.values(), ids=OBSERVATION_SPACES)
def test_every_observation_space(observation_space, tmp_path):
    goes_through_its_life(noise(observation_space), tmp_path / "agent")


@pytest.mark.parametrize("action_space, policy_kwargs", ACTION_SPACES.values(), ids=ACTION_SPACES)
def test_every_action_space(action_space, policy_kwargs, tmp_path):
    goes_through_its_life(noise(action_space=action_space), tmp_path / "agent", **policy_kwargs)


SEEN_AND_DONE = {
    "Dict-Discrete": ("Dict", "Discrete"),
    "image": ("image", "Discrete"),
    "MultiDiscrete": ("Box", "MultiDiscrete"),
}


@every_cell_with("seen, done", SEEN_AND_DONE, EVERY_CELL, rounds=2)
def test_every_cell(cell, options, seen, done, tmp_path):
    env = noise(OBSERVATION_SPACES[seen], ACTION_SPACES[done][0])
    goes_through_its_life(env, tmp_path / "agent", cell, options)


@pytest.mark.parametrize("seen, done", [("Dict", "Box, squashed"), ("image", "MultiBinary")])
def test_ppo(seen, done, tmp_path):
    action_space, policy_kwargs = ACTION_SPACES[done]
    env = noise(OBSERVATION_SPACES[seen], action_space)
    sizes = dict(cell="gru", hidden_size=8, encoder_arch=(6,)) | policy_kwargs
    settings = dict(n_steps=8, batch_size=8, bptt_length=4, n_epochs=2, seed=0, device="cpu", policy_kwargs=sizes)
    model = RecurrentPPO("RecurrentPolicy", env, **settings).learn(32)
    assert not same_parameters(model, RecurrentPPO("RecurrentPolicy", env, **settings))
    model.save(tmp_path / "agent")
    loaded = RecurrentPPO.load(tmp_path / "agent", env)
    assert same_parameters(model, loaded)
    observation, states = env.reset(), [None, None]
    for step in range(6):
        actions = []
        for i, agent in enumerate((model, loaded)):
            action, states[i] = agent.predict(observation, states[i], step % 5 == 0, deterministic=True)
            actions.append(action)
        np.testing.assert_array_equal(*actions)
        observation, *_ = env.step(actions[0])
    loaded.learn(16, reset_num_timesteps=False)


@pytest.mark.parametrize(
    "name, extractor",
    [("Box", FlattenExtractor), ("image", NatureCNN), ("small image", FlattenExtractor), ("Dict", CombinedExtractor)],
)
def test_the_features_of_an_observation_are_those_of_sb3(name, extractor):
    assert type(make_model(noise(OBSERVATION_SPACES[name])).policy.features_extractor) is extractor
    own = make_model(noise(OBSERVATION_SPACES["image"]), policy_kwargs=dict(features_extractor_class=FlattenExtractor))
    assert type(own.policy.features_extractor) is FlattenExtractor


@pytest.mark.parametrize(
    "shape, normalize_images, extractor",
    [((3, 40, 40), False, NatureCNN), ((3, 40, 40), True, FlattenExtractor), ((3, 7, 7), False, FlattenExtractor)],
)
def test_an_image_of_floats_is_one_if_it_stays_unscaled(shape, normalize_images, extractor):
    env = noise(spaces.Box(0, 1, shape, np.float32))
    policy = make_model(env, policy_kwargs=dict(normalize_images=normalize_images)).policy
    assert type(policy.features_extractor) is extractor


@pytest.mark.parametrize("normalize_images", [True, False])
def test_a_small_image_in_a_dict_is_flattened(normalize_images):
    small, large = (spaces.Box(0, 255, (size, size, 3), np.uint8) for size in (7, 40))
    env = noise(spaces.Dict(small=small, large=large, word=spaces.Discrete(4)))
    model = make_model(env, policy_kwargs=dict(normalize_images=normalize_images, norm_obs=False))
    assert model.policy.features_dim == 7 * 7 * 3 + 256 + 4
    observation = {
        "small": torch.full((1, 3, 7, 7), 51),
        "large": torch.zeros(1, 3, 40, 40),
        "word": torch.tensor([2]),
    }
    features = model.policy.extract_features(observation, model.policy.features_extractor)
    assert torch.isclose(features, torch.tensor(51 / 255 if normalize_images else 51.0)).sum() == 7 * 7 * 3


class Copies(VectorEnv):
    """The least of a Gymnasium vector environment that has the spaces of a single one."""

    def __init__(self, env):
        self.num_envs, self.metadata = 1, {}
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space


def refusal_of(env):
    with pytest.raises(ValueError) as refusal:
        make_model(env)
    return str(refusal.value)


def as_vec_env(env):
    """An SB3 `VecEnv`, which need not be a `DummyVecEnv`: that one fails by itself for some spaces."""
    vec_env = noise()
    vec_env.observation_space, vec_env.action_space = env.observation_space, env.action_space
    return vec_env


REFUSED = {f"observe {name}": (space, spaces.Discrete(2)) for name, space in REFUSED_TO_OBSERVE.items()}
REFUSED |= {f"act in {name}": (spaces.Discrete(2), space) for name, space in REFUSED_TO_ACT.items()}


@pytest.mark.parametrize("observation_space, action_space", REFUSED.values(), ids=REFUSED)
def test_a_refusal_is_the_same_for_every_kind_of_environment(observation_space, action_space):
    env = Noise(observation_space, action_space)
    line = refusal_of(env)
    assert "\n" not in line
    assert line.startswith(("observation_space must be ", "action_space must be "))
    assert refusal_of(Copies(env)) == refusal_of(as_vec_env(env)) == line


@pytest.mark.parametrize("observation_space", REFUSED_TO_OBSERVE.values(), ids=REFUSED_TO_OBSERVE)
def test_the_advice_to_flatten_can_be_followed(observation_space):
    env = Noise(observation_space, spaces.Discrete(2))
    line = refusal_of(env)
    assert ("FlattenObservation" in line) == all(name not in line for name in ("Text", "Sequence", "Graph", "OneOf"))
    if "FlattenObservation" in line:
        make_model(gym.wrappers.FlattenObservation(env)).learn(8)


# Squashed actions.

SQUASHED = spaces.Box(np.array([-0.5, 0.0], np.float32), np.array([2.0, 0.1], np.float32))


def squashed_policy(**kwargs):
    return make_policy("gru", action_space=SQUASHED, squash_output=True, **kwargs)


def test_squashed_actions_reach_towards_the_bounds_smoothly():
    policy = squashed_policy()
    assert isinstance(policy.action_dist, SquashedDiagGaussianDistribution)
    with torch.no_grad():
        policy.action_net.weight.zero_()
        policy.action_net.bias.copy_(torch.tensor([0.5, -1.0]))
    observation = np.zeros((4000, 4), dtype=np.float32)
    (action, *_), _ = policy.predict(observation, deterministic=True)
    expected = SQUASHED.low + (np.tanh([0.5, -1.0]) + 1) / 2 * (SQUASHED.high - SQUASHED.low)
    np.testing.assert_allclose(action, expected, rtol=1e-5)
    torch.manual_seed(0)
    actions, _ = policy.predict(observation)
    assert ((actions >= SQUASHED.low) & (actions <= SQUASHED.high)).all()
    assert np.mean((actions == SQUASHED.low) | (actions == SQUASHED.high)) < 0.01
    pushed = np.arctanh(np.clip(2 * (actions - SQUASHED.low) / (SQUASHED.high - SQUASHED.low) - 1, -0.9999, 0.9999))
    np.testing.assert_allclose(pushed.mean(0), [0.5, -1.0], atol=0.06)
    np.testing.assert_allclose(pushed.std(0), 1.0, atol=0.06)


def test_the_probability_of_a_squashed_action_counts_the_squashing():
    policy = squashed_policy()
    observations, starts = torch.randn(3, 2, 4), torch.zeros(3, 2, dtype=torch.bool)
    actions = torch.tensor([0.3, -0.6]).expand(3, 2, 2)
    _, log_prob, _ = policy.evaluate_actions(observations, actions, policy.initial_state(2), starts)
    latent, _ = policy.remember(observations, policy.initial_state(2), starts)
    normal = torch.distributions.Normal(policy.action_net(latent), policy.log_std.exp())
    expected = torch.distributions.TransformedDistribution(normal, torch.distributions.transforms.TanhTransform())
    assert_close(log_prob, expected.log_prob(actions).sum(2), rtol=1e-4, atol=1e-4)


def test_the_entropy_of_squashed_actions_and_its_gradient():
    """On average over many samples: the entropy of a narrow Gaussian at 0 is that of the Gaussian, and grows with its width."""
    policy = squashed_policy(log_std_init=-3.0)
    with torch.no_grad():
        policy.action_net.weight.zero_()
        policy.action_net.bias.zero_()
    torch.manual_seed(0)
    rows = 4000
    observations, actions = torch.zeros(1, rows, 4), torch.zeros(1, rows, 2)
    starts = torch.zeros(1, rows, dtype=torch.bool)
    _, _, entropy = policy.evaluate_actions(observations, actions, policy.initial_state(rows), starts)
    assert entropy.mean().item() == pytest.approx(2 * (0.5 * np.log(2 * np.pi * np.e) - 3), abs=0.05)
    (gradient,) = torch.autograd.grad(entropy.mean(), policy.log_std)
    assert_close(gradient, torch.ones(2), rtol=0, atol=0.05)


def test_a_squashed_policy_acts_as_it_is_evaluated():
    policy = scramble(squashed_policy(), scale=0.3)
    observation, starts, state = torch.randn(5, 4), torch.zeros(5, dtype=torch.bool), policy.initial_state(5)
    actions, values, log_prob, _ = policy.forward(observation, state, starts)
    assert actions.abs().max() < 1
    again, _ = policy.act(observation, policy.cell.stepper(state), starts, deterministic=True)
    assert again.abs().max() < 1
    evaluated = policy.evaluate_actions(observation[None], actions[None], state, starts[None])
    assert_close(evaluated[0][0], values)
    assert_close(evaluated[1][0], log_prob, rtol=1e-3, atol=1e-3)


def test_there_is_nothing_to_squash_in_other_actions():
    with pytest.raises(ValueError, match=r"^squash_output must be False where actions are not in a Box, got True for .*$"):
        make_policy("gru", squash_output=True)


def test_actions_of_integers_are_rounded_and_kept_within_the_bounds():
    policy = make_policy("gru", action_space=spaces.Box(-3, 4, (2,), np.int32))
    sampled = torch.tensor([[0.4, 0.6], [-1.7, 2.2], [-9.0, 9.0], [3.6, -2.6]])
    actions = policy.to_env_actions(sampled)
    assert actions.dtype == np.int32
    assert actions.tolist() == [[0, 1], [-2, 2], [-3, 4], [4, -3]]


def test_squashed_actions_of_integers_reach_both_bounds():
    policy = make_policy("gru", action_space=spaces.Box(-128, 127, (1,), np.int8), squash_output=True)
    actions = policy.to_env_actions(torch.tensor([[-1.0], [0.01], [1.0]]))
    assert actions.dtype == np.int8
    assert actions.tolist() == [[-128], [1], [127]]


@pytest.mark.parametrize("name", ["Box", "Box of integers", "Box of no dimension", "Box of two dimensions", "MultiBinary"])
def test_a_rollout_keeps_the_actions_that_were_sampled(name):
    drawn, taken = [], []
    action_space, policy_kwargs = ACTION_SPACES[name]
    model = make_model(noise(action_space=action_space), n_steps=4, policy_kwargs=policy_kwargs)
    sample, to_env_actions = model.policy._sample_actions, model.policy.to_env_actions
    model.policy._sample_actions = lambda *args: drawn.append(sample(*args)) or drawn[-1]
    model.policy.to_env_actions = lambda actions: taken.append(to_env_actions(actions)) or taken[-1]
    model.learn(8)
    assert torch.equal(model.rollout_buffer.actions, torch.stack(drawn))
    assert all(actions.dtype == action_space.dtype and actions.shape == (2, *action_space.shape) for actions in taken)


@pytest.mark.parametrize("action_space", [spaces.Box(-1, 2, (2,), np.int64), spaces.Box(-1, 1, ())], ids=str)
def test_probabilities_are_of_the_actions_that_were_sampled(action_space):
    model = make_model(noise(action_space=action_space), n_steps=4, policy_kwargs=PLAIN).learn(8)
    (sequence,) = model.rollout_buffer.sequences()
    observations, actions, state, starts, *_ = sequence
    _, log_prob, _ = model.policy.evaluate_actions(observations, actions, state, starts)
    latent, _ = model.policy.remember(observations, state, starts)
    normal = torch.distributions.Normal(model.policy.action_net(latent), model.policy.log_std.exp())
    assert_close(log_prob, normal.log_prob(actions).sum(2))
    assert (actions != actions.round()).all()
