"""Trainings that are killed, whose workers are killed, that are interrupted, and whose disk is full: nothing is lost."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import safetensors.torch
import torch

from fw_rl import files
from tests.faults.count import Count
from tests.faults.launch import Child, Outcome, run

__all__ = ["count_full_disks", "count_interrupts", "count_kills", "count_worker_kills"]

SETTINGS = ["--env", "Catch-5-2", "--hidden-size", "16", "--eval-episodes", "4", "--quiet", "--log-dir", "runs", "--algo"]
ALGORITHMS = {
    "a2c": ["a2c", "--n-envs", "16", "--n-steps", "8", "--timesteps", "40000"],
    "ppo": ["ppo", "--n-envs", "16", "--n-steps", "32", "--timesteps", "20000"],
    "a3c": ["a3c", "--n-envs", "16", "--n-steps", "8", "--timesteps", "120000", "--workers", "2"],
}
STEPPED = ["ppo", "--n-envs", "4", "--n-steps", "32", "--timesteps", "16000", "--workers", "2"]
PATIENCE = 120.0


def train(algorithm: str) -> list[str]:
    return ["train", *SETTINGS, *ALGORITHMS[algorithm]]


def count_kills(algorithm: str, tries: int, seed: int = 0) -> Count:
    """Kill a training at random moments of its life and resume it: it ends as if nothing had been."""
    count, draws = Count(f"kill -9, {algorithm}"), random.Random(f"{algorithm} {seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin = time.monotonic()
        count.check(run(folder / "whole", train(algorithm), PATIENCE), codes=(0,))
        life, whole = time.monotonic() - begin, weights(folder / "whole")
        for number in range(tries):
            child = Child(folder / str(number), train(algorithm))
            time.sleep(draws.uniform(0, life))
            child.kill()
            child.wait(PATIENCE)
            count.tries += 1
            count.left_behind += bool(child.leaves_behind())
            resume(folder / str(number), count, None if algorithm == "a3c" else whole)
    return count


def count_worker_kills(algorithm: str, tries: int, seed: int = 0) -> Count:
    """Kill each worker so many times: those of A3C are replaced; a training whose environments are lost can be resumed."""
    title = "each worker of a3c" if algorithm == "a3c" else "each worker that steps environments"
    count, draws = Count(f"kill -9, {title}"), random.Random(seed)
    arguments = train("a3c") if algorithm == "a3c" else ["train", *SETTINGS, *STEPPED]
    with tempfile.TemporaryDirectory() as name:
        for number in range(2 * tries):
            folder = Path(name) / str(number)
            child = Child(folder, arguments)
            victim = wait_for_worker(child, number % 2)
            time.sleep(draws.uniform(0, 0.5))
            if victim in child.descendants():
                os.kill(victim, signal.SIGKILL)
                count.tries += 1
            outcome = child.wait(PATIENCE)
            count.left_behind += bool(child.leaves_behind())
            if algorithm == "a3c" or outcome.code == 0:
                count.check(outcome, codes=(0,))
            else:
                count.check(outcome, codes=(1,), lines=1)
                resume(folder, count, None)
    return count


def count_interrupts(number: int, tries: int, seed: int = 0) -> Count:
    """Interrupt a command as a user starts it, from its first instant on: it ends with code 130, and without a traceback."""
    count, draws = Count(f"{signal.Signals(number).name} at any moment"), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(tries):
            child = subprocess.Popen(
                [sys.executable, "-m", "fw_rl", *train("a2c")], cwd=folder, env=os.environ | {"PYTHONPATH": str(Path.cwd())},
                text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            time.sleep(draws.uniform(0.15, 4.0))  # Python itself takes the first tenth
            child.send_signal(number)
            try:
                outcome = Outcome(None, *child.communicate(timeout=PATIENCE))
                outcome = outcome._replace(code=child.returncode)
            except subprocess.TimeoutExpired:
                child.kill()
                outcome = Outcome(None, *child.communicate())
            count.tries += 1
            count.check(outcome, codes=(0, 130))  # 0 where it was done already
    return count


def count_full_disks(tries: int, seed: int = 0) -> Count:
    """Let one of the files of a training be the one that the disk has no room for: one line, and it can be resumed."""
    count, draws = Count("disk full, ppo"), random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(folder / "whole", train("ppo"), PATIENCE)
        for number in range(tries):
            fault = partial(_fill_disk, draws.randrange(1, 26))
            outcome = run(folder / str(number), train("ppo"), PATIENCE, fault)
            count.tries += 1
            count.check(outcome, codes=(1,), lines=1)
            resume(folder / str(number), count, weights(folder / "whole"))
    return count


def _fill_disk(after: int) -> None:
    """Let no file be written after so many."""
    write, written = files._write, [0]

    def fail_in_the_end(path: Path, content: bytes) -> None:
        written[0] += 1
        if written[0] > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    files._write = fail_in_the_end


def resume(folder: Path, count: Count, expected: dict[str, torch.Tensor] | None) -> None:
    """Resume the run in a folder, if it had a checkpoint, and compare the parameters that it comes to."""
    runs = list(folder.glob("runs/*"))
    if not runs:
        return
    outcome = run(folder, ["train", "--resume", str(runs[0]), "--quiet", "--eval-episodes", "4"], PATIENCE)
    if not list(folder.glob("runs/*/checkpoints/*.safetensors")):  # it had hardly begun, which one line says
        count.check(outcome, codes=(2,), lines=1)
        return
    count.check(outcome, codes=(0,))
    if expected is not None and outcome.code == 0:
        found = weights(folder)
        count.wrong += not (found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The parameters in the last checkpoint of the only run of a folder."""
    last = max(folder.glob("runs/*/checkpoints/*.safetensors"))
    return {name: part for name, part in safetensors.torch.load_file(last).items() if name.startswith("policy")}


def wait_for_worker(child: Child, number: int) -> int:
    """The process of a worker, once both have begun: the last two that a fork server, or the resource tracker, is not."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and child.poll() is None:
        found = child.descendants()
        workers = [pid for pid, words in found.items() if not re.search("resource_tracker", words)]
        if len(workers) == 3:  # the fork server and its children, which have its arguments
            return sorted(workers)[1 + number]
        time.sleep(0.02)
    return 0
