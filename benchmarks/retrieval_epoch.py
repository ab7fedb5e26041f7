"""Time of an epoch of associative retrieval with fast weights beside `nn.LSTM`.

    python benchmarks/retrieval_epoch.py --out results/retrieval_epoch.json

The nets differ only in their recurrent layer. They train in turn, a share of an epoch each, in one process and with one thread;
the ratio is that of two measurements of the same turn.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
import tyro
from measure import in_turn, ratio_row, write_report
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
    """Measurements of each, in turn."""
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
    seeds = {name: count() for name in nets}

    def seconds(name: str) -> float:
        begin = time.process_time()
        train(nets[name], data, Training(learning_rate=1e-3, epochs=1, seed=next(seeds[name])))
        return (time.process_time() - begin) / settings.share

    in_turn(seconds, list(nets), 1)  # warms up
    results = in_turn(seconds, list(nets), settings.repeats)
    title = f"R = {settings.hidden_size}, median of {settings.repeats} in turn"
    print(f"{title:34s}{'s an epoch':>12}{'ratio':>10}   min to max")
    for name, measured in results.items():
        print(ratio_row(name, measured, results[REFERENCE], width=34, number=".2f"))
    write_report(settings.out, settings, seconds=results)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
