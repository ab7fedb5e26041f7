"""The loss of a rollout and its gradient against a slow one: every episode alone, from its first step, in float64."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.testing import assert_close

from fw_rl.agents.loss import actor_critic_loss
from fw_rl.agents.rollout import RecurrentRollout, RolloutSequences, Targets
from fw_rl.envs.sb3 import VecEnvAdapter
from tests.agents.helpers import (
    CELLS,
    PLAIN,
    Recorder,
    act,
    every_cell_with,
    make_model,
    make_policy,
    rollouts_of,
    scramble,
    scripted_envs,
)

STEPS, ROWS, GAMMA = 5, 3, 0.9
NO_START = torch.zeros(1, 1, dtype=torch.bool)


class SlowNet:
    """A policy's network of one encoder layer, a cell and two linear heads, in float64, for one row and one step at a time."""

    def __init__(self, policy):
        parts = {name: copy.deepcopy(getattr(policy, name)).double() for name in ("encoder", "cell", "action_net", "value_net")}
        self.encoder, self.cell, self.actor, self.critic = parts["encoder"][0], *list(parts.values())[1:]
        names = (name.partition(".") for name, _ in policy.named_parameters())
        self.parameters = [parts[part].get_parameter(rest) for part, _, rest in names]

    def start(self):
        return self.cell.initial_state(1)

    def step(self, observation, state):
        """Logits [actions], a value, and the new state."""
        encoded = torch.relu(self.encoder.weight @ torch.as_tensor(observation).double() + self.encoder.bias)
        output, state = self.cell(encoded.view(1, 1, -1), state, NO_START)
        logits = self.actor.weight @ output[0, 0] + self.actor.bias
        value = self.critic.weight[0] @ output[0, 0] + self.critic.bias[0]
        return logits, value, state

    def gradients(self, loss):
        return torch.autograd.grad(loss, self.parameters, materialize_grads=True)


def slow_loss(
    net, history, length, *, gamma, gae_lambda, ent_coef=0.0, vf_coef=0.0, normalize_advantage=False, bptt_length=None
):
    """The loss of the last `length` steps of a history, whose gradient is cut every `bptt_length` steps.

    `history`: for every row its `steps`, each with observation, action, reward, first (of an episode), last (of an episode) and
    beyond (the observation that a time limit cut off, or None), and in `next` what is seen after them.
    """
    per_step = []
    for row in history:
        begin = len(row.steps) - length
        seen = []
        state = None
        for t, step in enumerate(row.steps):
            with torch.set_grad_enabled(t >= begin):
                if t >= begin and (t - begin) % (bptt_length or length) == 0 and state is not None:
                    state = tuple(part.detach() for part in state)
                if step.first:
                    state = net.start()
                assert state is not None, "a history begins with the first step of an episode"
                logits, value, state = net.step(step.observation, state)
                reward = step.reward
                if step.beyond is not None:
                    reward += gamma * net.step(step.beyond, state)[1].item()
            if t >= begin:
                log_probs = logits - torch.log(torch.exp(logits).sum())
                entropy = -sum(torch.exp(one) * one for one in log_probs)
                seen.append(SimpleNamespace(log_prob=log_probs[step.action], entropy=entropy, value=value, reward=reward))
        after = net.step(row.next, state)[1].item()
        for t, one in enumerate(seen):
            one.advantage, factor = 0.0, 1.0
            for later in range(t, length):
                over = row.steps[begin + later].last
                following = 0.0 if over else (seen[later + 1].value.item() if later + 1 < length else after)
                one.advantage += factor * (seen[later].reward + gamma * following - seen[later].value.item())
                factor *= gamma * gae_lambda
                if over:
                    break
        per_step += seen

    advantages = [one.advantage for one in per_step]
    returns = [one.advantage + one.value.item() for one in per_step]
    if normalize_advantage:
        mean = sum(advantages) / len(advantages)
        deviation = math.sqrt(sum((a - mean) ** 2 for a in advantages) / (len(advantages) - 1))
        advantages = [(a - mean) / (deviation + 1e-8) for a in advantages]
    count = len(per_step)
    policy = -sum(a * one.log_prob for a, one in zip(advantages, per_step, strict=True)) / count
    value = sum((r - one.value) ** 2 for r, one in zip(returns, per_step, strict=True)) / count
    entropy = sum(one.entropy for one in per_step) / count
    total = policy + vf_coef * value - ent_coef * entropy
    return SimpleNamespace(total=total, policy=policy, value=value, entropy=entropy)


