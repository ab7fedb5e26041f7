"""The names of SB3 and sb3-contrib: what they say here."""

import warnings

import gymnasium as gym
import pytest
import torch
from sb3_contrib import RecurrentPPO as PeerPPO
from stable_baselines3.common.envs import IdentityEnv
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from fw_rl.agents import RecurrentA2C, RecurrentPPO, evaluate_policy


def lstm_agent(**policy_kwargs):
    return RecurrentPPO("MlpLstmPolicy", "CartPole-v1", policy_kwargs=policy_kwargs, seed=0)


def shapes(module):
    return sorted(tuple(parameter.shape) for parameter in module.parameters())


def test_their_lstm_policy_has_the_net_that_it_has_there():
    options = dict(lstm_hidden_size=16)
    ours, theirs = (made("MlpLstmPolicy", "CartPole-v1", policy_kwargs=options) for made in (RecurrentPPO, PeerPPO))
    assert shapes(ours.policy) == shapes(theirs.policy)
    assert ours.policy.activation_fn is nn.Tanh and ours.policy.ortho_init


def test_their_lstm_policy_begins_with_weights_as_there():
    torch.manual_seed(0)
    options = dict(lstm_hidden_size=256)
    ours, theirs = (made("MlpLstmPolicy", "CartPole-v1", policy_kwargs=options) for made in (RecurrentPPO, PeerPPO))
    for own, peer in ((ours.policy.cell.first, theirs.policy.lstm_actor), (ours.policy.cell.second, theirs.policy.lstm_critic)):
        gates = zip(own.core.bias_ih_l0.chunk(4), peer.bias_ih_l0.chunk(4), strict=True)
        assert all(abs(one.mean() - other.mean()) < 0.02 for one, other in gates)


@pytest.mark.processes
def test_their_lstm_policy_learns_a_game_without_a_past_as_there():
    settings = dict(n_steps=128, n_epochs=10, learning_rate=1e-3, gamma=0.1, clip_range=0.4, seed=0, device="cpu")
    model = RecurrentPPO("MlpLstmPolicy", IdentityEnv(8), **settings, policy_kwargs=dict(lstm_hidden_size=64))
    model.learn(4_096)
    assert evaluate_policy(model, IdentityEnv(8), 5, warn=False)[0] > 80


def test_their_policy_of_images_refuses_what_is_none():
    with pytest.raises(AssertionError, match="only with images"):
        RecurrentPPO("CnnLstmPolicy", "CartPole-v1")


def test_a_shared_lstm_is_one_for_both():
    apart, shared = lstm_agent(lstm_hidden_size=8), lstm_agent(lstm_hidden_size=8, shared_lstm=True, enable_critic_lstm=False)
    assert not apart.policy.shared_cell and shared.policy.shared_cell


def test_their_layers_are_layers_here():
    policy = lstm_agent(lstm_hidden_size=8, n_lstm_layers=2, cell_kwargs=dict(forget_bias=0.5), net_arch=[]).policy
    assert len(policy.initial_state(1)) == 2 * len(lstm_agent(lstm_hidden_size=8).policy.initial_state(1))
    assert policy.net_arch == []
    assert lstm_agent(net_arch=None).policy.net_arch == [64, 64]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(enable_critic_lstm=False), "enable_critic_lstm must be True where shared_lstm is False, got False"),
        (
            dict(shared_lstm=True, enable_critic_lstm=True),
            "enable_critic_lstm must be False where shared_lstm is True, got True",
        ),
        (dict(lstm_kwargs=dict(dropout=0.1)), "got 'lstm_kwargs', which is cell_kwargs"),
        (dict(cell="gru"), "cell must be left out with 'MlpLstmPolicy', whose cell is an LSTM, got 'gru'"),
    ],
)
def test_what_a_policy_cannot_do_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        lstm_agent(**options)


def test_an_argument_of_their_policy_is_named_with_ours():
    with pytest.raises(ValueError, match="got 'lstm_hidden_size', which is hidden_size here"):
        RecurrentPPO("RecurrentPolicy", "CartPole-v1", policy_kwargs=dict(lstm_hidden_size=8))
    with pytest.raises(ValueError, match=r"policy_kwargs must have known names, got 'hiden_size': known are cell, "):
        RecurrentPPO("RecurrentPolicy", "CartPole-v1", policy_kwargs=dict(hiden_size=8))


