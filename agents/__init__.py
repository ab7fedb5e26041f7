"""Agents with memory for Gymnasium environments: a recurrent actor-critic policy, and A2C as an SB3 algorithm."""

from fw_rl.agents.a2c import RecurrentA2C
from fw_rl.agents.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from fw_rl.agents.policy import RecurrentActorCriticPolicy

__all__ = ["Checkpoint", "CheckpointError", "RecurrentA2C", "RecurrentActorCriticPolicy", "read_checkpoint"]