def random_rollouts(policy, count, *, seed=0, end_probability=0.25, gae_lambda=0.95, rows=ROWS, steps=STEPS, bptt_length=None):
    """Act on random observations with random ends; the last rollout, and the whole history of every row."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    space = policy.observation_space
    settings = dict(gamma=GAMMA, gae_lambda=gae_lambda, n_envs=rows, bptt_length=bptt_length)
    rollout = RecurrentRollout(steps, space, policy.action_space, **settings)
    history = [SimpleNamespace(steps=[]) for _ in range(rows)]
    state, starts = policy.initial_state(rows), np.ones(rows, dtype=bool)
    observations = rng.normal(size=(rows, *space.shape)).astype(np.float32)
    for _ in range(count):
        rollout.reset()
        for _ in range(steps):
            if rollout.starts_sequence:
                rollout.add_state(state)
            actions, output, state = act(policy, *split(rollout.add_observation(observations, starts), state))
            rewards = rng.normal(size=rows).astype(np.float32)
            ends = rng.random(rows) < end_probability
            rollout.add(actions, rewards, output)
            for b, row in enumerate(history):
                row.steps.append(
                    SimpleNamespace(
                        observation=observations[b], action=int(actions[b]), reward=float(rewards[b]),
                        first=bool(starts[b]), last=bool(ends[b]), beyond=None,
                    )
                )  # fmt: skip
            observations, starts = rng.normal(size=(rows, *space.shape)).astype(np.float32), ends
        with torch.no_grad():
            values = policy.predict_values(torch.as_tensor(observations), state, torch.zeros(rows, dtype=torch.bool))
        last_dones = torch.as_tensor(ends)
        rollout.finish(last_dones, values.masked_fill(last_dones, 0.0))
    for b, row in enumerate(history):
        row.next = observations[b]
    return rollout, history


def split(seen, state):
    observation, starts = seen
    return observation, state, starts


def gradients(policy, loss):
    return torch.autograd.grad(loss, list(policy.parameters()), materialize_grads=True)


def assert_near(actual, expected, tolerance=2e-4):
    """Equal up to float32."""
    for one, other in zip(actual, expected, strict=True):
        assert (one.double() - other).norm() <= tolerance * other.norm() + 1e-6
    assert any(other.any() for other in expected)


WAYS = {
    "1-with outputs": (1, True),
    "3-with outputs": (3, True),
    "3-without outputs": (3, False),
    "1-without outputs": (1, False),
}


@every_cell_with("rollouts, replayed", WAYS, rounds=2)
def test_the_loss_is_that_of_every_episode_replayed_alone(cell, options, rollouts, replayed):
    policy = scramble(make_policy(cell, cell_kwargs=options))
    for seed, end_probability in enumerate((0.0, 0.25, 0.6)):
        rollout, history = random_rollouts(policy, rollouts, seed=seed, end_probability=end_probability)
        if not replayed:
            rollout = without_outputs(rollout)
        coefficients = dict(ent_coef=0.3, vf_coef=0.7)
        loss = actor_critic_loss(policy, rollout, **coefficients)
        net = SlowNet(policy)
        slow = slow_loss(net, history, STEPS, gamma=GAMMA, gae_lambda=0.95, **coefficients)
        assert_near([loss.total, loss.policy, loss.value, -loss.entropy], [slow.total, slow.policy, slow.value, slow.entropy])
        assert_near(gradients(policy, loss.total), net.gradients(slow.total))


def without_outputs(rollout):
    """The same rollout for a policy that has to run its cell again."""
    twin = copy.copy(rollout)
    twin.sequences = lambda: [sequences._replace(outputs=None) for sequences in rollout.sequences()]
    return twin


def one_window(**parts):
    """A rollout of one time window."""
    rollout = SimpleNamespace(**parts, add_evaluation=lambda values, log_probs: None)
    rollout.sequences = lambda: [RolloutSequences(*(getattr(rollout, name, None) for name in RolloutSequences._fields))]
    return rollout


# How much of a learned decay counts as past depends on when the writes were folded into the matrix, and rows that act together
# are folded together; a memory that always is a matrix tells the same in a batch and alone.
CUT_CELLS = CELLS | {"fast-weights, delta": ("fast-weights", dict(rule="delta", window=0, learn_decay=True))}


@every_cell_with("bptt_length", {str(length): length for length in (1, 2, 4, STEPS)}, CUT_CELLS, rounds=2)
def test_back_propagation_ends_where_it_is_asked_to(cell, options, bptt_length):
    policy = scramble(make_policy(cell, cell_kwargs=options))
    rollout, history = random_rollouts(policy, 2, end_probability=0.1, bptt_length=bptt_length)
    assert [len(sequences.outputs) for sequences in rollout.sequences()] == {1: [1] * 5, 2: [2, 2, 1], 4: [4, 1], 5: [5]}[
        bptt_length
    ]
    net, settings = SlowNet(policy), dict(gamma=GAMMA, gae_lambda=0.95, ent_coef=0.3, vf_coef=0.7)
    loss = actor_critic_loss(policy, rollout, 0.3, 0.7)
    slow = slow_loss(net, history, STEPS, bptt_length=bptt_length, **settings)
    assert_near([loss.total, loss.policy, loss.value, -loss.entropy], [slow.total, slow.policy, slow.value, slow.entropy])
    assert_near(gradients(policy, loss.total), net.gradients(slow.total))
    if bptt_length < STEPS:
        whole = slow_loss(net, history, STEPS, **settings)
        with pytest.raises(AssertionError):
            assert_near(gradients(policy, actor_critic_loss(policy, rollout, 0.3, 0.7).total), net.gradients(whole.total))


WEIGHTS = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.01, 0.5)]


@pytest.mark.parametrize(
    "gae_lambda, ent_coef, vf_coef, normalize_advantage",
    [((0.0, 0.95, 1.0)[i % 3], *WEIGHTS[i % 4], i >= 6) for i in range(12)],  # every pair
)
def test_the_coefficients(gae_lambda, ent_coef, vf_coef, normalize_advantage):
    policy = scramble(make_policy("gru"))
    rollout, history = random_rollouts(policy, 2, gae_lambda=gae_lambda)
    options = dict(ent_coef=ent_coef, vf_coef=vf_coef, normalize_advantage=normalize_advantage)
    loss, net = actor_critic_loss(policy, rollout, **options), SlowNet(policy)
    slow = slow_loss(net, history, STEPS, gamma=GAMMA, gae_lambda=gae_lambda, **options)
    assert_near([loss.total, loss.policy, loss.value], [slow.total, slow.policy, slow.value])
    assert_near(gradients(policy, loss.total), net.gradients(slow.total))


def test_the_reference_sees_a_gradient_that_should_have_been_cut():
    policy = scramble(make_policy("gru"))
    _, history = random_rollouts(policy, 3, end_probability=0.0)
    net = SlowNet(policy)
    cut, whole = (slow_loss(net, history, length, gamma=GAMMA, gae_lambda=1.0, vf_coef=1.0) for length in (STEPS, 3 * STEPS))
    with pytest.raises(AssertionError):
        assert_near(net.gradients(cut.total), net.gradients(whole.total))


def test_a_first_step_that_is_missed_changes_the_loss():
    policy = scramble(make_policy("gru"))
    rollout, _ = random_rollouts(policy, 2)
    rollout = without_outputs(rollout)
    loss = actor_critic_loss(policy, rollout, 0.1, 0.5)
    assert rollout.episode_starts.any()
    missed = [part._replace(episode_starts=torch.zeros_like(part.episode_starts)) for part in rollout.sequences()]
    rollout.sequences = lambda: missed
    assert abs(actor_critic_loss(policy, rollout, 0.1, 0.5).total - loss.total) > 1e-3


def hand_made(advantages, *, logits=(0.0, 0.0, 0.0), value=0.0, actions=None):
    """A policy that always says these logits and this value, and a rollout on which it has these advantages [T, B]."""
    policy = make_policy("gru")
    with torch.no_grad():
        for head, bias in ((policy.action_net, logits), (policy.value_net, [value])):
            head.weight.zero_()
            head.bias.copy_(torch.tensor(bias))
    advantages = torch.tensor(advantages)
    steps, rows = advantages.shape
    rollout = one_window(
        observations=torch.zeros(steps, rows, 4),
        actions=torch.zeros(steps, rows, dtype=torch.int64) if actions is None else torch.tensor(actions),
        state=policy.initial_state(rows),
        episode_starts=torch.zeros(steps, rows, dtype=torch.bool),
        outputs=None,
        targets=Targets(advantages, advantages + value, torch.full((steps, rows), value), torch.zeros(steps, rows)),
    )
    return policy, rollout


def test_by_hand():
    probabilities = np.array([0.5, 0.25, 0.25])
    policy, rollout = hand_made(
        [[2.0, -1.0], [3.0, 0.5]], logits=np.log(probabilities).tolist(), value=10.0, actions=[[0, 1], [2, 0]]
    )
    loss = actor_critic_loss(policy, rollout, ent_coef=0.1, vf_coef=0.5)
    half, quarter = math.log(0.5), math.log(0.25)
    expected_policy = -(2 * half - 1 * quarter + 3 * quarter + 0.5 * half) / 4
    expected_value = (4 + 1 + 9 + 0.25) / 4
    expected_entropy = -(0.5 * half + 0.5 * quarter)
    assert loss.policy.item() == pytest.approx(expected_policy)
    assert loss.value.item() == pytest.approx(expected_value)
    assert loss.entropy.item() == pytest.approx(-expected_entropy)
    assert loss.total.item() == pytest.approx(expected_policy + 0.5 * expected_value - 0.1 * expected_entropy)
    assert loss.values.tolist() == [[10, 10], [10, 10]]
    assert loss.returns.tolist() == [[12, 9], [13, 10.5]]


def test_a_constant_advantage_gives_the_gradient_of_the_log_probability():
    policy, rollout = hand_made(np.full((3, 2), 2.5), actions=[[0, 0], [0, 1], [2, 0]])
    loss = actor_critic_loss(policy, rollout, ent_coef=0.0, vf_coef=0.0)
    (gradient,) = torch.autograd.grad(loss.total, policy.action_net.bias)
    chosen = torch.tensor([4.0, 1.0, 1.0]) / 6
    assert_close(gradient, -2.5 * (chosen - 1 / 3))


def test_a_constant_advantage_that_is_normalized_teaches_the_policy_nothing():
    policy, rollout = hand_made(np.full((3, 2), 2.5))
    loss = actor_critic_loss(policy, rollout, ent_coef=0.0, vf_coef=0.0, normalize_advantage=True)
    assert not any(gradient.any() for gradient in gradients(policy, loss.total))


def test_normalizing_leaves_the_returns_of_the_critic_alone():
    policy, rollout = hand_made([[2.0, -1.0], [3.0, 0.5]], value=1.0)
    plain, normalized = (actor_critic_loss(policy, rollout, 0.0, 1.0, flag) for flag in (False, True))
    assert torch.equal(plain.returns, normalized.returns)
    assert plain.value == normalized.value
    assert plain.policy != normalized.policy


def test_a_step_along_the_entropy_makes_it_less_certain():
    policy, rollout = hand_made(np.zeros((2, 2)), logits=[2.0, 0.0, -1.0])
    bias = policy.action_net.bias
    before = actor_critic_loss(policy, rollout, ent_coef=1.0, vf_coef=0.0)
    before.total.backward()
    with torch.no_grad():
        bias -= 0.1 * bias.grad
    after = actor_critic_loss(policy, rollout, ent_coef=1.0, vf_coef=0.0)
    assert -after.entropy > -before.entropy
    assert after.total < before.total


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_step_along_the_policy_loss_favours_better_actions(advantage):
    policy, rollout = hand_made(np.full((2, 2), advantage), actions=[[1, 1], [1, 1]])
    bias = policy.action_net.bias
    actor_critic_loss(policy, rollout, ent_coef=0.0, vf_coef=0.0).total.backward()
    step = -bias.grad
    assert (step[1] > 0) == (advantage > 0)
    assert (step[0] < 0) == (step[2] < 0) == (advantage > 0)


def test_advantages_and_returns_are_constants():
    policy = scramble(make_policy("gru"))
    rollout, _ = random_rollouts(policy, 1)
    loss = actor_critic_loss(policy, rollout, ent_coef=0.0, vf_coef=0.0)
    assert not (loss.values.requires_grad or loss.returns.requires_grad)
    critic = torch.autograd.grad(loss.policy, policy.value_net.weight, materialize_grads=True, retain_graph=True)[0]
    actor = torch.autograd.grad(loss.value, policy.action_net.weight, materialize_grads=True)[0]
    assert not critic.any()
    assert not actor.any()


def log_prob_and_entropy(space, policy, latent, action):
    """For one step of actions from this space, by the textbook."""
    head = policy.action_net.weight.double() @ latent + policy.action_net.bias.double()
    if isinstance(space, spaces.Box):
        deviation = policy.log_std.double().exp()
        variance = deviation**2
        log_prob = -((torch.as_tensor(action).double() - head) ** 2) / (2 * variance) - torch.log(2 * math.pi * variance) / 2
        return log_prob.sum(), (torch.log(2 * math.pi * math.e * variance) / 2).sum()
    if isinstance(space, spaces.MultiBinary):
        p = 1 / (1 + torch.exp(-head))
        action = torch.as_tensor(action).double()
        likelihood = action * p + (1 - action) * (1 - p)
        return likelihood.log().sum(), -(p * p.log() + (1 - p) * (1 - p).log()).sum()
    log_prob = entropy = 0.0
    for part, chosen in zip(head.split(space.nvec.tolist()), action, strict=True):
        p = part.exp() / part.exp().sum()
        log_prob, entropy = log_prob + p[int(chosen)].log(), entropy - (p * p.log()).sum()
    return log_prob, entropy


@pytest.mark.parametrize(
    "space",
    [spaces.Box(-1, 1, (2,), np.float32), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)],
    ids=lambda s: type(s).__name__,
)
def test_log_probabilities_and_entropies_of_other_actions(space):
    policy = scramble(make_policy("gru", action_space=space))
    state, starts = policy.initial_state(2), torch.zeros(3, 2, dtype=torch.bool)
    observations = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    actions, latents = [], []
    for t in range(3):
        action, latent, state = act(policy, observations[t], state, starts[t])
        actions.append(action)
        latents.append(latent)
    values, log_prob, entropy = policy.evaluate_actions(observations, torch.stack(actions), policy.initial_state(2), starts)
    assert values.shape == log_prob.shape == entropy.shape == (3, 2)
    for t in range(3):
        for row in range(2):
            expected = log_prob_and_entropy(space, policy, latents[t][row].double(), actions[t][row].numpy())
            assert_close((log_prob[t, row].double(), entropy[t, row].double()), expected, rtol=1e-4, atol=1e-4)


END_TO_END = {
    "DummyVecEnv": DummyVecEnv,
    "SyncVectorEnv": lambda functions: VecEnvAdapter(SyncVectorEnv(functions, autoreset_mode=AutoresetMode.NEXT_STEP)),
}
SCRIPTS = [
    ((3, "terminated"), (1, "truncated"), (6, "truncated")),
    ((1, "terminated"), (7, "truncated")),
    ((2, "truncated"), (9, "terminated"), (4, "truncated")),
]


def learns_with_the_gradient_of_what_was_seen(cell, options, vectorize, bptt_length):
    """With a learning rate of 0 all rollouts have the same parameters, so that episodes can be replayed from their start."""
    env = Recorder(vectorize(scripted_envs(SCRIPTS, scale=0.3)))
    settings = dict(gamma=GAMMA, gae_lambda=0.95, ent_coef=0.3, vf_coef=0.7, bptt_length=bptt_length)
    plain = dict(n_steps=4, learning_rate=0.0, max_grad_norm=1e9, norm_reward=False, policy_kwargs=PLAIN)
    model = make_model(env, cell, cell_kwargs=options, **plain, **settings)
    scramble(model.policy)
    rollouts_of(model, 4)
    history = [SimpleNamespace(steps=[], next=env["observations"][-1][b]) for b in range(3)]
    for t in range(16):
        for b, row in enumerate(history):
            info = env["infos"][t][b]
            row.steps.append(
                SimpleNamespace(
                    observation=env["observations"][t][b],
                    action=int(env["actions"][t][b]),
                    reward=float(env["rewards"][t][b]),
                    first=t == 0 or bool(env["dones"][t - 1][b]),
                    last=bool(env["dones"][t][b]),
                    beyond=info["terminal_observation"] if info.get("TimeLimit.truncated") else None,
                )
            )
    assert any(step.beyond is not None for row in history for step in row.steps[-4:])
    net = SlowNet(model.policy)
    slow = slow_loss(net, history, 4, **settings)
    assert_near([parameter.grad for parameter in model.policy.parameters()], net.gradients(slow.total))


@every_cell_with("vectorize", END_TO_END)
def test_learning_has_the_gradient_of_what_was_observed(cell, options, vectorize):
    learns_with_the_gradient_of_what_was_seen(cell, options, vectorize, bptt_length=None)


@pytest.mark.parametrize("cell, options", CUT_CELLS.values(), ids=CUT_CELLS)
def test_learning_in_pieces_has_the_gradient_of_these(cell, options):
    learns_with_the_gradient_of_what_was_seen(cell, options, DummyVecEnv, bptt_length=3)
