"""How much of the processor's speed in matrix products each cell reaches, forward and backward.

    python benchmarks/roofline.py --out results/roofline.json

One thread; processor time is measured, so other programs disturb it little. Operations are those of matrix products and of
reads of fast weights; gates, norms and the memory of the delta net are not counted, but take their time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import thread_time

import torch
import tyro
from cell_speed import CELLS, make_pass
from measure import write_report
from operations import counted


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    sizes: tuple[tuple[int, int, int], ...] = ((64, 16, 128), (32, 400, 128))
    """Batch, steps and hidden units."""
    repeats: int = 15
    """Passes of each cell, of which the fastest counts."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest call."""
    run()
    times = []
    for _ in range(repeats):
        begin = thread_time()
        run()
        times.append(thread_time() - begin)
    return min(times)


def products_per_second(rows: int, inner: int, columns: int, repeats: int) -> float:
    """Operations per second of one matrix product."""
    a, b, out = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)
    return 2 * rows * inner * columns / seconds(lambda: torch.mm(a, b, out=out), repeats)


def main(settings: Settings) -> None:
    torch.set_num_threads(1)
    peak = max(products_per_second(64, 128, size, 100 * settings.repeats) for size in (128, 256, 512, 1024))
    print(f"peak: {peak / 1e9:.0f} billion operations a second, in products that fit into the cache")
    shares = {}
    for size in settings.sizes:
        batch, steps, hidden = size
        title = f"batch {batch}, {steps} steps, {hidden} units"
        step = products_per_second(batch, hidden, 4 * hidden, 100 * settings.repeats) / peak
        print(f"\n{title:34s}{'million':>10}{'ms':>10}{'of peak':>10}\n{'the product of one LSTM step':34s}{step:30.0%}")
        shares[title] = {"product of one step": step}
        for name in CELLS:
            run, counts = make_pass(name, size, "cpu"), make_pass("lstm" if name == "nn.LSTM" else name, size, "cpu")
            counts()
            with counted() as operations:  # nn.LSTM hides its own, which are the same as in ours
                counts()
            taken = seconds(run, settings.repeats)
            shares[title][name] = operations.total / taken / peak
            print(f"{name:34s}{operations.total / 1e6:10,.0f}{1000 * taken:10.1f}{shares[title][name]:10.0%}", flush=True)
    write_report(settings.out, settings, peak=peak, shares=shares)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
