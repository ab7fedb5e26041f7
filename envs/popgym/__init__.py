"""Games of POPGym (Morad et al. 2023) in arrays, with the rules of the package popgym 1.0.7, and their ids.

Each id `fw_rl/<Name><Level>-v0` is the game `popgym-<Name><Level>-v0`: the same draws and actions give the same observations,
rewards and ends; only rewards of Pendulum may differ in their last digits. Where popgym observes a `Tuple`, the game here
observes a `MultiDiscrete` of the same one-hot code. Infos are empty.
"""

from typing import Any

from fw_rl.envs.game import Game, register_game
from fw_rl.envs.popgym.autoencode import Autoencode
from fw_rl.envs.popgym.battleship import Battleship
from fw_rl.envs.popgym.cards import COLORS, RANKS, SUITS
from fw_rl.envs.popgym.concentration import Concentration
from fw_rl.envs.popgym.control import PositionOnlyCartPole, PositionOnlyPendulum, VelocityOnlyCartPole
from fw_rl.envs.popgym.count_recall import CountRecall
from fw_rl.envs.popgym.higher_lower import HigherLower
from fw_rl.envs.popgym.multiarmed_bandit import MultiarmedBandit
from fw_rl.envs.popgym.repeat_first import RepeatFirst
from fw_rl.envs.popgym.repeat_previous import RepeatPrevious

__all__ = [
    "Autoencode",
    "Battleship",
    "Concentration",
    "CountRecall",
    "HigherLower",
    "MultiarmedBandit",
    "PositionOnlyCartPole",
    "PositionOnlyPendulum",
    "RepeatFirst",
    "RepeatPrevious",
    "VelocityOnlyCartPole",
]

_EASY_MEDIUM_HARD: dict[str, tuple[type[Game], list[dict[str, Any]]]] = {
    "Autoencode": (Autoencode, [dict(num_decks=decks) for decks in (1, 2, 3)]),
    "Battleship": (Battleship, [dict(board_size=size) for size in (8, 10, 12)]),
    "Concentration": (
        Concentration,
        [dict(num_decks=1, kinds=COLORS), dict(num_decks=2, kinds=COLORS), dict(num_decks=1, kinds=RANKS)],
    ),
    "CountRecall": (
        CountRecall,
        [dict(num_decks=1, kinds=COLORS), dict(num_decks=2, kinds=SUITS), dict(num_decks=4, kinds=RANKS)],
    ),
    "HigherLower": (HigherLower, [dict(num_decks=decks) for decks in (1, 2, 3)]),
    "MultiarmedBandit": (MultiarmedBandit, [dict(arms=arms, steps=20 * arms) for arms in (10, 20, 30)]),
    "NoisyPositionOnlyCartPole": (PositionOnlyCartPole, [dict(noise=noise) for noise in (0.1, 0.2, 0.3)]),
    "NoisyPositionOnlyPendulum": (PositionOnlyPendulum, [dict(noise=noise) for noise in (0.1, 0.2, 0.3)]),
    "PositionOnlyCartPole": (PositionOnlyCartPole, [dict(steps=steps) for steps in (200, 400, 600)]),
    "PositionOnlyPendulum": (PositionOnlyPendulum, [dict(steps=steps) for steps in (200, 150, 100)]),
    "RepeatFirst": (RepeatFirst, [dict(num_decks=decks) for decks in (1, 8, 16)]),
    "RepeatPrevious": (RepeatPrevious, [dict(num_decks=1, k=4), dict(num_decks=2, k=32), dict(num_decks=3, k=64)]),
    "VelocityOnlyCartPole": (VelocityOnlyCartPole, [dict(steps=steps) for steps in (200, 400, 600)]),
}
"""The class of each game, and its rules for easy, medium and hard."""


def register_popgym() -> None:
    """Register `fw_rl/<Name>Easy-v0`, `fw_rl/<Name>Medium-v0` and `fw_rl/<Name>Hard-v0` for each game."""
    for name, (game, levels) in _EASY_MEDIUM_HARD.items():
        for level, rules in zip(("Easy", "Medium", "Hard"), levels, strict=True):
            register_game(f"fw_rl/{name}{level}-v0", game, **rules)
