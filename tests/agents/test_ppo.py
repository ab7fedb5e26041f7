"""PPO learns from each rollout several times, in minibatches of sequences from all environments and times."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.testing import assert_close

from fw_rl.agents import RecurrentPPO
from fw_rl.agents.loss import actor_critic_loss, clipped_loss
from fw_rl.agents.minibatches import Minibatch, SequenceSampler
from tests.agents.helpers import CELLS, Recall, Snapshots, same_parameters, scramble, scripted_envs

EVERY_CELL = pytest.mark.parametrize("cell, options", CELLS.values(), ids=CELLS)
SCRIPTS = [((3, "terminated"), (6, "truncated")), ((5, "terminated"), (2, "truncated")), ((40, "terminated"),)]


def make_ppo(cell="gru", options=None, scripts=SCRIPTS, action_space=None, **kwargs):
    policy = dict(cell=cell, hidden_size=8, encoder_arch=(6,), cell_kwargs=options)
    env = DummyVecEnv(scripted_envs(scripts, scale=0.3, action_space=action_space))
    settings = dict(n_steps=6, batch_size=6, n_epochs=2, gae_lambda=0.9, seed=0, device="cpu")
    model = RecurrentPPO("RecurrentPolicy", env, policy_kwargs=policy, **settings | kwargs)
    model.set_logger(configure(None, []))
    scramble(model.policy, scale=0.4)
    return model


def collected(model, rollouts=2):
    """The agent with a rollout from which it has not learned."""
    model.learning_rate, model.lr_schedule = 0.0, lambda progress: 0.0
    model.learn(rollouts * model.n_steps * model.n_envs)
    return model


def minibatches(model):
    """One epoch on the last rollout."""
    evaluated = model._evaluate_rollout()
    sampler = SequenceSampler(model.rollout_buffer, model.batch_size)
    return [Minibatch(sequences, *evaluated[steps].unbind(2)) for sequences, steps in sampler]


@pytest.mark.parametrize("bptt_length, batches", [(None, 1), (2, 1), (4, 2)])
@EVERY_CELL
def test_the_first_gradient_is_that_of_a2c(cell, options, bptt_length, batches):
    model = collected(make_ppo(cell, options, bptt_length=bptt_length, batch_size=100))
    parameters = list(model.policy.parameters())
    expected = actor_critic_loss(model.policy, model.rollout_buffer, 0.1, 0.7)
    expected_gradient = torch.autograd.grad(expected.total, parameters, allow_unused=True, materialize_grads=True)
    drawn = minibatches(model)
    losses = [clipped_loss(model.policy, batch, 0.1, 0.7, clip_range=0.2, normalize_advantage=False) for batch in drawn]
    assert len(losses) == batches
    shares = [batch.returns.numel() / 18 for batch in drawn]
    total = sum(share * loss.total for share, loss in zip(shares, losses, strict=True))
    gradient = torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)
    assert_close(gradient, expected_gradient, atol=2e-6, rtol=1e-4)
    for loss in losses:
        assert_close(loss.approx_kl, torch.zeros(()), atol=1e-7, rtol=0)
        assert loss.clip_fraction == 0
    assert_close(sum(share * loss.value for share, loss in zip(shares, losses, strict=True)), expected.value)


def told(values, log_prob, entropy):
    """A policy that says this of whatever was done."""
    return SimpleNamespace(evaluate_actions=lambda: (torch.tensor(values), torch.tensor(log_prob), torch.tensor(entropy)))


def batch_of(advantages, returns, values, log_prob):
    return Minibatch((), *(torch.tensor(part) for part in (advantages, returns, values, log_prob)))


def test_the_loss_by_hand():
    ratios = [[1.5, 0.5], [1.1, 2.0]]
    policy = told([[1.0, 2.0], [3.0, 4.0]], np.log(ratios).tolist(), [[0.5, 0.5], [1.0, 1.0]])
    batch = batch_of([[1.0, -1.0], [2.0, -3.0]], [[0.0, 2.0], [3.0, 1.0]], [[0.0, 2.0], [2.9, 5.0]], [[0.0, 0.0], [0.0, 0.0]])
    loss = clipped_loss(policy, batch, 0.1, 0.5, clip_range=0.2, normalize_advantage=False)
    # The worse of both counts: a gain is cut off at 1.2, a loss is not.
    assert_close(loss.policy, torch.tensor(-(1.2 * 1 + 0.8 * -1 + 1.1 * 2 + 2.0 * -3) / 4))
    assert_close(loss.value, torch.tensor((1.0 + 0 + 0 + 9.0) / 4))
    assert_close(loss.entropy, torch.tensor(-0.75))
    assert_close(loss.clip_fraction, torch.tensor(0.75))
    assert_close(loss.approx_kl, torch.tensor(np.mean(np.subtract(ratios, 1) - np.log(ratios)).astype(np.float32)))
    assert_close(loss.total, loss.policy + 0.5 * loss.value + 0.1 * loss.entropy)
    near = clipped_loss(policy, batch, 0.1, 0.5, clip_range=0.2, clip_range_vf=0.3, normalize_advantage=False)
    assert_close(near.value, torch.tensor((0.3**2 + 0 + 0 + 3.7**2) / 4))


def test_advantages_are_normalized_in_the_minibatch():
    policy = told([[0.0], [0.0]], [[0.1], [-0.1]], [[0.0], [0.0]])
    loss = clipped_loss(policy, batch_of([[5.0], [7.0]], [[0.0], [0.0]], [[0.0], [0.0]], [[0.0], [0.0]]), 0, 0, clip_range=0.9)
    root = 2**-0.5
    assert_close(loss.policy, torch.tensor(-(-root * np.exp(0.1) + root * np.exp(-0.1)) / 2).float())
    alone = clipped_loss(told([[0.0]], [[0.0]], [[0.0]]), batch_of([[5.0]], [[0.0]], [[0.0]], [[0.0]]), 0, 0, clip_range=0.2)
    assert alone.policy == -5


@pytest.mark.parametrize(
    "bptt_length, batch_size, sizes", [(None, 6, [6] * 3), (None, 13, [12, 6]), (2, 4, [4] * 4 + [2]), (4, 8, [8, 4, 6])]
)
def test_every_step_is_learned_from_once_an_epoch(bptt_length, batch_size, sizes):
    model = collected(make_ppo(bptt_length=bptt_length, batch_size=batch_size))
    batches = minibatches(model)
    assert sorted(batch.returns.numel() for batch in batches) == sorted(sizes)
    seen = torch.cat([batch.sequences.observations.flatten(0, 1) for batch in batches])
    kept = model.rollout_buffer.observations.flatten(0, 1)
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, kept.tolist()))
    orders = {float(minibatches(model)[0].returns[0, 0]) for _ in range(20)}
    assert len(orders) > 1


def test_a_minibatch_spans_the_times_of_one_environment():
    """Four sequences of 16 steps from a rollout of eight, with advantages that are normalized over all of them."""
    scripts, sizes = [((7, "terminated"), (40, "truncated"))], dict(n_steps=128, bptt_length=16, batch_size=64)
    model = collected(make_ppo(scripts=scripts, norm_reward=False, **sizes))
    sampler = SequenceSampler(model.rollout_buffer, model.batch_size)
    for _ in range(3):
        drawn = list(sampler)
        assert [tuple(steps.shape) for _, steps in drawn] == [(16, 4), (16, 4)]
        begins = [sorted(steps[0].tolist()) for _, steps in drawn]
        assert sorted(begins[0] + begins[1]) == list(range(0, 128, 16))
        assert max(np.ptp(times) for times in begins) > 48  # not four windows in a row
    for batch in minibatches(model):
        values, log_prob, _ = model.policy.evaluate_actions(*batch.sequences)
        assert_close((values, log_prob), (batch.values, batch.log_prob))
        assert batch.advantages.shape == (16, 4)
        small, large = (
            clipped_loss(model.policy, batch._replace(advantages=scale * batch.advantages + 5), 0, 0, clip_range=0.2).policy
            for scale in (1, 3)
        )
        assert_close(small, large)
        assert_close(small, torch.zeros(()), atol=1e-6, rtol=0)


def test_learning_stops_where_the_policy_has_gone_too_far(capsys):
    updates, epochs = [], []
    for target_kl in (None, 1e-9):
        model = make_ppo(n_epochs=5, target_kl=target_kl, learning_rate=1e-2, verbose=1)
        model.learn(18)
        updates.append(model._n_updates)
        epochs.append(model.logger.name_to_value["train/epochs"])
    assert updates == epochs == [5, 1]
    assert capsys.readouterr().out.count("Epoch 1 of 5 stopped: approx_kl is ") == 1


@pytest.mark.parametrize(
    "settings, expected",
    [
        (dict(desired_kl=1.0), [1.0, 1.5, 1.5**2, 1.5**3, 1.5**4, 1.5**5, 10.0]),  # it has hardly moved
        (dict(desired_kl=1e-12), [1 / 1.5**k for k in range(7)]),
        (dict(desired_kl=None), [1.0] * 7),
        (dict(desired_kl=1.0, learning_rate=LinearSchedule(1e-3, 0.0, 1.0)), [1 - k / 8 for k in range(1, 8)]),
        (dict(desired_kl=1.0, anneal=True), [1 - k / 8 for k in range(1, 8)]),
    ],
    ids=["it rises", "it falls", "none", "schedule", "anneal"],
)
def test_the_rate_follows_how_far_the_policy_has_moved(settings, expected):
    model = make_ppo(**dict(learning_rate=1e-3, target_kl=None) | settings)
    rates = []
    model.logger.dump = lambda step=0: rates.append(model.policy.optimizer.param_groups[0]["lr"])
    model.learn(8 * 18)
    assert rates[1:8] == pytest.approx([1e-3 * factor for factor in expected])


def test_the_rate_rises_no_more_once_the_policy_has_moved_too_far():
    model, factors = make_ppo(desired_kl=0.01), []
    for approx_kl in (0.004, 0.006, 0.004, 0.021, 0.004, 0.019, 0.021, *[1.0] * 20):
        model._adapt_learning_rate(approx_kl)
        factors.append(model.learning_rate_factor)
    assert factors[:7] == pytest.approx([1.5, 1.5, 1.5**2, 1.5, 1.5, 1.5, 1.0])
    assert factors[-1] == 0.01


def test_the_rate_follows_the_mean_of_all_updates(monkeypatch):
    model, told = make_ppo(n_epochs=4, learning_rate=1e-2, target_kl=None), []
    monkeypatch.setattr(model, "_adapt_learning_rate", told.append)
    model.learn(18)
    assert told == [model.logger.name_to_value["train/approx_kl"]]


def test_a_loaded_agent_cuts_sequences_for_its_new_batch(tmp_path):
    make_ppo(batch_size=3).save(tmp_path / "agent")
    for batch_size, steps in ((3, 3), (6, 6), (2, 2)):
        model = RecurrentPPO.load(tmp_path / "agent", make_ppo().get_env(), batch_size=batch_size).learn(18)
        assert {len(batch.returns) for batch in minibatches(model)} == {steps}


def test_an_agent_goes_on_with_its_adapted_rate(tmp_path):
    model = make_ppo(desired_kl=1.0).learn(54)
    model._adapt_learning_rate(3.0)
    assert 1 < model.learning_rate_factor < 10
    model.save(tmp_path / "agent")
    loaded = RecurrentPPO.load(tmp_path / "agent")
    assert loaded.learning_rate_factor == model.learning_rate_factor
    assert loaded.learning_rate_falls == 1
    for rate in (1e-4, LinearSchedule(1e-4, 0.0, 1.0)):
        assert RecurrentPPO.load(tmp_path / "agent", learning_rate=rate).learning_rate_factor == 1.0


def test_a_rate_that_is_not_adapted_any_more_is_the_one_given(tmp_path):
    make_ppo(desired_kl=1.0, learning_rate=1e-4).learn(54).save(tmp_path / "agent")
    for settings, progress in ((dict(desired_kl=None), [1.0, 1.0]), (dict(anneal=True), [2 / 3, 1 / 3])):
        model, rates = RecurrentPPO.load(tmp_path / "agent", make_ppo().get_env(), **settings), []
        model.set_logger(configure(None, []))
        model.logger.dump = lambda step=0, model=model, rates=rates: rates.append(model.policy.optimizer.param_groups[0]["lr"])
        assert model.learning_rate_factor > 1
        model.learn(54)
        assert rates[1:3] == pytest.approx([1e-4 * share for share in progress])


@pytest.mark.parametrize("norm_reward", [True, False])
def test_advantages_are_scaled_where_rewards_are_not(norm_reward):
    chosen = make_ppo(norm_reward=norm_reward)._scales_advantages
    given = make_ppo(norm_reward=norm_reward, normalize_advantage=norm_reward)._scales_advantages
    assert (chosen, given) == (not norm_reward, norm_reward)


def test_an_agent_loaded_without_scaled_rewards_scales_advantages(tmp_path):
    make_ppo().save(tmp_path / "agent")
    assert not RecurrentPPO.load(tmp_path / "agent")._scales_advantages
    assert RecurrentPPO.load(tmp_path / "agent", norm_reward=False)._scales_advantages


def test_schedules_and_what_is_logged():
    model = make_ppo(clip_range=LinearSchedule(0.4, 0.0, 1.0), clip_range_vf=0.5, target_kl=None, learning_rate=1e-2)
    told: list[dict] = []
    model.logger.dump = lambda step=0: told.append(dict(model.logger.name_to_value))
    model.learn(54)
    told = told[1:]  # before the first update there is nothing to tell
    assert [row["train/clip_range"] for row in told] == pytest.approx([0.4 * 2 / 3, 0.4 / 3])
    names = ("policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction", "loss", "explained_variance")
    assert all(np.isfinite(row[f"train/{name}"]) for row in told for name in names)
    assert all(row["train/grad_norm"] > 0 for row in told)
    assert [row["train/epochs"] for row in told] == [2, 2]


def test_the_deviation_of_continuous_actions_is_logged():
    model = make_ppo(action_space=spaces.Box(-1, 1, (2,)), n_epochs=1)
    model.policy.log_std.data = torch.tensor([0.0, -1.0])
    model.learning_rate, model.lr_schedule = 0.0, lambda progress: 0.0
    model.learn(18)
    assert model.logger.name_to_value["train/std"] == pytest.approx((1 + np.exp(-1)) / 2)


@EVERY_CELL
def test_it_learns_and_goes_on_from_a_file(cell, options, tmp_path):
    model = make_ppo(cell, options, learning_rate=1e-2)
    model.learn(36)
    model.save(tmp_path / "agent")
    ways = []
    for _ in range(2):
        loaded = RecurrentPPO.load(tmp_path / "agent", DummyVecEnv(scripted_envs(SCRIPTS, scale=0.3)), device="cpu")
        assert same_parameters(model, loaded)
        assert (loaded.batch_size, loaded.n_epochs, loaded.clip_range) == (6, 2, 0.2)
        ways.append(loaded.learn(36, reset_num_timesteps=False))
    assert same_parameters(*ways)
    assert not same_parameters(model, ways[0])


@pytest.mark.parametrize("cell, bptt_length", [("fast-weights", 6), ("fast-weights", 4), ("lstm", 4)])
def test_a_cell_learns_to_recall(cell, bptt_length):
    """Where sequences are short, those of a minibatch begin at different steps of their episodes."""
    settings = dict(n_steps=12 if bptt_length == 4 else 6, bptt_length=bptt_length, batch_size=96, n_epochs=4, anneal=True)
    sizes = dict(cell=cell, hidden_size=32, encoder_arch=(32,))
    model = RecurrentPPO(
        "RecurrentPolicy", Recall(64), learning_rate=3e-3, seed=0, device="cpu", policy_kwargs=sizes, **settings
    )
    model.learn(64 * 6 * 20)
    mean_reward, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=256, warn=False)
    assert mean_reward > 0.95


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(2)])
def test_other_actions(space):
    model, snapshots = make_ppo(action_space=space, bptt_length=3), Snapshots()
    model.learn(36, callback=snapshots)
    assert len(snapshots.rollouts) == 2


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(batch_size=0), "batch_size must be at least 6, the steps of one sequence, got 0"),
        (dict(batch_size=1, bptt_length=2), "batch_size must be at least 2, the steps of one sequence, got 1"),
        (dict(n_epochs=0), "n_epochs must be at least 1, got 0"),
        (dict(clip_range=0), "clip_range must be above 0, got 0"),
        (dict(clip_range=None), "clip_range must be a number or a schedule, got None"),
        (dict(clip_range="lin_0.2"), "clip_range must be above 0, got 'lin_0.2'"),
        (dict(clip_range_vf=-1.0), "clip_range_vf must be above 0, got -1.0"),
        (dict(target_kl=0.0), "target_kl must be above 0, got 0.0"),
        (dict(target_kl=lambda progress: 0.1), "target_kl must be of type float | None, got <function"),
        (dict(desired_kl=lambda progress: 0.1), "desired_kl must be of type float | None, got <function"),
        (dict(bptt_length=6.0), "bptt_length must be of type int | None, got 6.0"),
        (dict(desired_kl=-0.01), "desired_kl must be above 0, got -0.01"),
        (dict(bptt_length=7, batch_size=9), "bptt_length must be from 1 to n_steps, which is 6, got 7"),
    ],
)
def test_what_is_not_allowed(kwargs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_ppo(**kwargs)


def test_a_number_may_be_one_of_numpy(tmp_path):
    model = make_ppo(clip_range=np.float32(0.3), target_kl=np.float64(0.1), batch_size=np.int64(12))
    assert model.learn(18).num_timesteps == 18
    model.save(tmp_path / "agent")
    assert RecurrentPPO.load(tmp_path / "agent").clip_range == pytest.approx(0.3)


def test_the_shorter_sequences_are_not_always_last():
    model = collected(make_ppo(bptt_length=4, batch_size=8))
    assert len({tuple(len(batch.returns) for batch in minibatches(model)) for _ in range(40)}) > 1


def test_each_update_has_a_gradient_of_its_own():
    norms = []
    for n_epochs in (1, 3):  # of the same minibatch, by the same parameters
        model = collected(make_ppo(batch_size=18, n_epochs=n_epochs, max_grad_norm=1e9), rollouts=1)
        norms.append(model.logger.name_to_value["train/grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_a_value_error_of_no_weight_teaches_the_critic_nothing():
    model, same = (make_ppo(vf_coef=0.0, learning_rate=1e-2) for _ in range(2))
    model.learn(18)
    assert torch.equal(model.policy.value_net.weight, same.policy.value_net.weight)
    assert not same_parameters(model, same)


def test_the_update_that_would_go_too_far_is_not_made():
    def taught(**settings):
        return make_ppo(batch_size=18, learning_rate=1e-2, **settings).learn(18)

    whole, half = taught(n_epochs=2, target_kl=None), taught(n_epochs=1, target_kl=None)
    reached = 2 * whole.logger.name_to_value["train/approx_kl"]  # before the first of both updates there is none
    assert same_parameters(taught(n_epochs=2, target_kl=reached / 1.4), whole)
    assert same_parameters(taught(n_epochs=2, target_kl=reached / 1.6), half)
