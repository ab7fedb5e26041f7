"""Agents that act and learn by the kernels of a GPU."""

import pytest
from torch.testing import assert_close

from fw_rl import kernels
from fw_rl.agents import RecurrentA2C
from fw_rl.envs import CatchTorchVectorEnv

pytestmark = pytest.mark.gpu


def learned(cell, device):
    """The parameters after two rollouts."""
    policy = dict(cell=cell, hidden_size=4, shared_cell=True)
    envs = CatchTorchVectorEnv(2, n=4, m=2, device=device)
    model = RecurrentA2C("RecurrentPolicy", envs, n_steps=3, policy_kwargs=policy, device=device, seed=0).learn(12)
    assert model.policy.device.type == device
    return [parameter.detach().cpu() for parameter in model.policy.parameters()]


@pytest.mark.parametrize("cell", ["fast-weights", "delta-net", "lru"])
def test_an_agent_learns_as_without_kernels(cell, device, monkeypatch):
    found = learned(cell, device)
    monkeypatch.setattr(kernels, "_has_triton", lambda: False)
    assert_close(found, learned(cell, device), rtol=1e-3, atol=1e-4)
