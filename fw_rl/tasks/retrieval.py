"""Associative retrieval (Ba16 §4.1): after pairs of a letter and a digit, which digit came with this letter?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fw_rl.cells import BA16, Cell, make_cell
from fw_rl.tasks.base import Data, Row, Split, Task, layers

__all__ = ["LETTERS", "SYMBOLS", "Retrieval", "RetrievalNet", "make_examples"]

LETTERS = 26
DIGITS = 10
SYMBOLS = "abcdefghijklmnopqrstuvwxyz0123456789?"
TABLE_1 = {
    **{("rnn", 20): 62.11, ("rnn", 50): 60.23, ("rnn", 100): 0.34},
    **{("lstm", 20): 60.81, ("lstm", 50): 1.85, ("lstm", 100): 0.0},
    **{("associative-lstm", 20): 60.13, ("associative-lstm", 50): 1.62, ("associative-lstm", 100): 0.0},
    **{("fast-weights", 20): 1.81, ("fast-weights", 50): 0.0, ("fast-weights", 100): 0.0},
}
"""Test error in percent by row and size (Ba16)."""
_SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Retrieval(Task):
    """Associative retrieval (Ba16 §4.1): train nets on strings such as c9k8j3f1??c and make Table 1 and Figure 2.

    The paper does not state its number of pairs. Its examples have four. A net that remembers which four digits it saw, but not
    their letters, then errs on 62 % of the queries: the plateau of the paper's baselines. The fast weights decay at 0.95, as in
    Ba16 §3.1; with the 0.9 of A.1 a net of 20 units left its plateaus later. AdamW shrinks the slow weights, since otherwise
    both fast weights and LSTM overfit the training strings.
    """

    pairs: int = 4
    """Pairs of a letter and a digit in a string, 1 to 26."""
    examples: int = 100_000
    """Strings of the training set; the validation set has a tenth as many, the test set a fifth."""

    name: ClassVar = "retrieval"
    title: ClassVar = "Associative retrieval (Ba16 Table 1)"
    rows: ClassVar = {
        "rnn": Row("IRNN", "rnn"),
        "lstm": Row("LSTM", "lstm"),
        "associative-lstm": Row("Associative LSTM", "associative-lstm"),
        "fast-weights": Row("Fast weights", "fast-weights", BA16),
        "gru": Row("GRU", "gru"),
        "delta-rule": Row("Fast weights, delta rule", "fast-weights", dict(BA16, rule="delta")),
        "method-2": Row("Fast weights, method 2", "fast-weights", dict(BA16, method=2)),
    }
    sizes: ClassVar = (20, 50, 100)
    weight_decay: ClassVar = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= LETTERS:
            raise ValueError(f"pairs must be between 1 and {LETTERS}, the number of letters, got {self.pairs}")
        if self.examples < 10:
            raise ValueError(f"examples must be at least 10, got {self.examples}")

    @property
    def paper(self) -> dict[tuple[str, int], float]:
        return TABLE_1 if self.pairs == 4 else {}

    @property
    def data_name(self) -> str:
        return f"{self.examples:,} strings of {self.pairs} pair{'s' if self.pairs > 1 else ''}"

    def load(self) -> Data:
        sizes = (self.examples, self.examples // 10, self.examples // 5)
        return Data(*(make_examples(size, self.pairs, split) for size, split in zip(sizes, _SPLITS, strict=True)))

    def make_net(self, row: Row, hidden_size: int) -> nn.Module:
        return RetrievalNet(make_cell(row.cell, 100, hidden_size, **row.options_of(hidden_size)))


def make_examples(size: int, pairs: int, split: str) -> Split:
    """Strings such as ``c9k8j3f1??c`` [size, 2 * pairs + 3], as indices of `SYMBOLS`, and the queried digits [size].

    They are the same every time; the splits train, valid and test have a generator each.
    """
    random = np.random.default_rng([_SPLITS.index(split), pairs])
    keys = random.random((size, LETTERS)).argsort(axis=1)[:, :pairs]
    values = random.integers(DIGITS, size=(size, pairs))
    asked = random.integers(pairs, size=size)
    strings = np.full((size, 2 * pairs + 3), SYMBOLS.index("?"))
    strings[:, 0 : 2 * pairs : 2] = keys
    strings[:, 1 : 2 * pairs : 2] = LETTERS + values
    strings[:, -1] = keys[np.arange(size), asked]
    return Split(torch.from_numpy(strings), torch.from_numpy(values[np.arange(size), asked]))


class RetrievalNet(nn.Module):
    """Strings [B, T] to logits [B, 10]: an embedding of 50, expanded to 100, a recurrent layer, 100 ReLUs (Ba16 §4.1, A.1).

    The embedding starts with a standard deviation of 1: if it starts as small as the other layers (A.1), the inputs of the
    recurrent layer are so weak at first that learning needs several times as many epochs. The layer that expands it starts as
    Torch's layers do.
    """

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.embedding = nn.Sequential(nn.Embedding(len(SYMBOLS), 50), nn.Linear(50, 100), nn.ReLU())
        self.cell = cell
        self.head = layers(cell.hidden_size, 100, DIGITS, last_relu=False)

    def forward(self, strings: Tensor) -> Tensor:
        # 37 symbols are fewer than B * T places: each is embedded once.
        embedded = self.embedding(torch.arange(len(SYMBOLS), device=strings.device))
        y, _ = self.cell(F.embedding(strings.T, embedded), self.cell.initial_state(len(strings)))
        return self.head(y[-1])