def test_what_is_no_policy_and_what_are_no_arguments_is_refused():
    env = gym.make("CartPole-v1")
    with pytest.raises(ValueError, match=r"^policy_kwargs must be a dictionary, got 'lstm'$"):
        RecurrentPPO("RecurrentPolicy", env, policy_kwargs="lstm")
    with pytest.raises(ValueError, match=r"^policy must be a name .* or fw_rl.agents.Recurrent.*, got <.*CartPole"):
        RecurrentPPO(env, "RecurrentPolicy")


def test_an_unknown_policy_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"policy must be one of RecurrentPolicy, MlpLstmPolicy, .* got 'MlpPolicy'"):
        RecurrentA2C("MlpPolicy", "CartPole-v1")


@pytest.mark.parametrize("agent", [RecurrentA2C, RecurrentPPO])
def test_a_policy_without_a_memory_is_refused(agent):
    with pytest.raises(ValueError, match=r"^policy must be a name .* got stable_baselines3.*policies\.ActorCriticPolicy$"):
        agent(ActorCriticPolicy, "CartPole-v1")


@pytest.mark.parametrize("name, instead", [("use_rms_prop", "optimizer='rmsprop'"), ("use_sde", "no state-dependent")])
def test_an_argument_of_their_agents_is_named_with_ours(name, instead):
    with pytest.raises(ValueError, match=f"{name} must be left out.*{instead}"):
        RecurrentA2C("RecurrentPolicy", "CartPole-v1", **{name: True})


def test_a_small_batch_is_one_sequence():
    model = RecurrentPPO("MlpLstmPolicy", "CartPole-v1", n_steps=64, batch_size=16, n_epochs=1, seed=0)
    model.learn(64)
    assert [len(sequences.outputs) for sequences in model.rollout_buffer.sequences()] == [16] * 4


def test_learning_in_a_loop_tells_that_the_rate_is_annealed():
    model = RecurrentA2C("RecurrentPolicy", "CartPole-v1", n_steps=4, seed=0, anneal=True)
    model.learn(8)
    with pytest.warns(UserWarning, match="take anneal=False"):
        model.learn(8, reset_num_timesteps=False)


def test_a_rate_that_stays_learns_in_a_loop_without_a_word():
    model = RecurrentA2C("RecurrentPolicy", "CartPole-v1", n_steps=4, seed=0)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            model.learn(8, reset_num_timesteps=False)
            rates.append(model.policy.optimizer.param_groups[0]["lr"])
    assert rates == [model.learning_rate] * 3


def test_an_interrupted_training_goes_on_without_a_word(tmp_path):
    model = RecurrentA2C("RecurrentPolicy", "CartPole-v1", n_steps=4, seed=0)
    model.learn(8, callback=lambda locals_, globals_: False)
    model.save(tmp_path / "agent")
    loaded = RecurrentA2C.load(tmp_path / "agent", "CartPole-v1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.learn(4, reset_num_timesteps=False)


def test_an_agent_with_their_policy_is_saved_as_one_of_ours(tmp_path):
    model = lstm_agent(lstm_hidden_size=8)
    model.save(tmp_path / "agent")
    loaded = RecurrentPPO.load(tmp_path / "agent")
    assert loaded.policy.activation_fn is nn.Tanh
    for ours, theirs in zip(model.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_their_defaults_without_effect_and_an_older_form_of_nets_are_taken():
    theirs = dict(lstm_hidden_size=4, lstm_kwargs=None, full_std=True, use_expln=False, net_arch=[dict(pi=[4], vf=[5])])
    policy = lstm_agent(**theirs).policy
    assert policy.hidden_size == 4
    assert [layer.out_features for layer in policy.mlp_extractor.value_net if hasattr(layer, "out_features")] == [5]


def test_load_takes_their_names(tmp_path):
    lstm_agent(lstm_hidden_size=4).save(tmp_path / "agent")
    loaded = RecurrentPPO.load(tmp_path / "agent", policy_kwargs=dict(lstm_hidden_size=4, enable_critic_lstm=True))
    assert loaded.policy.hidden_size == 4


def test_a_policy_of_theirs_is_told_from_ours():
    from sb3_contrib.ppo_recurrent import MlpLstmPolicy

    with pytest.raises(ValueError, match=r"got sb3_contrib\.common\.recurrent\.policies\.RecurrentActorCriticPolicy$"):
        RecurrentPPO(MlpLstmPolicy, "CartPole-v1")
