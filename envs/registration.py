"""The Gymnasium ids of Catch and of the retrieval game."""

from __future__ import annotations

import re
from collections.abc import Callable

import gymnasium as gym

from fw_rl.envs.game import register_game
from fw_rl.envs.retrieval import RetrievalGame
from fw_rl.envs.rules import CatchRules


def catch_id(name: str) -> str:
    """The Gymnasium id of Catch with n x n pixels and m visible frames, registered if it is new.

    It is registered in this process only; elsewhere use `gym.make("fw_rl/Catch-v0", n=n, m=m)`.

    Args:
        name: "Catch-<n>-<m>" or "Catch-<n>-<m>-<distractors>", with or without the namespace "fw_rl/" and the version "-v0".

    Raises:
        ValueError: If the name has another form, n < 3, m < 1, m > n, or there are too many distractors.

    Examples:
        >>> catch_id("Catch-20-4")
        'fw_rl/Catch-20-4-v0'
    """
    wanted = f"env must be Catch-<n>-<m>, such as Catch-16-3, got {name!r}"
    form = r"Catch-([0-9]+)-([0-9]+)(?:-([0-9]+))?"
    n, m, distractors = _numbers_in(name, form, wanted, lambda n, m, distractors: CatchRules(n, m, distractors=distractors))
    env_id = f"fw_rl/Catch-{n}-{m}-{distractors}-v0" if distractors else f"fw_rl/Catch-{n}-{m}-v0"
    _register(env_id, n=n, m=m, distractors=distractors)
    return env_id


def register_catch() -> None:
    """Register `fw_rl/Catch-v0`, which takes n and m, and the two games of Ba16 §4.4."""
    _register("fw_rl/Catch-v0", n=16, m=3)
    catch_id("Catch-16-3")
    catch_id("Catch-24-5")


def retrieval_id(name: str) -> str:
    """The Gymnasium id of the retrieval game with the given pairs and, if any, gap steps, registered if it is new.

    It is registered in this process only; elsewhere use `gym.make("fw_rl/Retrieval-v0", pairs=pairs, gap=gap)`.

    Args:
        name: "Retrieval-<pairs>" or "Retrieval-<pairs>-gap<steps>", with or without the namespace "fw_rl/" and the version
            "-v0".

    Raises:
        ValueError: If the name has another form, or if there are no pairs or more pairs than keys.

    Examples:
        >>> retrieval_id("Retrieval-4-gap16")
        'fw_rl/Retrieval-4-gap16-v0'
    """
    wanted = f"env must be Retrieval-<pairs> or Retrieval-<pairs>-gap<steps>, such as Retrieval-8-gap16, got {name!r}"
    pairs, gap = _numbers_in(name, r"Retrieval-([0-9]+)(?:-gap([0-9]+))?", wanted, RetrievalGame)
    env_id = f"fw_rl/Retrieval-{pairs}-gap{gap}-v0" if gap else f"fw_rl/Retrieval-{pairs}-v0"
    register_game(env_id, RetrievalGame, pairs=pairs, gap=gap)
    return env_id


def register_retrieval() -> None:
    """Register `fw_rl/Retrieval-v0`, which takes pairs and gap, and the games with 4 and 8 pairs."""
    register_game("fw_rl/Retrieval-v0", RetrievalGame)
    retrieval_id("Retrieval-4")
    retrieval_id("Retrieval-8")


def _numbers_in(name: str, form: str, wanted: str, rules: Callable[..., object]) -> list[int]:
    """The numbers in a short name of a game, 0 for those it leaves out; ValueError if the form or the rules are not valid."""
    match = re.fullmatch(rf"(?:fw_rl/)?{form}(?:-v0)?", name)
    if match is None:
        raise ValueError(wanted)
    numbers = [int(number or 0) for number in match.groups()]
    try:
        rules(*numbers)
    except ValueError as error:
        raise ValueError(f"{wanted}: {error}") from None
    return numbers


def _register(env_id: str, **rules: int) -> None:
    # No max_episode_steps: every episode terminates by itself after n - 1 steps.
    if env_id not in gym.registry:
        gym.register(
            env_id,
            entry_point="fw_rl.envs.catch:CatchEnv",
            vector_entry_point="fw_rl.envs.catch_vector:CatchVectorEnv",
            kwargs=rules,
        )
