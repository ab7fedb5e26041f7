"""Inputs times weights, forward and backward, by MKL and by oneDNN: the products of `fw_rl.linear` both ways.

    python benchmarks/products.py --out results/products.json

`fw_rl.linear` uses oneDNN only on processors on which it was found to be faster; here both are measured, in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from measure import calls_per_second, in_turn, ratio_row, write_report
from torch import Tensor
from torch.nn import functional as F

from fw_rl import linear as ours

FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "as Torch does": F.linear,
    "by oneDNN": ours._Linear.apply,
}


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    sizes: tuple[tuple[int, int, int], ...] = ((64, 64, 64), (64, 128, 512), (960, 64, 64), (1024, 128, 512), (12800, 128, 512))
    """Rows, inputs and outputs."""
    repeats: int = 9
    """Measurements of each form, in turn."""
    seconds: float = 0.2
    """Length of one measurement."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


def make_pass(form: str, size: tuple[int, int, int]) -> Callable[[], None]:
    """One product and its gradients."""
    rows, inputs, outputs = size
    parts = [torch.randn(shape, requires_grad=True) for shape in ((rows, inputs), (outputs, inputs), (outputs,))]
    d_product = torch.randn(rows, outputs)

    def run() -> None:
        torch.autograd.grad(FORMS[form](*parts), parts, d_product)

    return run


def main(settings: Settings) -> None:
    torch.set_num_threads(1)
    ours.LEAST, ours._prefers_onednn = 0, lambda: True  # the gradients of `_Linear` are oneDNN's too
    results = {}
    for size in settings.sizes:
        passes = {form: make_pass(form, size) for form in FORMS}
        for run in passes.values():
            run()
        rates = in_turn(partial(_rate, passes, size, settings.seconds), list(FORMS), settings.repeats)
        print(f"\n{f'{size[0]} x {size[1]} x {size[2]}':34s}{'GFLOP/s':>12}{'ratio':>10}   min to max", flush=True)
        for form in FORMS:
            print(ratio_row(form, rates[form], rates["as Torch does"], width=34, number=".0f"))
        results[" x ".join(map(str, size))] = {form: np.round(rates[form], 1).tolist() for form in FORMS}
    write_report(settings.out, settings, gflops=results)


def _rate(passes: dict[str, Callable[[], None]], size: tuple[int, int, int], seconds: float, form: str) -> float:
    operations = 3 * 2 * size[0] * size[1] * size[2]
    return operations * calls_per_second(passes[form], seconds) / 1e9


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
