"""Checkpoints that a disk, a copy or a hand has damaged: every one is refused in one line, none is loaded in silence."""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from fw_rl.agents import CheckpointError, RecurrentPPO
from fw_rl.envs import CatchVectorEnv
from tests.faults.count import Count
from tests.faults.launch import Outcome

__all__ = ["count_damages"]

Damage = Callable[[bytearray, random.Random], None]


def _flip_bit(content: bytearray, draws: random.Random) -> None:
    content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)


def _zero_block(content: bytearray, draws: random.Random) -> None:
    start = draws.randrange(len(content))
    content[start : start + 512] = bytes(len(content[start : start + 512]))


def _cut(content: bytearray, draws: random.Random) -> None:
    del content[draws.randrange(len(content)) :]


def _append(content: bytearray, draws: random.Random) -> None:
    content += draws.randbytes(draws.randrange(1, 100))


def _leave_out(content: bytearray, draws: random.Random) -> None:
    start = draws.randrange(len(content) - 1)
    del content[start : start + draws.randrange(1, 100)]


def _swap_digits(content: bytearray, draws: random.Random) -> None:
    digits = [i for i in range(8, 8 + int.from_bytes(content[:8], "little")) if chr(content[i]).isdigit()]
    place = draws.choice(digits)
    content[place] = ord(draws.choice([digit for digit in "0123456789" if ord(digit) != content[place]]))


DAMAGES: list[Damage] = [_flip_bit, _zero_block, _cut, _append, _leave_out, _swap_digits]


def count_damages(tries: int, seed: int = 0) -> Count:
    """Load a checkpoint that was damaged in one of six ways."""
    count, draws = Count("damaged checkpoint"), random.Random(seed)
    env = CatchVectorEnv(2, n=5, m=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agent.safetensors"
        model = RecurrentPPO("RecurrentPolicy", env, n_steps=8, batch_size=16, n_epochs=1, policy_kwargs=dict(hidden_size=8))
        model.learn(32).save(path)
        whole = path.read_bytes()
        while count.tries < tries:
            damage, content = DAMAGES[count.tries % len(DAMAGES)], bytearray(whole)
            damage(content, draws)
            if content == whole:
                continue
            path.write_bytes(content)
            count.tries += 1
            count.check(_load(path, env), codes=(2,), lines=1, what=damage.__name__)
    return count


def _load(path: Path, env: CatchVectorEnv) -> Outcome:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            RecurrentPPO.load(path, env)
        except CheckpointError as error:
            return Outcome(2, "", f"{error}")
        except Exception as error:
            return Outcome(1, "", f"Traceback (most recent call last): {error!r}")
    return Outcome(0, "", "it was loaded")
