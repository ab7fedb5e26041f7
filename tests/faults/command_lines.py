"""Wrong command lines from a seeded generator: a right one, in which one thing is changed to what it must not be."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.faults.count import Count
from tests.faults.launch import run

__all__ = ["count_command_lines", "wrong_command_lines"]

SECONDS = 60.0
NOTHING, HUGE = "", "9" * 20
COUNTS = ["-1", "0", "1.5", "many", "nan", NOTHING, HUGE, f"-{HUGE}", "1e3", "0x10", "--"]
NOT_NEGATIVE = [word for word in COUNTS if word != "0"]
SEEDS = ["-1", "1.5", "x", NOTHING, HUGE, str(2**31), "nan"]
RATES = ["-1", "0", "nan", "inf", "-inf", "1e308", "x", NOTHING, "1,5"]
WEIGHTS = ["-1", "nan", "inf", "1e308", "x", NOTHING]
SHARES = ["-0.1", "1.1", "nan", "inf", "x", NOTHING]
NAMES = ["nonsense", NOTHING, " ", "no_such_module:x", "../x", "a b", "\udcff", "-", ":", "x" * 300]
SWITCHES = ["maybe", NOTHING, "2"]
INPUTS = ["nowhere", NOTHING, "FILE", "EMPTY", "FILE/x", "x" * 300]
FOLDERS = ["FILE", "FILE/x", NOTHING, "/proc/x", "/dev/null", "x" * 300]


def outputs(ending: str) -> list[str]:
    return [NOTHING, "x.txt", "EMPTY", f"FILE/x{ending}", f"/proc/x{ending}", "x" * 300 + ending, ending, "x"]


CELL_OPTIONS = [
    "eta", "eta=", "=1", "eta=x", "eta=nan", "eta=inf", "eta=1e308", "eta=True", "eta=[1", "eta={}", "nonsense=1", NOTHING,
    "decay=2", "inner_steps=0", "inner_steps=1.5", "rule=none", f"inner_steps=-{HUGE}", "eta=null", "decay=-1",
    f"inner_steps={HUGE}", f"layers={HUGE}",
]  # fmt: skip
TRAIN = {
    **dict.fromkeys(("env", "cell", "engine", "algo", "device", "optimizer", "matmul-precision"), NAMES),
    **dict.fromkeys(("timesteps", "n-envs", "n-steps", "hidden-size", "eval-episodes", "threads", "workers"), COUNTS),
    **dict.fromkeys(("bptt-length", "n-epochs", "batch-size", "encoder-arch", "net-arch"), COUNTS),
    **dict.fromkeys(("learning-rate", "max-grad-norm", "clip-range"), RATES),
    **dict.fromkeys(("gamma", "gae-lambda"), SHARES),
    **dict.fromkeys(("ent-coef", "vf-coef"), WEIGHTS),
    **dict.fromkeys(("anneal", "shared-cell", "previous-step", "normalize", "anneal-entropy"), SWITCHES),
    "seed": SEEDS, "cell-options": CELL_OPTIONS, "log-dir": FOLDERS, "resume": INPUTS, "wandb": ["a/b", "x" * 300, NOTHING],
}  # fmt: skip
TABLE = {
    **dict.fromkeys(("epochs", "search-epochs", "batch-size", "jobs", "hidden-sizes"), COUNTS),
    **dict.fromkeys(("out", "log-dir"), FOLDERS),
    "cells": NAMES, "seeds": SEEDS, "cell-options": CELL_OPTIONS,
    "learning-rates": RATES, "weight-decays": WEIGHTS, "max-grad-norm": RATES,
}  # fmt: skip
COMMANDS = {
    "train": TRAIN,
    "sweep": {
        **dict.fromkeys(("env", "cell", "engine", "sampler", "storage"), NAMES),
        **dict.fromkeys(("timesteps", "finalists", "jobs", "eval-episodes"), COUNTS),
        **dict.fromkeys(("trials", "retrain"), NOT_NEGATIVE),
        "seed": SEEDS, "space": INPUTS, "out": FOLDERS,
    },
    "retrieval": TABLE | dict.fromkeys(("pairs", "examples"), COUNTS),
    "glimpse": TABLE,
    "faces": TABLE | {"data-dir": INPUTS},
    "deblur": {
        **dict.fromkeys(("inputs", "hidden", "outputs", "associations", "learning-sweeps", "seeds", "pairs"), COUNTS),
        **dict.fromkeys(("slow-lr", "fast-lr"), RATES), "seed": SEEDS, "subset": ["0", "101", "x", NOTHING, "1.5", HUGE],
        "subsets": ["0", "101", "x", NOTHING, "-5"], "out": FOLDERS, "threads": COUNTS,
    },
    "play": {
        **dict.fromkeys(("episodes", "max-steps"), COUNTS), "seed": SEEDS, "checkpoint": INPUTS,
        "gif": outputs(".gif"), "mp4": outputs(".mp4"), "show-attention": outputs(".png"),
    },
    "export": {"onnx": outputs(".onnx"), "checkpoint": INPUTS, "card": FOLDERS, "push": NAMES},
    "curves": {"out": outputs(".png")},
    "memories": {
        **dict.fromkeys(("games", "cells"), NAMES), **dict.fromkeys(("frames", "eval-episodes", "jobs"), COUNTS),
        "seeds": SEEDS, "out": FOLDERS,
    },
    "figure5": {"data": INPUTS, "out": FOLDERS},
}  # fmt: skip
"""The options of each command, and of each what it must not be."""

SHORT = ["--epochs", "1", "--seeds", "0", "--quiet"]
RIGHT = {
    "train": ["--env", "Catch-5-2", "--timesteps", "20000", "--quiet"],
    "sweep": ["--env", "Catch-5-2", "--trials", "1", "--timesteps", "20000", "--quiet"],
    **dict.fromkeys(("retrieval", "glimpse", "faces"), SHORT),
    "deblur": ["--quiet"],
    "play": ["RUN"],
    "export": ["RUN", "--onnx", "agent.onnx"],
    "curves": ["RUN", "--out", "curves.png"],
    "memories": ["--frames", "20000", "--quiet"],
    "figure5": [],
}

TOGETHER = [
    "train --n-epochs 3 --algo a2c", "train --workers 3 --n-envs 16", "train --bptt-length 99 --n-steps 8",
    "train --batch-size 99999 --n-envs 4", "train --n-steps 99999", "train --timesteps 5",
    "train --batch-size 3 --bptt-length 4 --algo ppo", "train --cell-options eta=0.1 eta=0.2", "train --cell-options",
    "train --ray-address auto", "train --resume RUN --seed 4", "train --resume RUN --timesteps 1",
    "train --cell gru --cell-options eta=1", "train --env GymV26Environment-v0", "play RUN --gif x.gif --show-attention x.gif",
    "play RUN RUN", "play", "export RUN", "export", "curves --out x.png",
    "sweep --ray-address auto", "sweep --storage sqlite:////proc/x.db", "deblur --subsets",
    "deblur --inputs 2", "retrieval --cells", "retrieval --seeds", "retrieval --cell-options",
    "retrieval --cell gru --cell-options nonsense=2", "trian", "train train", "play hf:agent", "play hf:a/b/c",
    "export hf: --card x", "export RUN --card RUN",
    "deblur --inputs 1000000000000", "faces --data-dir EMPTY", "train --env Catch-3-9", "train --device cuda:99",
]  # fmt: skip
"""What does not go together, or does not suffice; {RUN} is a trained agent."""


def wrong_command_lines(number: int, seed: int = 0) -> Iterator[list[str]]:
    """So many command lines, each wrong in one thing."""
    draws = random.Random(seed)
    for line in draws.sample(TOGETHER, min(len(TOGETHER), number)):
        name, *words = line.split()
        short = RIGHT[name] if name in ("train", "sweep", "deblur") else []
        yield [name, *[word for word in short if word not in words], *words]
    for _ in range(number - len(TOGETHER)):
        name = draws.choices(list(COMMANDS), [4 + len(options) for options in COMMANDS.values()])[0]
        yield [name, *_spoilt(draws, RIGHT[name], COMMANDS[name])]


def _spoilt(draws: random.Random, right: list[str], options: dict[str, list[str]]) -> list[str]:
    option = draws.choice(list(options))
    flag = f"--{option}"
    rest = list(right)
    if flag in rest:
        del rest[rest.index(flag) : rest.index(flag) + 2]
    way = draws.random()
    if way < 0.08:
        return [*rest, f"{flag}{draws.choice('xz')}", "1"]  # no such option
    if way < 0.14 and option not in ("encoder-arch", "net-arch"):
        return [*rest, flag]  # no value
    if way < 0.18:
        return [*right, "--quiet" if "--quiet" not in right else "--no-such", "superfluous"]
    word = draws.choice(options[option])
    return [*rest, f"{flag}={word}"] if word.startswith("-") or draws.random() < 0.3 else [*rest, flag, word]


def count_command_lines(tries: int, seed: int = 0) -> Count:
    """Give wrong command lines: each gets one line, and code 2, or 1 where the machine does not let a file be written."""
    count = Count("wrong command line")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = ["--n-envs", "4", "--n-steps", "6", "--hidden-size", "8", "--timesteps", "480", "--eval-episodes", "4"]
        count.check(run(folder / "run", ["train", "--env", "Catch-5-2", *small, "--quiet"], SECONDS), codes=(0,))
        (trained,) = (folder / "run" / "runs").iterdir()
        for line in wrong_command_lines(tries, seed):
            place = folder / "place"
            (place / "EMPTY").mkdir(parents=True)
            (place / "FILE").write_text("a file")
            words = [str(trained) if word == "RUN" else word for word in line]
            count.tries += 1
            count.check(run(place, words, SECONDS), codes=(1, 2), lines=1, what=line)
            shutil.rmtree(place)
    return count
