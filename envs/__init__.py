"""Catch (Ba16 §4.4) for Gymnasium: one game, many games in arrays, and the ids of both."""

from fw_rl.envs.catch import CatchEnv
from fw_rl.envs.catch_vector import CatchVectorEnv
from fw_rl.envs.registration import catch_id, register_catch
from fw_rl.envs.rules import CatchRules

__all__ = ["CatchEnv", "CatchRules", "CatchVectorEnv", "catch_id", "register_catch"]
