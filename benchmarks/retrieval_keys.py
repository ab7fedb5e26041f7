"""Which letters a net with fast weights cannot tell apart in associative retrieval, and how many of its errors that explains.

    python benchmarks/retrieval_keys.py --out results/retrieval_keys

The key of a letter is h after it has been seen, which the fast weights store and are queried with. Nets of one row and size are
trained with several seeds. For each: its test error, how many pairs of letters have the same key, and the error that these
pairs cost: of two letters with one key that are both in a string, one has lost its digit. The picture has the cosines of all
keys. Nets are recorded one by one, and recorded nets are not trained again.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tabulate import tabulate
from torch.nn.functional import cosine_similarity

from fw_rl.commands.command_line import fail
from fw_rl.experiments.checks import check_count
from fw_rl.files import write_file, write_json
from fw_rl.lines import STYLE, as_png
from fw_rl.tasks.retrieval import LETTERS, SYMBOLS, Retrieval, RetrievalNet
from fw_rl.tasks.training import Training, train

SAME = 0.999
"""The cosine above which two letters have the same key."""


@dataclass(frozen=True)
class Settings:
    """What to train."""

    cell: str = "delta-rule"
    """Row of the table of retrieval."""
    hidden_size: int = 20
    """Units."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of the nets."""
    epochs: int = 40
    """Passes over the training set; the learning rate falls to 0 over them."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW."""
    examples: int = 100_000
    """Strings of the training set."""
    out: Path = Path("results/retrieval_keys")
    """Folder for record, table and picture."""


def main(settings: Settings) -> int:
    """Train, and write record, table and picture; returns the exit code: 0 done, 2 bad input."""
    torch.set_num_threads(1)
    try:
        for name in ("hidden_size", "epochs", "examples"):
            check_count(name, getattr(settings, name))
        task = Retrieval(examples=settings.examples)
        task.row(settings.cell)
    except ValueError as error:
        return fail("retrieval_keys.py", error)
    path = settings.out / "retrieval_keys.json"
    made = {key: value for key, value in asdict(settings).items() if key not in ("seeds", "out")}
    known = json.loads(path.read_text()) if path.exists() else []
    found = {record["seed"]: record for record in known if record["settings"] == made}
    for seed in settings.seeds:
        if seed not in found:
            found[seed] = dict(seed=seed, settings=made) | examine(task, settings, seed)
            write_json(path, list(found.values()))
    records = [found[seed] for seed in settings.seeds]
    write_file(settings.out / "retrieval_keys.md", f"{table(records)}\n".encode())
    write_file(settings.out / "retrieval_keys.png", draw(records))
    print(table(records))
    return 0


def examine(task: Retrieval, settings: Settings, seed: int) -> dict[str, Any]:
    """Train a net, and look at its keys and errors."""
    data = task.load()
    torch.manual_seed(seed)
    net = task.make_net(task.row(settings.cell), settings.hidden_size)
    assert isinstance(net, RetrievalNet)
    training = Training(settings.learning_rate, settings.epochs, seed, weight_decay=task.weight_decay)
    history = train(net, data, training, description=f"seed {seed}", quiet=False)
    keys = keys_of(net)
    return dict(
        test_error=history[-1]["test_error"],
        cosines=np.round(cosine_similarity(keys.unsqueeze(1), keys.unsqueeze(0), dim=2).numpy(), 4).tolist(),
        test_errors=[epoch["test_error"] for epoch in history],
    )


@torch.no_grad()
def keys_of(net: RetrievalNet) -> torch.Tensor:
    """The key of each letter, h after it as the first of a string, [26, H]."""
    embedded = net.embedding(torch.arange(LETTERS))
    return net.cell(embedded.unsqueeze(0))[0][0]


def same_keys(record: dict[str, Any]) -> int:
    """Pairs of letters that have the same key."""
    return int((np.array(record["cosines"])[np.triu_indices(LETTERS, 1)] > SAME).sum())


def error_of_a_pair(pairs: int) -> float:
    """What a pair of letters with the same key costs, in percent of all strings.

    One of the two is queried, the other one is in the string too, their digits differ, and one of the two is lost.
    """
    return 100 * 2 / LETTERS * (pairs - 1) / (LETTERS - 1) * 0.9 * 0.5


def table(records: list[dict[str, Any]]) -> str:
    """A row for each net, from the fewest errors to the most."""
    cost = error_of_a_pair(Retrieval().pairs)
    rows = [
        [record["seed"], f"{record['test_error']:.2f}", same_keys(record), f"{cost * same_keys(record):.2f}"]
        for record in sorted(records, key=lambda record: record["test_error"])
    ]
    every = LETTERS * (LETTERS - 1) // 2
    columns = ["seed", "test error, percent", f"pairs with the same key, of {every}", "error that they cost"]
    return tabulate(rows, columns, "github", disable_numparse=True)


def draw(records: list[dict[str, Any]]) -> bytes:
    """The cosines of the keys as a PNG file: a panel for each net, from the fewest errors to the most, alike ones together."""
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(1 + 3.1 * len(records), 3.6), dpi=120, layout="constrained")
        panels = figure.subplots(1, len(records), squeeze=False)[0]
        for axes, record in zip(panels, sorted(records, key=lambda record: record["test_error"]), strict=True):
            cosines = np.array(record["cosines"])
            order = groups(cosines)
            image = axes.imshow(cosines[np.ix_(order, order)], cmap="Blues", vmin=0.7, vmax=1)
            names = [SYMBOLS[letter] for letter in order]
            axes.set_xticks(range(LETTERS), names, fontsize=6)
            axes.set_yticks(range(LETTERS), names, fontsize=6)
            axes.spines[:].set_visible(False)
            axes.set_title(f"seed {record['seed']}: {record['test_error']:.2f} % errors", fontsize=10, loc="left")
        figure.colorbar(image, ax=panels, label="cosine of two keys", shrink=0.8, extend="min")
        return as_png(figure)


def groups(cosines: NDArray[np.float64]) -> list[int]:
    """The letters in an order in which each is followed by the most similar one that is left."""
    order, left = [0], set(range(1, len(cosines)))
    while left:
        order.append(max(left, key=lambda letter: cosines[order[-1], letter]))
        left.remove(order[-1])
    return order


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
