"""Games of POPGym (Morad et al. 2023) in arrays, with the rules of the package popgym 1.0.7, and their ids.

Each id `fw_rl/<Name><Level>-v0` is the game `popgym-<Name><Level>-v0`: the same draws and actions give the same observations,
rewards and ends. Where popgym observes a `Tuple`, the game here observes a `MultiDiscrete` of the same one-hot code.
"""

import gymnasium as gym

from fw_rl.envs.popgym.autoencode import Autoencode
from fw_rl.envs.popgym.cards import COLORS, RANKS, SUITS
from fw_rl.envs.popgym.count_recall import CountRecall
from fw_rl.envs.popgym.repeat_first import RepeatFirst
from fw_rl.envs.popgym.repeat_previous import RepeatPrevious

__all__ = ["Autoencode", "CountRecall", "RepeatFirst", "RepeatPrevious", "register_popgym"]

_LEVELS = {
    Autoencode: [dict(num_decks=decks) for decks in (1, 2, 3)],
    CountRecall: [dict(num_decks=1, kinds=COLORS), dict(num_decks=2, kinds=SUITS), dict(num_decks=4, kinds=RANKS)],
    RepeatFirst: [dict(num_decks=decks) for decks in (1, 8, 16)],
    RepeatPrevious: [dict(num_decks=1, k=4), dict(num_decks=2, k=32), dict(num_decks=3, k=64)],
}
"""The rules of each game when it is easy, medium and hard."""


def register_popgym() -> None:
    """Register `fw_rl/<Name>Easy-v0`, `fw_rl/<Name>Medium-v0` and `fw_rl/<Name>Hard-v0` for each game."""
    for game, levels in _LEVELS.items():
        for level, rules in zip(("Easy", "Medium", "Hard"), levels, strict=True):
            env_id = f"fw_rl/{game.__name__}{level}-v0"
            if env_id not in gym.registry:  # no max_episode_steps: every episode ends by itself
                gym.register(
                    env_id,
                    entry_point="fw_rl.envs.game:GameEnv",
                    vector_entry_point="fw_rl.envs.game:GameVectorEnv",
                    kwargs=dict(game=f"{game.__module__}:{game.__name__}") | rules,
                )
