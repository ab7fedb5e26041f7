"""From the same weights and the same rollout, PPO learns what sb3-contrib's RecurrentPPO learns."""

import numpy as np
import pytest
import sb3_contrib
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.testing import assert_close

from fw_rl.agents import RecurrentPPO
from tests.agents.helpers import scramble, scripted_envs

SCRIPTS = [((3, "terminated"), (6, "truncated")), ((5, "terminated"), (2, "truncated")), ((40, "terminated"),)]
N_STEPS = 16
ROLLOUT = N_STEPS * len(SCRIPTS)

NET = dict(net_arch=[64], activation_fn=torch.nn.ReLU, ortho_init=False)  # rl-zoo's
CRITICS = {
    "own": (dict(shared_cell=False), dict(enable_critic_lstm=True)),
    "shared": (dict(shared_cell=True), dict(shared_lstm=True, enable_critic_lstm=False)),
}
EVERY_CRITIC = pytest.mark.parametrize("critic", CRITICS)


def our_name(name, critic):
    """What a parameter of sb3-contrib's policy is called in ours."""
    cells = dict(own=dict(actor="cell.first", critic="cell.second"), shared=dict(actor="cell"))
    for part, cell in cells[critic].items():
        name = name.replace(f"lstm_{part}.", f"{cell}.core.")
    return name


def same_agents(critic, monkeypatch, action_space=None, **settings):
    """Ours and sb3-contrib's with one set of weights; a minibatch is a whole rollout."""
    of_ours, of_theirs = CRITICS[critic]
    common = dict(n_steps=N_STEPS, batch_size=ROLLOUT, n_epochs=1, learning_rate=3e-4, gae_lambda=0.95, max_grad_norm=0.5)
    common |= dict(target_kl=None, normalize_advantage=True, seed=0, device="cpu") | settings

    def make_env():
        return DummyVecEnv(scripted_envs(SCRIPTS, scale=0.3, action_space=action_space))

    memory = dict(cell="lstm", hidden_size=16, encoder_arch=[], norm_obs=False) | NET | of_ours
    settings = dict(norm_reward=False, optimizer_eps=1e-5, desired_kl=None, policy_kwargs=memory)
    ours = RecurrentPPO("RecurrentPolicy", make_env(), **common, **settings)
    theirs = sb3_contrib.RecurrentPPO(
        "MlpLstmPolicy", make_env(), policy_kwargs=dict(lstm_hidden_size=16) | NET | of_theirs, **common
    )
    scramble(ours.policy, scale=0.3)
    own = dict(ours.policy.named_parameters())
    with torch.no_grad():
        for name, parameter in theirs.policy.named_parameters():
            parameter.copy_(own.pop(our_name(name, critic)))
    assert not own
    policy = ours.policy  # which draws as theirs does, by SB3's distribution
    policy._sample_actions = lambda latent, deterministic, masks: policy._distribution(latent).get_actions()
    monkeypatch.setattr(np.random, "randint", lambda high: 0)  # theirs cuts a sequence in two at a random step
    return ours, theirs


class SameActions(BaseCallback):
    """Draws the actions of each rollout from a seed of its own."""

    def _on_rollout_start(self):
        torch.manual_seed(self.num_timesteps)

    def _on_step(self):
        return True


SETTINGS = {
    "one epoch": dict(),
    "rl-zoo's for CartPole": dict(n_epochs=20, gae_lambda=0.8, gamma=0.98, learning_rate=1e-3),
    "all options": dict(n_epochs=5, ent_coef=0.1, clip_range_vf=0.2, normalize_advantage=False, learning_rate=1e-3),
    "stops at the target": dict(n_epochs=20, target_kl=0.01, learning_rate=3e-3),
    "two rollouts": dict(n_epochs=2),
    "actions in a Box": dict(n_epochs=3, action_space=spaces.Box(-1, 1, (2,))),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@EVERY_CRITIC
def test_a_rollout_gives_the_parameters_of_sb3_contrib(critic, settings, monkeypatch):
    ours, theirs = same_agents(critic, monkeypatch, **settings)
    if critic == "shared":  # theirs learns no memory from the critic's error, ours does
        value = ours.policy._value
        ours.policy._value = lambda latent: value(latent.detach())
    before = [parameter.detach().clone() for parameter in ours.policy.parameters()]
    rollouts = 2 if settings is SETTINGS["two rollouts"] else 1
    for model in (ours, theirs):
        model.learn(rollouts * ROLLOUT, callback=SameActions())
    assert len(ours.rollout_buffer.actions.unique()) > 1
    assert (ours._n_updates < ours.n_epochs) == (ours.target_kl is not None)
    pairs = zip(before, ours.policy.parameters(), strict=True)
    assert all((old - new).abs().max() > 1e-4 for old, new in pairs)
    own = dict(ours.policy.named_parameters())
    for name, parameter in theirs.policy.named_parameters():
        assert_close(own[our_name(name, critic)], parameter, atol=1e-6, rtol=0)
