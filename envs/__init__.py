"""Environments for Gymnasium: Catch (Ba16 §4.4), the retrieval game and the games of POPGym, one episode or many in arrays, and
their ids; any environments in worker processes; adapters to and from SB3's `VecEnv`, and wrappers that show the last action and
reward.

Adapters and wrappers import SB3 and PyTorch, and Catch in Torch the latter; so they are imported only on first access.
"""

from typing import TYPE_CHECKING

from fw_rl.envs.catch import CatchEnv
from fw_rl.envs.catch_vector import CatchVectorEnv
from fw_rl.envs.game import Game, GameEnv, GameVectorEnv
from fw_rl.envs.parallel import ParallelVectorEnv
from fw_rl.envs.popgym import register_popgym
from fw_rl.envs.registration import catch_id, register_catch, register_retrieval, retrieval_id
from fw_rl.envs.retrieval import RetrievalGame
from fw_rl.envs.rules import CatchRules
from fw_rl.modules import import_on_demand

if TYPE_CHECKING:
    from fw_rl.envs.catch_torch import CatchTorchVectorEnv
    from fw_rl.envs.previous import PreviousStep, VecPreviousStep
    from fw_rl.envs.sb3 import VecEnvAdapter
    from fw_rl.envs.sb3_tensors import TensorVecEnvAdapter
    from fw_rl.envs.sb3_vector import VectorEnvAdapter

__all__ = [
    "CatchEnv",
    "CatchRules",
    "CatchTorchVectorEnv",
    "CatchVectorEnv",
    "Game",
    "GameEnv",
    "GameVectorEnv",
    "ParallelVectorEnv",
    "PreviousStep",
    "RetrievalGame",
    "TensorVecEnvAdapter",
    "VecEnvAdapter",
    "VecPreviousStep",
    "VectorEnvAdapter",
    "catch_id",
    "register_catch",
    "register_popgym",
    "register_retrieval",
    "retrieval_id",
]

__getattr__, __dir__ = import_on_demand(
    __name__,
    {
        "CatchTorchVectorEnv": "fw_rl.envs.catch_torch",
        "PreviousStep": "fw_rl.envs.previous",
        "TensorVecEnvAdapter": "fw_rl.envs.sb3_tensors",
        "VecEnvAdapter": "fw_rl.envs.sb3",
        "VecPreviousStep": "fw_rl.envs.previous",
        "VectorEnvAdapter": "fw_rl.envs.sb3_vector",
    },
)
