"""Forbidden actions are never taken, never learned from, and told in the form of sb3-contrib."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from sb3_contrib.common.maskable.distributions import make_masked_proba_distribution
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.testing import assert_close

from fw_rl.agents import A3C, MaskedEvalCallback, Player, RecurrentPPO
from fw_rl.agents.loss import actor_critic_loss
from fw_rl.agents.masks import check_masks, mask_logits
from fw_rl.envs import CatchTorchVectorEnv
from tests.agents.helpers import FASTEST, make_model, make_policy, rollouts_of, scramble
from tests.agents.test_ppo import minibatches

SPACES = {
    "Discrete": spaces.Discrete(5),
    "MultiDiscrete": spaces.MultiDiscrete([3, 2]),
    "MultiBinary": spaces.MultiBinary(3),
}
SIZES = {"Discrete": 5, "MultiDiscrete": 5, "MultiBinary": 6}
EVERY_SPACE = pytest.mark.parametrize("kind", SPACES)


def random_masks(kind, rng, rows):
    """Masks that leave at least one choice of each part."""
    masks = rng.random((rows, SIZES[kind])) < 0.5
    parts = dict(Discrete=[5], MultiDiscrete=[3, 2], MultiBinary=[2, 2, 2])[kind]
    begin = 0
    for size in parts:
        masks[np.arange(rows), begin + rng.integers(size, size=rows)] = True
        begin += size
    return masks


def allows(kind, mask, action):
    """Whether a mask [D] allows an action."""
    if kind == "Discrete":
        return mask[action]
    if kind == "MultiDiscrete":
        return mask[action[0]] and mask[3 + action[1]]
    return all(mask[2 * i + int(bit)] for i, bit in enumerate(action))


class Picky(gym.Env):
    """Ends with an assertion where an action is taken that it has forbidden; what is allowed changes with every step."""

    def __init__(self, kind, number=0):
        self.kind, self.action_space = kind, SPACES[kind]
        self.observation_space = spaces.Box(-1, 1, (4,), np.float32)
        self.rng = np.random.default_rng(number)

    def _see(self):
        self.mask = random_masks(self.kind, self.rng, 1)[0]
        return self.rng.uniform(-1, 1, 4).astype(np.float32)

    def action_masks(self):
        return self.mask

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._see(), {}

    def step(self, action):
        assert allows(self.kind, self.mask, action), (self.mask, action)
        self.t += 1
        return self._see(), float(np.sum(action)), self.t == 7, False, {}


VECTORIZATIONS = {
    "VecEnv": lambda kind: DummyVecEnv([lambda i=i: Picky(kind, i) for i in range(3)]),
    "VectorEnv": lambda kind: SyncVectorEnv(
        [lambda i=i: Picky(kind, i) for i in range(3)], autoreset_mode=AutoresetMode.SAME_STEP
    ),
    "Env": lambda kind: Picky(kind),
}


@EVERY_SPACE
def test_distributions_are_those_of_sb3_contrib(kind):
    space, rng = SPACES[kind], np.random.default_rng(0)
    policy = make_policy(action_space=space)
    masks = random_masks(kind, rng, 50)
    logits = torch.randn(50, policy.action_net.out_features, generator=torch.Generator().manual_seed(0))
    ours = policy.action_dist.proba_distribution(mask_logits(logits, torch.from_numpy(masks), space))
    theirs = make_masked_proba_distribution(space)
    # Its MultiBinary has a logit for off and one for on, of which the difference counts.
    pairs = torch.stack([torch.zeros_like(logits), logits], dim=2).flatten(1) if kind == "MultiBinary" else logits
    theirs.proba_distribution(pairs)
    theirs.apply_masking(masks)
    assert_close(ours.entropy(), theirs.entropy())
    actions = theirs.get_actions()
    assert_close(ours.log_prob(actions.float() if kind == "MultiBinary" else actions), theirs.log_prob(actions))
    assert all(allows(kind, mask, action.numpy()) for mask, action in zip(masks, ours.sample(), strict=True))


@EVERY_SPACE
def test_a_forbidden_action_gets_no_gradient(kind):
    space, masks = SPACES[kind], torch.from_numpy(random_masks(kind, np.random.default_rng(1), 20))
    policy = make_policy(action_space=space)
    logits = torch.randn(20, policy.action_net.out_features, requires_grad=True)
    distribution = policy.action_dist.proba_distribution(mask_logits(logits, masks, space))
    actions = distribution.sample()
    (gradient,) = torch.autograd.grad((distribution.log_prob(actions) + distribution.entropy()).sum(), logits)
    forced = masks.view(20, -1, 2).all(2) if kind == "MultiBinary" else masks
    assert (gradient[~forced] == 0).all()
    assert (gradient[forced] != 0).any()


@EVERY_SPACE
@pytest.mark.parametrize("vectorize", VECTORIZATIONS.values(), ids=VECTORIZATIONS)
def test_learning_takes_no_forbidden_action(kind, vectorize):
    model = make_model(vectorize(kind), n_steps=5, learning_rate=1e-2)
    for rollout in rollouts_of(model, 6):
        assert len(rollout.actions) == 5
    rollout = model.rollout_buffer
    for masks, actions in zip(rollout.action_masks, rollout.actions, strict=True):
        assert all(allows(kind, mask, action.numpy()) for mask, action in zip(masks, actions, strict=True))


def test_what_is_learned_is_learned_under_the_masks():
    policy = scramble(make_policy(action_space=SPACES["Discrete"]))
    observations, starts = torch.randn(4, 3, 4), torch.zeros(4, 3, dtype=torch.bool)
    masks = torch.from_numpy(random_masks("Discrete", np.random.default_rng(2), 12)).view(4, 3, 5)
    actions = masks.int().argmax(dim=2)
    state = policy.initial_state(3)
    _, log_prob, entropy = policy.evaluate_actions(observations, actions, state, starts, action_masks=masks)
    latent, _ = policy.remember(observations, state, starts)
    share = policy.action_net(latent).exp() * masks
    share = share / share.sum(dim=2, keepdim=True)
    assert_close(log_prob, share.gather(2, actions.unsqueeze(2)).squeeze(2).log())
    with torch.no_grad():
        drawn, _, of_drawn, _ = policy.forward(observations[0], state, starts[0], action_masks=masks[0])
    assert masks[0].gather(1, drawn.unsqueeze(1)).all()
    assert_close(of_drawn, share[0].gather(1, drawn.unsqueeze(1)).squeeze(1).log())
    assert_close(entropy, -(share * torch.where(masks, share, 1.0).log()).sum(dim=2))


class Forced(Picky):
    """One action is allowed at each step, another one each time."""

    def _see(self):
        observation = super()._see()
        self.mask = np.eye(5, dtype=bool)[self.rng.integers(5)]
        return observation


@pytest.mark.parametrize("bptt_length", [None, 2])
def test_where_nothing_can_be_chosen_the_actor_learns_nothing(bptt_length):
    env = DummyVecEnv([lambda i=i: Forced("Discrete", i) for i in range(3)])
    model = make_model(env, n_steps=5, bptt_length=bptt_length).learn(15)
    loss = actor_critic_loss(model.policy, model.rollout_buffer, ent_coef=0.3, vf_coef=0.0)
    assert loss.policy == loss.entropy == 0
    loss.total.backward()
    assert not model.policy.action_net.weight.grad.any()
    free = [sequences._replace(action_masks=None) for sequences in model.rollout_buffer.sequences()]
    assert all((model.policy.evaluate_actions(*sequences)[1] < -0.1).any() for sequences in free)


def test_an_environment_without_masks_after_one_with(monkeypatch):
    model = make_model(VECTORIZATIONS["VecEnv"]("Discrete"), n_steps=5)
    model.learn(15)
    assert model.rollout_buffer.action_masks is not None
    monkeypatch.delattr(Picky, "action_masks")
    monkeypatch.setattr(Picky, "step", lambda self, action: (self._see(), 0.0, False, False, {}))
    model.set_env(VECTORIZATIONS["VecEnv"]("Discrete"))
    model.learn(15)
    assert model.rollout_buffer.action_masks is None


@EVERY_SPACE
def test_predict_and_play(kind):
    model = make_model(VECTORIZATIONS["VecEnv"](kind))
    with pytest.warns(UserWarning, match="no state came with it"):  # which sb3-contrib keeps for itself
        evaluate_policy(model, model.get_env(), n_eval_episodes=9, warn=False)
    single, player = Picky(kind, 5), Player(model)
    observation, _ = single.reset()
    done, state = False, None
    while not done:
        alone, state = model.predict(observation, state, state is None, True, single.action_masks())
        action = player.act(observation, action_masks=single.action_masks())
        assert np.array_equal(action, alone)
        observation, _reward, done, _, _ = single.step(action)
        player.observe(done)


@EVERY_SPACE
@pytest.mark.filterwarnings("error:episode_start says")
def test_evaluation_during_training_obeys_the_masks_and_remembers(kind, tmp_path):
    callback = MaskedEvalCallback(
        VECTORIZATIONS["VecEnv"](kind), n_eval_episodes=6, eval_freq=5, best_model_save_path=tmp_path, verbose=0, warn=False
    )
    model = make_model(VECTORIZATIONS["VecEnv"](kind), n_steps=5, learning_rate=0.0).learn(15, callback=callback)
    assert callback.model is model
    assert callback.n_calls == callback.eval_freq
    assert callback.last_mean_reward == Player(model).play(VECTORIZATIONS["VecEnv"](kind), 6).mean()
    assert (tmp_path / "best_model.zip").exists()


@EVERY_SPACE
def test_ppo_learns_under_the_masks_too(kind):
    """With a learning rate of 0 the policy is the one that acted, also where all but a few actions are forbidden."""
    policy = dict(hidden_size=4, encoder_arch=(4,), cell="gru")
    env = VECTORIZATIONS["VecEnv"](kind)
    model = RecurrentPPO("RecurrentPolicy", env, 0.0, n_steps=6, batch_size=6, n_epochs=2, policy_kwargs=policy, seed=0)
    model.learn(36)
    for batch in minibatches(model):
        _, log_prob, _ = model.policy.evaluate_actions(*batch.sequences)
        assert_close(log_prob, batch.log_prob)
        _, without, _ = model.policy.evaluate_actions(*batch.sequences._replace(action_masks=None))
        assert (without < log_prob - 1e-3).any()


def make_picky():
    return Picky("Discrete")


def test_workers_take_no_forbidden_action():
    policy = dict(hidden_size=4, encoder_arch=(4,), cell="gru")
    settings = dict(n_workers=2, n_steps=5, policy_kwargs=policy, seed=0, start_method=FASTEST)
    A3C("RecurrentPolicy", make_picky, **settings).learn(200)


@pytest.mark.parametrize(
    "space, masks, message",
    [
        (SPACES["Discrete"], np.ones((2, 4)), r"action_masks must have the shape \[2, 5\], got \[2, 4\]"),
        (SPACES["MultiBinary"], np.ones((2, 3)), r"action_masks must have the shape \[2, 6\], got \[2, 3\]"),
        (
            SPACES["Discrete"],
            [[1, 1, 1, 1, 1], [0, 0, 0, 0, 0]],
            "action_masks must allow an action, got none in environment 1",
        ),
        (
            SPACES["MultiDiscrete"],
            [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
            "action_masks must allow an action, got none in environment 0",
        ),
        (
            spaces.Box(-1, 1, (2,)),
            np.ones((2, 2)),
            "action_space must be Discrete, MultiDiscrete or MultiBinary for action masks, got Box",
        ),
    ],
)
def test_masks_that_cannot_be(space, masks, message):
    with pytest.raises(ValueError, match=message):
        check_masks(masks, space, 2)


class MaskedCatch(CatchTorchVectorEnv):
    def action_masks(self):
        masks = torch.ones(self.num_envs, 3, dtype=torch.bool)
        masks[:, 0] = False
        return masks


def test_masks_may_be_tensors():
    model = make_model(MaskedCatch(4, n=5, m=2), n_steps=8)
    actions = []
    model.learn(64, callback=lambda local, _: actions.append(local["actions"]) or True)
    assert torch.stack(actions).unique().tolist() == [1, 2]
    Player(model).play(MaskedCatch(4, n=5, m=2), 8)
