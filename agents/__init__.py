"""Agents with memory for Gymnasium environments: a recurrent actor-critic policy, and A2C, A3C and PPO as SB3 algorithms.

Each name imports what it needs on first access: PyTorch, SB3 and Numba.
"""

from typing import TYPE_CHECKING

from fw_rl.algorithms import ALGORITHMS, ENGINES, Algorithm
from fw_rl.modules import import_on_demand

if TYPE_CHECKING:
    from fw_rl.agents.a2c import RecurrentA2C
    from fw_rl.agents.a3c import A3C
    from fw_rl.agents.checkpoint import Checkpoint, CheckpointError, read_checkpoint
    from fw_rl.agents.contrib import CellLstmPolicy
    from fw_rl.agents.evaluation import MaskedEvalCallback, evaluate_policy
    from fw_rl.agents.export import export_onnx
    from fw_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
    from fw_rl.agents.player import Player
    from fw_rl.agents.policy import RecurrentActorCriticPolicy
    from fw_rl.agents.ppo import RecurrentPPO
    from fw_rl.processes import WorkerError

__all__ = [
    "A3C",
    "ALGORITHMS",
    "ENGINES",
    "Algorithm",
    "CellLstmPolicy",
    "Checkpoint",
    "CheckpointError",
    "MaskedEvalCallback",
    "Player",
    "RecurrentA2C",
    "RecurrentActorCriticPolicy",
    "RecurrentOnPolicyAlgorithm",
    "RecurrentPPO",
    "WorkerError",
    "evaluate_policy",
    "export_onnx",
    "read_checkpoint",
]

__getattr__, __dir__ = import_on_demand(
    __name__,
    {
        "A3C": "fw_rl.agents.a3c",
        "CellLstmPolicy": "fw_rl.agents.contrib",
        "Checkpoint": "fw_rl.agents.checkpoint",
        "CheckpointError": "fw_rl.agents.checkpoint",
        "MaskedEvalCallback": "fw_rl.agents.evaluation",
        "Player": "fw_rl.agents.player",
        "RecurrentA2C": "fw_rl.agents.a2c",
        "RecurrentActorCriticPolicy": "fw_rl.agents.policy",
        "RecurrentOnPolicyAlgorithm": "fw_rl.agents.on_policy",
        "RecurrentPPO": "fw_rl.agents.ppo",
        "WorkerError": "fw_rl.processes",
        "evaluate_policy": "fw_rl.agents.evaluation",
        "export_onnx": "fw_rl.agents.export",
        "read_checkpoint": "fw_rl.agents.checkpoint",
    },
)
