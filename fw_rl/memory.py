"""A fast associative memory: outer products that are written, read by content, and decay.

The memory is the matrix of Ba16 Eq. 1, ``A(t) = decay * A(t-1) + eta * h(t) h(t)^T``, held as

    A = decay**K * matrix + sum_j strengths[j] * values[j] keys[j]^T        j = 1 .. K

that is, as an optional matrix and the last K writes. With no matrix a read is attention to the recent past (Ba16 Eq. 4); with
K = 0 it is a product with the matrix. Both are the same number, and `fold` goes from the first form to the second.

Three rules say what one step writes. Each is a single outer product ``value key^T``, so all of them can be read either way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "WRITE_RULES",
    "Memory",
    "attend",
    "correction",
    "delta",
    "empty",
    "fade",
    "fold",
    "forget",
    "hebb",
    "oja",
    "read",
    "write",
]


class Memory(NamedTuple):
    """Fast weights as a matrix and a window of pending writes; batch first, so that it can be indexed by row.

    `matrix`: [B, H, H], or [B, 0, 0] while nothing has been folded into it. `keys`: [B, K, H]. `strengths`: [B, K], what decay
    and learning rate have left of each write. `values`: [B, K, H], or None where every value is its own key (`hebb`). Values
    may have another length V than keys; the matrix is then [B, V, H].
    """

    matrix: Tensor
    keys: Tensor
    strengths: Tensor
    values: Tensor | None = None


def empty(
    batch_size: int, size: int, *, separate_values: bool = False, value_size: int | None = None, like: Tensor | None = None
) -> Memory:
    """A memory of `batch_size` rows for vectors of length `size` that holds nothing yet, with `like`'s dtype and device.

    `value_size`: the length of the values, which are then separate, where it is not that of the keys.
    """
    like = torch.empty(0) if like is None else like
    separate = separate_values or value_size is not None
    values = like.new_zeros(batch_size, 0, size if value_size is None else value_size) if separate else None
    return Memory(like.new_zeros(batch_size, 0, 0), like.new_zeros(batch_size, 0, size), like.new_zeros(batch_size, 0), values)


def attend(memory: Memory, query: Tensor) -> Tensor:
    """How strongly a query [B, H] attends to each pending write: ``strengths[j] * (keys[j] . query)`` (Ba16 Eq. 4), [B, K]."""
    return torch.bmm(query.unsqueeze(1), memory.keys.mT).squeeze(1) * memory.strengths


def read(memory: Memory, query: Tensor, decay: Tensor | float) -> Tensor:
    """The product ``A query`` (Ba16 Eq. 2 and 4), [B, H] for a query [B, H].

    >>> h = torch.ones(1, 2)
    >>> memory = write(empty(1, 2), h, h, torch.tensor([0.5]), decay=0.9)
    >>> read(memory, h, decay=0.9)
    tensor([[1., 1.]])
    """
    values = memory.keys if memory.values is None else memory.values
    recalled = torch.bmm(attend(memory, query).unsqueeze(1), values).squeeze(1)
    if memory.matrix.shape[1]:
        folded = torch.bmm(query.unsqueeze(1), memory.matrix.mT).squeeze(1)
        recalled = recalled + decay ** memory.keys.shape[1] * folded
    return recalled


def transpose(memory: Memory) -> Memory:
    """The memory of ``A^T``: keys and values change places."""
    if memory.values is None:
        return memory._replace(matrix=memory.matrix.mT)
    return Memory(memory.matrix.mT, memory.values, memory.strengths, memory.keys)


def write(memory: Memory, value: Tensor, key: Tensor, strength: Tensor, decay: Tensor | float) -> Memory:
    """One step of time, ``A <- decay * A + strength * value key^T`` (Ba16 Eq. 1).

    `value` and `key`: [B, H]; `strength`: [B], eta times the write gate.
    """
    return Memory(
        memory.matrix,
        torch.cat([memory.keys, key.unsqueeze(1)], dim=1),
        torch.cat([memory.strengths * decay, strength.unsqueeze(1)], dim=1),
        None if memory.values is None else torch.cat([memory.values, value.unsqueeze(1)], dim=1),
    )


def fold(memory: Memory, decay: Tensor | float) -> Memory:
    """The same A with every pending write added into the matrix [B, H, H], which is bounded however long the episode is."""
    values = memory.keys if memory.values is None else memory.values
    weighted = (values * memory.strengths.unsqueeze(2)).mT
    faded = decay ** memory.keys.shape[1]
    if not memory.matrix.shape[1]:
        matrix = torch.bmm(weighted, memory.keys)
    elif isinstance(faded, Tensor):
        matrix = faded * memory.matrix + torch.bmm(weighted, memory.keys)
    else:
        matrix = torch.baddbmm(memory.matrix, weighted, memory.keys, beta=faded)
    return Memory(matrix, memory.keys[:, :0], memory.strengths[:, :0], None if memory.values is None else values[:, :0])


def fade(memory: Memory, factor: Tensor | float) -> Memory:
    """The memory with ``factor * A``: `decay**n` lets n steps of time pass without a write."""
    return memory._replace(matrix=factor * memory.matrix, strengths=factor * memory.strengths)


def forget(memory: Memory, rows: Tensor) -> Memory:
    """The memory with A = 0 in the given rows [B] (bool), as at the start of an episode; nothing that was there is left."""
    parts = (None if part is None else part.masked_fill(rows.view(-1, *(1,) * (part.dim() - 1)), 0.0) for part in memory)
    return Memory(*parts)  # type: ignore[arg-type]


def _unit(h: Tensor, eps: float = 1e-3) -> Tensor:
    """h over its length; eps keeps the gradient finite where all units are silent."""
    return h * torch.rsqrt(h.square().sum(dim=-1, keepdim=True) + eps)


def hebb(memory: Memory, h: Tensor, decay: Tensor | float) -> tuple[Tensor, Tensor]:
    """Hebb's rule, the outer product of h [B, H] with itself: value h, key h (Ba16 Eq. 1)."""
    return h, h


def correction(memory: Memory, key: Tensor, target: Tensor, decay: Tensor | float) -> Tensor:
    """What the next read of a key [B, H] would still lack of a target [B, V]: ``target - decay * A key`` (Widrow & Hoff 1960).

    It is -dE/d(A key) for E = half the squared error, so that writing it is a step of gradient descent (HP87 §3).
    """
    return target - decay * read(memory, key, decay)


def delta(memory: Memory, h: Tensor, decay: Tensor | float) -> tuple[Tensor, Tensor]:
    """The delta rule (Widrow & Hoff 1960): write only what a read does not give back yet.

    With u = h / |h|: value ``u - decay * A u``, key u. The vectors have unit length, so that any eta in (0, 2) is stable.
    """
    unit = _unit(h)
    return correction(memory, unit, unit, decay), unit


def oja(memory: Memory, h: Tensor, decay: Tensor | float) -> tuple[Tensor, Tensor]:
    """Oja's rule (Oja 1982, for several outputs Oja 1989): the correction is on the side of the key.

    With u = h / |h|: value u, key ``u - decay * A^T u``. For the same vectors this A is the transpose of the delta rule's.
    """
    unit = _unit(h)
    return unit, correction(transpose(memory), unit, unit, decay)


WriteRule = Callable[[Memory, Tensor, Tensor | float], tuple[Tensor, Tensor]]

WRITE_RULES: dict[str, WriteRule] = {"hebb": hebb, "delta": delta, "oja": oja}
"""What a step writes: from the memory, h [B, H] and the decay, the value and the key of one outer product."""
