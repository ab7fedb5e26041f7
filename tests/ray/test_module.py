"""RLlib's module is the policy: the same numbers for the same weights, whichever of its methods is asked."""

import pytest

pytest.importorskip("ray", reason="needs pip install 'fw-rl[ray]'")

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from torch.testing import assert_close

from fw_rl.agents.rllib_module import RecurrentModule
from tests.agents.helpers import CELLS, make_policy, scramble
from tests.agents.test_batch_first import SMALL, TAKEN, B, T, sample, tensors
from tests.agents.test_spaces import OBSERVATION_SPACES

EVERY_CELL = pytest.mark.parametrize("cell, options", CELLS.values(), ids=CELLS)


def make_module(cell="gru", options=None, action_space=TAKEN["Discrete"], **kwargs):
    model_config = dict(policy_kwargs=SMALL | dict(cell=cell, cell_kwargs=options), max_seq_len=T)
    module = RecurrentModule(
        observation_space=OBSERVATION_SPACES["Box"], action_space=action_space, model_config=model_config, **kwargs
    )
    scramble(module.net.policy)
    return module


def make_batch(module):
    state = {name: part.expand(B, *part.shape) for name, part in module.get_initial_state().items()}
    return {Columns.OBS: tensors(sample(OBSERVATION_SPACES["Box"])), Columns.STATE_IN: state}


@EVERY_CELL
def test_its_weights_give_our_policy_the_same_outputs(cell, options):
    module = make_module(cell, options)
    spaces = dict(observation_space=OBSERVATION_SPACES["Box"], action_space=TAKEN["Discrete"])
    by_default = dict(shared_cell=False, net_arch=(64,), norm_obs=True)
    policy = make_policy(cell, cell_kwargs=options, **spaces, **by_default)
    policy.load_state_dict({name: torch.as_tensor(part) for name, part in module_weights(module).items()})
    batch, actions = make_batch(module), torch.randint(4, (T, B))
    values, log_prob, entropy = policy.evaluate_actions(
        batch[Columns.OBS].transpose(0, 1), actions, policy.initial_state(B), torch.zeros(T, B, dtype=torch.bool)
    )
    told = module.forward_train(batch)
    distribution = module.get_train_action_dist_cls().from_logits(told[Columns.ACTION_DIST_INPUTS])
    assert_close(distribution.logp(actions.T), log_prob.T)
    assert_close(distribution.entropy(), entropy.T)
    assert_close(module.compute_values(batch), values.T)
    assert_close(module.compute_values(batch, told[Columns.EMBEDDINGS]), values.T)


def module_weights(module):
    """What RLlib sends about, by the policy's names."""
    return {name.removeprefix("net.policy."): part for name, part in module.get_state().items()}


@EVERY_CELL
def test_acting_step_by_step_is_what_is_learned_from(cell, options):
    module = make_module(cell, options)
    batch = make_batch(module)
    expected = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    state = batch[Columns.STATE_IN]
    for t in range(T):
        told = module.forward_exploration({Columns.OBS: batch[Columns.OBS][:, t : t + 1], Columns.STATE_IN: state})
        assert not told[Columns.ACTION_DIST_INPUTS].requires_grad
        assert_close(told[Columns.ACTION_DIST_INPUTS][:, 0], expected[:, t])
        state = told[Columns.STATE_OUT]
        assert {name: part.shape for name, part in state.items()} == {
            name: (B, *part.shape) for name, part in module.get_initial_state().items()
        }


def test_a_target_stays_behind():
    module = make_module()
    module.make_target_networks()
    batch = make_batch(module)
    before = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    scramble(module.net.policy, seed=1)
    (told,) = module.forward_target(batch).values()
    assert_close(told, before)
    assert not told.requires_grad
    assert not torch.allclose(module.forward_train(batch)[Columns.ACTION_DIST_INPUTS], before)


def test_a_box_gets_a_gaussian_of_the_policy_s_width():
    module = make_module(action_space=TAKEN["Box"])
    inputs = module.forward_train(make_batch(module))[Columns.ACTION_DIST_INPUTS]
    distribution = module.get_train_action_dist_cls().from_logits(inputs)
    deviations = module.net.policy.log_std.exp().expand(B, T, -1)
    entropy = 0.5 * np.log(2 * np.pi * np.e) + deviations.log()
    assert_close(distribution.entropy(), entropy.sum(-1))


def test_a_multidiscrete_gets_a_categorical_for_each_part():
    module = make_module(action_space=TAKEN["MultiDiscrete"])
    inputs = module.forward_train(make_batch(module))[Columns.ACTION_DIST_INPUTS]
    entropy = module.get_train_action_dist_cls().from_logits(inputs).entropy()
    first, second = inputs.split([2, 3], dim=-1)
    assert_close(entropy, sum(TorchCategorical.from_logits(part).entropy() for part in (first, second)))
