"""`deblur`: Hinton and Plaut 1987 whole, as one folder with a text, the numbers and the pictures."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import tyro
from tqdm import tqdm

from fw_rl.commands.command_line import fail
from fw_rl.experiments.checks import check_count, flag, make_folder
from fw_rl.experiments.deblur_pictures import PICTURES
from fw_rl.experiments.deblur_report import describe
from fw_rl.files import write_file
from fw_rl.tasks.deblur.simulation import Protocol, Rates
from fw_rl.tasks.deblur.study import (
    Sequences,
    check_theory,
    deblur_sequences,
    figure_2,
    figure_4,
    layered_studies,
    part_of,
    temporary_uses,
    ways_to_rehearse,
)

__all__ = ["main"]


@dataclass(frozen=True)
class DeblurOptions:
    """Fast weights that deblur old memories: the simulation, the theory and the uses of Hinton and Plaut 1987.

    The defaults are the paper's values where it gives them.
    """

    protocol: Protocol = field(default_factory=Protocol)
    rates: Rates = field(default_factory=Rates)
    sequences: Sequences = field(default_factory=Sequences)
    subsets: tuple[int, ...] = (10, 25, 50, 75, 90)
    """Percentages of the old associations that are rehearsed (Figure 2)."""
    subset: int = 50
    """The percentage that is rehearsed where the fast weights then decay."""
    pairs: int = 100
    """Pairs of inputs for each Monte Carlo check of Eq. 1 to 3."""
    linear_nets: int = 4000
    """Linear nets for each Monte Carlo check of the improvement at the start."""
    out: Path = Path("runs/deblur")
    """Folder of the report."""
    threads: int = 1
    """Threads for Torch."""
    quiet: bool = False
    """No progress bar and no text."""


def main(arguments: Sequence[str], program: str = "fw-rl deblur") -> int:
    """Run the command; returns its exit code: 0 done, 1 diverged, 2 bad input."""
    options = tyro.cli(DeblurOptions, args=arguments, prog=program, config=(tyro.conf.OmitArgPrefixes,))
    try:
        _check(options)
        make_folder("out", options.out)
    except ValueError as error:
        return fail(program, error)
    torch.set_num_threads(options.threads)
    command = shlex.join([*program.split(), *arguments])
    record = dict(command=command, settings=asdict(options) | dict(out=str(options.out))) | _measure(options)
    try:
        numbers = json.dumps(record, allow_nan=False)
    except ValueError:
        return fail(program, "some results are not finite: the nets diverged or did not learn, lower the rates", code=1)
    text = describe(record)
    write_file(options.out / "report.json", (numbers + "\n").encode())
    write_file(options.out / "report.txt", text.encode())
    for name, draw in PICTURES.items():
        write_file(options.out / name, draw(record))
    if not options.quiet:
        print(text)
        print(f"The report: {options.out}")
    return 0


def _measure(options: DeblurOptions) -> dict[str, Any]:
    protocol, rates = options.protocol, options.rates
    studies: dict[str, Any] = {}

    def simulate() -> None:
        studies["both"], studies["slow"] = layered_studies(protocol, rates)

    ends = sorted({min(options.subsets), options.subset})
    sections: dict[str, Callable[[], Any]] = {
        "simulation": simulate,
        "figure_2": lambda: figure_2(studies["both"], options.subsets),
        "rehearsal": lambda: ways_to_rehearse(studies["both"], studies["slow"], options.subset),
        "theory": lambda: check_theory(protocol.seed, options.pairs, options.linear_nets),
        "figure_4": figure_4,
        "uses": lambda: temporary_uses(studies["both"]),
        "recurrent": lambda: deblur_sequences(options.sequences, protocol, rates, ends),
    }
    record = {}
    with tqdm(sections.items(), disable=options.quiet, unit="section", leave=False) as bar:
        for name, measure in bar:
            bar.set_description(name)
            record[name] = measure()
    del record["simulation"]
    return record


def _check(options: DeblurOptions) -> None:
    """Raises ValueError, in one line, for a value that is not allowed."""
    protocol, rates, sequences = options.protocol, options.rates, options.sequences
    samples = ("seeds", "sequence_seeds", "pairs", "linear_nets")
    counts = vars(protocol) | vars(sequences) | vars(options)
    for name, value in counts.items():
        if type(value) is int and name not in ("seed", "subset"):
            check_count(name, value, 2 if name in samples else 1)
    check_count("seed", protocol.seed, 0)
    for bits, cases, name in (
        (protocol.inputs, protocol.associations, "--inputs"),
        (protocol.inputs * sequences.sequence_length, sequences.sequences, "--sequence-length"),
    ):
        if cases + protocol.interfering > 2**bits:
            needed = f"{cases} + {protocol.interfering} different inputs need more than {bits} bits"
            raise ValueError(f"{name} is too small: {needed}")
    numbers = vars(rates) | dict(init=protocol.init, sequence_lr=sequences.sequence_lr, cell_eta=sequences.cell_eta)
    for name, value in numbers.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{flag(name)} is {value}: it must be at least 0 and finite")
    for name, value in (("slow_lr", rates.slow_lr), ("fast_lr", rates.fast_lr), ("sequence_lr", sequences.sequence_lr)):
        if value == 0:
            raise ValueError(f"{flag(name)} is 0: it must be above 0")
    for name, value in (("slow_momentum", rates.slow_momentum), ("fast_momentum", rates.fast_momentum)):
        if value >= 1:
            raise ValueError(f"{flag(name)} is {value}: it must be below 1")
    for name, value in (("decay", rates.decay), ("cell_decay", sequences.cell_decay)):
        if not 0 <= value <= 1:
            raise ValueError(f"{flag(name)} is {value}: it must lie between 0 and 1")
    if not options.subsets:
        raise ValueError("--subsets is empty: give one percentage or more")
    for percent in (*options.subsets, options.subset):
        part_of(protocol, percent)
    for percent in (min(options.subsets), options.subset):
        part_of(Protocol(associations=sequences.sequences), percent)
