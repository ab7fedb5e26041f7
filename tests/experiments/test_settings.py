"""Without a tuned value a run has the defaults of the classes, and these are what the benchmark chose."""

from dataclasses import asdict
from inspect import signature

import pytest

from fw_rl.agents import RecurrentActorCriticPolicy
from fw_rl.agents.checkpoint import argument_defaults, constructor_arguments
from fw_rl.algorithms import ALGORITHMS
from fw_rl.experiments.agents import make_model
from fw_rl.experiments.settings import RunSettings, resolve

UNKNOWN = "CartPole-v1"
EVERY_ALGORITHM = pytest.mark.parametrize("algo", ALGORITHMS)


@EVERY_ALGORITHM
def test_an_unknown_environment_has_the_defaults_of_the_classes(algo):
    settings = asdict(resolve(env=UNKNOWN, algo=algo))
    agent = argument_defaults(ALGORITHMS[algo].agent)
    policy = {name: parameter.default for name, parameter in signature(RecurrentActorCriticPolicy).parameters.items()}
    policy |= {name: list(policy[name]) for name in ("encoder_arch", "net_arch")}
    assert settings["normalize"] is agent["norm_reward"] is policy["norm_obs"] is True
    for defaults, some in ((agent, {"learning_rate", "gae_lambda"}), (policy, {"hidden_size", "net_arch"})):
        shared = settings.keys() & defaults.keys() - {"seed"}
        assert some <= shared
        assert {name: settings[name] for name in shared} == {name: defaults[name] for name in shared}


@EVERY_ALGORITHM
def test_the_defaults_reach_the_agent_and_its_policy(algo):
    chosen = make_model(resolve(env=UNKNOWN, algo=algo, cell="gru"))
    plain = ALGORITHMS[algo].agent("RecurrentPolicy", UNKNOWN, policy_kwargs=dict(cell="gru"), seed=0)
    assert str(chosen.policy) == str(plain.policy)
    for_policy = dict(policy_kwargs={})
    assert constructor_arguments(chosen) | for_policy == constructor_arguments(plain) | for_policy


def test_the_record_has_the_defaults_of_an_unknown_environment():
    assert RunSettings(env=UNKNOWN) == resolve(env=UNKNOWN)


@pytest.mark.parametrize("cell", ["lru-delta-net", "ffm", "rnn", "min-gru"])
def test_a_cell_that_fell_back_has_a_lower_rate_where_nothing_is_tuned(cell):
    assert resolve(env=UNKNOWN, cell=cell).learning_rate == RunSettings().learning_rate / 2
    for env in ("Catch-16-3", "Retrieval-8"):
        of_cell, of_lstm = (resolve(env=env, algo="ppo", cell=name) for name in (cell, "lstm"))
        assert of_cell.learning_rate == of_lstm.learning_rate


def test_none_is_a_choice_and_what_is_left_out_is_not():
    assert resolve(env=UNKNOWN).target_kl == 0.05
    assert resolve(env=UNKNOWN, target_kl=None).target_kl is None
    with pytest.raises(ValueError, match=r"^--clip-range must be a value with --algo ppo, got None$"):
        resolve(env=UNKNOWN, clip_range=None)


@pytest.mark.parametrize(("n_steps", "batch_size", "bptt_length"), [(512, 256, 256), (256, 256, None), (8, 128, None)])
def test_batch_and_sequence_follow_the_rollout(n_steps, batch_size, bptt_length):
    config = resolve(env=UNKNOWN, n_steps=n_steps)
    assert (config.batch_size, config.bptt_length) == (batch_size, bptt_length)


def test_the_defaults():
    """The only test that is to change with them."""
    ppo, a2c, a3c = (asdict(resolve(env=UNKNOWN, algo=algo)) for algo in ("ppo", "a2c", "a3c"))
    net = dict(cell="fast-weights", encoder_arch=[64], hidden_size=64, net_arch=[64], shared_cell=False, normalize=True)
    loss = dict(gamma=0.99, gae_lambda=0.9, ent_coef=0.0, vf_coef=0.5, max_grad_norm=1.0, optimizer="adam", anneal=False)
    of_ppo = dict(n_steps=128, n_epochs=10, batch_size=256, clip_range=0.2, target_kl=0.05)
    of_ppo |= dict(learning_rate=1e-3, optimizer_eps=1e-4, normalize_advantage=None)
    of_a2c = dict(n_steps=16, learning_rate=4e-3, optimizer_eps=1e-5, normalize_advantage=False)
    for settings, own in ((ppo, of_ppo), (a2c, of_a2c), (a3c, of_a2c)):
        assert settings == settings | net | loss | own
    assert RunSettings().algo == "ppo"
