"""`deblur`: all of Hinton and Plaut 1987, as one folder with a text, the numbers and the pictures."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import tyro
from tqdm import tqdm

from fw_rl.commands.command_line import fail, fault, parse
from fw_rl.experiments.checks import LARGEST, check_count, check_threads, make_folder, require_option
from fw_rl.experiments.deblur_pictures import draw
from fw_rl.experiments.deblur_report import describe
from fw_rl.files import write_file
from fw_rl.tasks.deblur import study
from fw_rl.tasks.deblur.simulation import Protocol, Rates
from fw_rl.tasks.deblur.study import Sequences, part_of

__all__ = ["main"]


@dataclass(frozen=True)
class DeblurOptions:
    """Deblur old memories with fast weights: the simulation, the theory and the uses of Hinton and Plaut 1987.

    The defaults are the paper's values where it gives them.
    """

    protocol: Protocol = field(default_factory=Protocol)
    rates: Rates = field(default_factory=Rates)
    sequences: Sequences = field(default_factory=Sequences)
    subsets: tuple[int, ...] = (10, 25, 50, 75, 90)
    """Percentages of the old associations that are rehearsed (Figure 2)."""
    subset: int = 50
    """The percentage that is rehearsed before the fast weights decay."""
    pairs: int = 100
    """Pairs of inputs for each Monte Carlo check of Eq. 1 to 3."""
    linear_nets: int = 4000
    """Linear nets for each Monte Carlo check of the initial improvement."""
    out: Path = Path("runs/deblur")
    """Folder for the report."""
    threads: int = 1
    """Threads for Torch."""
    quiet: bool = False
    """No progress bar and no text."""


def main(arguments: Sequence[str], program: str = "fw-rl deblur") -> int:
    """Run the command; the exit code is 0 when it is done, 1 if nets diverged or after a fault, 2 for bad input."""
    options = parse(DeblurOptions, arguments, program, config=(tyro.conf.OmitArgPrefixes,))
    try:
        _check(options)
        make_folder("out", options.out)
    except (ValueError, OSError) as error:
        return fail(program, error)
    torch.set_num_threads(options.threads)
    command = shlex.join([*program.split(), *arguments])
    try:
        record = dict(command=command, settings=asdict(options) | dict(out=str(options.out))) | _measure(options)
    except FloatingPointError as error:
        return fail(program, error, code=1)
    numbers, text = json.dumps(record, allow_nan=False), describe(record)
    files = {"report.json": f"{numbers}\n".encode(), "report.txt": text.encode()} | draw(record)
    try:
        for name, content in files.items():
            write_file(options.out / name, content)
    except OSError as error:
        return fault(program, error, "once that is fixed, the same command makes the report again")
    if not options.quiet:
        print(text)
        print(f"Report: {options.out}")
    return 0


def _measure(options: DeblurOptions) -> dict[str, Any]:
    protocol, rates = options.protocol, options.rates
    ends = sorted({min(options.subsets), options.subset})
    measures: dict[str, Callable[[], Any]] = dict(
        figure_2=lambda: study.figure_2(both, options.subsets),
        rehearsal=lambda: study.ways_to_rehearse(both, slow, options.subset),
        theory=lambda: study.check_theory(protocol.seed, options.pairs, options.linear_nets),
        figure_4=study.figure_4,
        uses=lambda: study.temporary_uses(both),
        recurrent=lambda: study.deblur_sequences(options.sequences, protocol, rates, ends),
    )
    record = {}
    hidden = options.quiet or None  # None hides it too where there is no terminal, so an error is the only line
    with tqdm(measures.items(), "simulation", disable=hidden, unit="section", leave=False) as bar:
        both, slow = study.layered_studies(protocol, rates)
        for name, measure in bar:
            bar.set_description(name)
            record[name] = measure()
    return record


def _check(options: DeblurOptions) -> None:
    """ValueError, in one line, for a value that is not allowed."""
    protocol, rates, sequences = options.protocol, options.rates, options.sequences
    check_threads("threads", options.threads)
    least = dict(seed=0, seeds=2, sequence_seeds=2, pairs=2, linear_nets=2)
    for name, value in (vars(protocol) | vars(rates) | vars(sequences) | vars(options)).items():
        if type(value) is int and name != "subset":
            check_count(name, value, least.get(name, 1))
            require_option(name, value, "seed" not in name or value < 2**31, f"at most {2**31 - 1}")
        elif type(value) is float:
            require_option(name, value, 0 <= value <= LARGEST, "at least 0 and finite")
            require_option(name, value, value > 0 or not name.endswith("lr"), "above 0")
            require_option(name, value, value < 1 or not name.endswith("momentum"), "below 1")
            require_option(name, value, value <= 1 or not name.endswith("decay"), "between 0 and 1")
    for bits, cases, name in (
        (protocol.inputs, protocol.associations, "--inputs"),
        (protocol.inputs * sequences.sequence_length, sequences.sequences, "--sequence-length"),
    ):
        if bits < 64 and (needed := cases + protocol.interfering) > 2**bits:
            raise ValueError(f"{name} must be enough for {needed} different inputs, got {bits} bits")
    require_option("subsets", "none", len(options.subsets) > 0, "one or more percentages")
    for percent in (*options.subsets, options.subset):
        part_of(protocol, percent)
    for percent in (min(options.subsets), options.subset):
        part_of(Protocol(associations=sequences.sequences), percent)
