"""`retrieval`: associative retrieval, Table 1 and Figure 2 of Ba16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from fw_rl.commands.command_line import fail
from fw_rl.experiments.table import TableOptions, make_table
from fw_rl.tasks.retrieval import Retrieval

__all__ = ["RetrievalOptions", "main"]


@dataclass(frozen=True)
class RetrievalOptions(TableOptions):
    """Associative retrieval (Ba16 §4.1): train nets on strings such as c9k8j3f1??c and make Table 1 and Figure 2.

    Runs are recorded one by one: what is there is not made again, and an interrupted command goes on.
    """

    pairs: int = 4
    """Pairs of a letter and a digit in a string, 1 to 26."""
    examples: int = 100_000
    """Strings of the training set; a tenth of it validates, a fifth of it tests."""


def main(arguments: Sequence[str], program: str = "fw-rl retrieval") -> int:
    """Run the command; returns its exit code: 0 done, 2 bad input, 130 interrupted."""
    options = tyro.cli(RetrievalOptions, args=arguments, prog=program)
    try:
        task = Retrieval(options.pairs, options.examples)
    except ValueError as error:
        return fail(program, error)
    return make_table(task, options, program)
