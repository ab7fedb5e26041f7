"""With shared_cell=False actor and critic remember apart: as two agents of one cell each, of which one acts and one judges."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.testing import assert_close

from fw_rl.agents import Player, RecurrentA2C
from fw_rl.agents.loss import actor_critic_loss
from fw_rl.cells import CellPair, FastWeightsCell
from fw_rl.envs import CatchEnv, CatchVectorEnv
from fw_rl.experiments.attention import attention_shares
from fw_rl.experiments.episodes import play_episode
from tests.agents.helpers import CELLS, act, every_cell_with, make_model, make_policy, same_parameters, scramble, scripted_envs
from tests.agents.test_loss import gradients, random_rollouts

EVERY_CELL = pytest.mark.parametrize("cell, options", CELLS.values(), ids=CELLS)
SCRIPTS = [((3, "terminated"), (5, "truncated")), ((2, "terminated"),)]


def two_and_each(cell, options, **kwargs):
    """A policy of two cells, one with its actor's weights, and one with its critic's."""
    both = scramble(make_policy(cell, cell_kwargs=options, shared_cell=False, **kwargs))
    actor, critic = (make_policy(cell, cell_kwargs=options, **kwargs) for _ in range(2))
    for one, encoder, memory in ((actor, both.encoder, both.cell.first), (critic, both.critic_encoder, both.cell.second)):
        parts = dict(encoder=encoder, cell=memory, action_net=both.action_net, value_net=both.value_net)
        parts |= dict(mlp_extractor=both.mlp_extractor)
        for name, part in parts.items():
            getattr(one, name).load_state_dict(part.state_dict())
    return both, actor, critic


@EVERY_CELL
def test_actions_are_the_actor_s_and_values_the_critic_s(cell, options):
    both, actor, critic = two_and_each(cell, options, net_arch=dict(pi=[5], vf=[4]))
    observations, starts = torch.randn(6, 3, 4), torch.rand(6, 3) > 0.7
    states = [policy.initial_state(3) for policy in (both, actor, critic)]
    for observation, start in zip(observations, starts, strict=True):
        values = [
            policy.predict_values(observation, state, start) for policy, state in zip((both, critic), states[::2], strict=True)
        ]
        assert_close(*values)
        actions, _, states[0] = act(both, observation, states[0], start, deterministic=True)
        expected, _, states[1] = act(actor, observation, states[1], start, deterministic=True)
        _, _, states[2] = act(critic, observation, states[2], start, deterministic=True)
        assert torch.equal(actions, expected)
    assert_close(states[0], states[1] + states[2])


@every_cell_with("bptt_length", {"whole": None, "2": 2})
def test_each_learns_from_its_part_of_the_loss(cell, options, bptt_length):
    both, actor, critic = two_and_each(cell, options)
    rollout, _ = random_rollouts(both, 2, bptt_length=bptt_length)
    for weights, alone, prefixes in (
        (dict(ent_coef=0.3, vf_coef=0.0), actor, {"encoder.": "encoder.", "cell.first.": "cell."}),
        (dict(ent_coef=0.0, vf_coef=1.0), critic, {"critic_encoder.": "encoder.", "cell.second.": "cell."}),
    ):
        loss = actor_critic_loss(both, rollout, **weights)
        part = loss.value if alone is critic else loss.policy + weights["ent_coef"] * loss.entropy
        found = dict(zip((name for name, _ in both.named_parameters()), gradients(both, part), strict=True))
        values, log_prob, entropy = (
            torch.cat(parts) for parts in zip(*evaluated(alone, rollout, alone is critic), strict=True)
        )
        advantages = loss.returns - loss.values
        expected = (
            (values - loss.returns).square().mean()
            if alone is critic
            else -(advantages * log_prob).mean() - weights["ent_coef"] * entropy.mean()
        )
        assert_close(part, expected, rtol=1e-4, atol=1e-5)
        reference = dict(zip((name for name, _ in alone.named_parameters()), gradients(alone, expected), strict=True))
        for mine, theirs in prefixes.items():
            names = [name for name in found if name.startswith(mine)]
            assert names
            for name in names:
                assert_close(found[name], reference[theirs + name.removeprefix(mine)], rtol=1e-3, atol=1e-5)
        for name, gradient in found.items():
            if not name.startswith((*prefixes, "action_net", "value_net")):
                assert not gradient.any(), name


def evaluated(alone, rollout, judges):
    """What the policy of one cell says of each time window, from that cell's half of the state, without the outputs of two."""
    for sequences in rollout.sequences():
        half = len(sequences.state) // 2
        state = sequences.state[half:] if judges else sequences.state[:half]
        yield alone.evaluate_actions(sequences.observations, sequences.actions, state, sequences.episode_starts)


def test_actor_and_critic_may_see_apart():
    image = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    policy = make_policy("gru", observation_space=image, shared_cell=False, share_features_extractor=False)
    observations = torch.randint(0, 255, (2, 3, 1, 36, 36), dtype=torch.uint8)
    seen = policy.encode(observations)
    assert seen.shape == (2, 3, 12)
    with torch.no_grad():
        for parameter in policy.vf_features_extractor.parameters():
            parameter.zero_()
    after = policy.encode(observations)
    assert torch.equal(after[..., :6], seen[..., :6])
    assert not torch.equal(after[..., 6:], seen[..., 6:])


def test_with_one_cell_they_cannot_see_apart():
    with pytest.raises(ValueError, match=r"^share_features_extractor must be True unless shared_cell=False, got False$"):
        make_policy("gru", share_features_extractor=False)


@EVERY_CELL
def test_it_learns_plays_and_comes_back_from_a_file(cell, options, tmp_path):
    env = DummyVecEnv(scripted_envs(SCRIPTS, scale=0.3))
    sizes = dict(shared_cell=False)
    model = make_model(env, cell, cell_kwargs=options, n_steps=6, bptt_length=4, policy_kwargs=sizes)
    model.learn(48)
    assert isinstance(model.policy.cell, CellPair)
    model.save(tmp_path / "agent")
    loaded = RecurrentA2C.load(tmp_path / "agent", env)
    assert same_parameters(model, loaded)
    observation = env.reset()
    player, state, done = Player(loaded), None, True
    for _ in range(6):
        action, state = model.predict(observation, state, done, deterministic=True)
        np.testing.assert_array_equal(player.act(observation), action)
        observation, _reward, done, _ = env.step(action)
        player.observe(done)
    loaded.learn(24, reset_num_timesteps=False)


def test_a_picture_of_attention_is_of_the_actor_s():
    model = make_model(CatchVectorEnv(2, n=5, m=2), "fast-weights", policy_kwargs=dict(shared_cell=False))
    episode = play_episode(model, CatchEnv(5, 2), seed=0)
    shares = attention_shares(model, episode)
    with torch.no_grad():
        for parameter in model.policy.cell.second.parameters():
            parameter.add_(1.0)
    np.testing.assert_array_equal(attention_shares(model, episode), shares)
    assert isinstance(model.policy.actor_cell, FastWeightsCell)
    assert shares.shape == (4, 4)
    np.testing.assert_allclose(shares.sum(1), [0, 1, 1, 1], rtol=1e-6)
