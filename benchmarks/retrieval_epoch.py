"""Time of an epoch of associative retrieval with fast weights beside `nn.LSTM`.

    python benchmarks/retrieval_epoch.py --out results/retrieval_epoch.json

The nets differ in their recurrent layer alone. They train in turn, a share of an epoch each, in one process and with one
thread; the ratio is that of two neighbours in time.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from fw_rl.tasks.retrieval import Retrieval, RetrievalNet
from fw_rl.tasks.training import Training, train

REFERENCE = "nn.LSTM"


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    cells: tuple[str, ...] = ("fast-weights", "lstm", "gru", "rnn", "associative-lstm")
    """Rows of the table of `fw-rl retrieval`, measured beside `nn.LSTM`."""
    hidden_size: int = 50
    """Units of the recurrent layer."""
    share: float = 0.1
    """How much of the 100,000 examples of an epoch one measurement trains on."""
    repeats: int = 7
    """Times that each is measured, in turn."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


class TorchLSTM(nn.Module):
    """`nn.LSTM` itself, without the cell protocol around it."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.core = nn.LSTM(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> None:
        return None

    def forward(self, x: Tensor, state: None) -> tuple[Tensor, None]:
        return self.core(x)[0], None


def main(settings: Settings) -> None:
    torch.set_num_threads(1)
    task = Retrieval(examples=round(100_000 * settings.share))
    data = task.load()
    nets = {name: task.make_net(task.row(name), settings.hidden_size) for name in settings.cells}
    nets = {REFERENCE: RetrievalNet(TorchLSTM(100, settings.hidden_size)), **nets}  # type: ignore[arg-type]
    seconds: dict[str, list[float]] = {name: [] for name in nets}
    for repeat in range(settings.repeats + 1):
        for name, net in nets.items():
            begin = time.process_time()
            train(net, data, Training(learning_rate=1e-3, epochs=1, seed=repeat))
            if repeat:  # the first time warms up
                seconds[name].append((time.process_time() - begin) / settings.share)
    print(f"Seconds of an epoch, R = {settings.hidden_size}, median of {settings.repeats} in turn")
    for name, measured in seconds.items():
        ratios = np.divide(measured, seconds[REFERENCE])
        spread = f"{ratios.min():.2f} to {ratios.max():.2f}"
        print(f"{name:20s}{np.median(measured):7.2f}   ratio {np.median(ratios):.2f}   {spread}")
    if settings.out:
        versions = {"python": platform.python_version(), "torch": version("torch")}
        machine = dict(machine=platform.machine(), cores=os.cpu_count(), versions=versions)
        record = dict(settings=asdict(settings) | {"out": None}, **machine, seconds=seconds)
        settings.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
