"""A fast associative memory: outer products that are written, read by content, and decay.

The memory is the matrix of Ba16 Eq. 1, ``A(t) = decay * A(t-1) + eta * h(t) h(t)^T``, held as

    A = faded * matrix + sum_j strengths[j] * values[j] keys[j]^T        j = 1 .. K

that is, as the last K writes and a matrix of the earlier ones. Without a matrix a read is attention to the recent past (Ba16
Eq. 4); with K = 0 it is a product with the matrix. Both give the same numbers, and `fold` turns the first form into the other.

Three rules define what one step writes. Each is a single outer product ``value key^T``, so all of them can be read either way.

`write_and_read` takes the steps of a whole sequence at once, for memories whose keys, values and queries do not depend on what
was read: with several heads, and a strength and a decay for each step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad as pad_with_zeros

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
    "pad",
    "read",
    "recall_weights",
    "recent",
    "transpose",
    "write",
    "write_and_read",
]


class Memory(NamedTuple):
    """Fast weights as a window of writes, the latest last, and a matrix; batch first, for indexing by row.

    Attributes:
        keys: [B, K, H].
        strengths: What decay and learning rate have left of each write, [B, K]; 0 where there is none.
        values: [B, K, V], or None where every value is its own key (`hebb`).
        matrix: The folded writes, [B, V, H], or None while there are none.
        faded: What decay has left of the matrix, [B], 0 where nothing was folded; None without a matrix.
    """

    keys: Tensor
    strengths: Tensor
    values: Tensor | None = None
    matrix: Tensor | None = None
    faded: Tensor | None = None


def empty(
    batch_size: int, size: int, *, separate_values: bool = False, value_size: int | None = None, like: Tensor | None = None
) -> Memory:
    """A memory of `batch_size` rows that holds nothing yet.

    Args:
        batch_size: Rows B.
        size: Length H of the keys.
        separate_values: Whether values are kept separately from keys.
        value_size: Length V of the values, which are then separate; None for that of the keys.
        like: A tensor whose dtype and device the memory gets.
    """
    like = torch.empty(0) if like is None else like
    separate = separate_values or value_size is not None
    values = like.new_zeros(batch_size, 0, size if value_size is None else value_size) if separate else None
    return Memory(like.new_zeros(batch_size, 0, size), like.new_zeros(batch_size, 0), values)


def attend(memory: Memory, query: Tensor) -> Tensor:
    """How strongly a query attends to each write: ``strengths[j] * (keys[j] . query)`` (Ba16 Eq. 4), [B, K].

    Args:
        memory: The fast weights A.
        query: [B, H].
    """
    return torch.bmm(query.unsqueeze(1), memory.keys.mT).squeeze(1) * memory.strengths


def read(memory: Memory, query: Tensor) -> Tensor:
    """The product ``A query`` (Ba16 Eq. 2 and 4), [B, V].

    Args:
        memory: The fast weights A.
        query: [B, H].

    Examples:
        >>> h = torch.ones(1, 2)
        >>> memory = write(empty(1, 2), h, h, torch.tensor([0.5]), decay=0.9)
        >>> read(memory, h)
        tensor([[1., 1.]])
    """
    recalled = torch.bmm(attend(memory, query).unsqueeze(1), _values(memory)).squeeze(1)
    if memory.matrix is None or memory.faded is None:
        return recalled
    return recalled + memory.faded.unsqueeze(1) * torch.bmm(query.unsqueeze(1), memory.matrix.mT).squeeze(1)


def transpose(memory: Memory) -> Memory:
    """The memory of ``A^T``: keys and values change places.

    Args:
        memory: The fast weights A.
    """
    keys, values = (memory.keys, None) if memory.values is None else (memory.values, memory.keys)
    return memory._replace(keys=keys, values=values, matrix=None if memory.matrix is None else memory.matrix.mT)


def write(memory: Memory, value: Tensor, key: Tensor, strength: Tensor, decay: Tensor | float) -> Memory:
    """One step of time, ``A <- decay * A + strength * value key^T`` (Ba16 Eq. 1).

    Args:
        memory: The fast weights A.
        value: [B, V]; ignored where every value is its own key.
        key: [B, H].
        strength: Learning rate times write gate, [B].
        decay: Fraction of A kept by the step.
    """
    memory = fade(memory, decay)
    return memory._replace(
        keys=torch.cat([memory.keys, key.unsqueeze(1)], dim=1),
        strengths=torch.cat([memory.strengths, strength.unsqueeze(1)], dim=1),
        values=None if memory.values is None else torch.cat([memory.values, value.unsqueeze(1)], dim=1),
    )


def fold(memory: Memory, keep: int = 0) -> Memory:
    """The same A with all but the latest writes added to the matrix, whose size does not depend on the episode's length.

    Args:
        memory: The fast weights A.
        keep: How many of the latest writes stay separate.
    """
    older = memory.keys.shape[1] - keep
    if older <= 0:
        return memory
    keys, strengths, values = memory.keys[:, :older], memory.strengths[:, :older], _values(memory)[:, :older]
    matrix = torch.bmm((values * strengths.unsqueeze(2)).mT, keys)
    holds = strengths.ne(0).any(dim=1)
    if memory.matrix is not None and memory.faded is not None:
        matrix = matrix + memory.faded[:, None, None] * memory.matrix
        holds = holds | memory.faded.ne(0)
    return recent(memory, keep)._replace(matrix=matrix, faded=holds.to(matrix.dtype))


def recent(memory: Memory, length: int) -> Memory:
    """The memory with only its latest writes; folded writes stay.

    Args:
        memory: The fast weights A.
        length: The largest number of writes left.
    """
    older = max(memory.keys.shape[1] - length, 0)
    values = None if memory.values is None else memory.values[:, older:]
    return memory._replace(keys=memory.keys[:, older:], strengths=memory.strengths[:, older:], values=values)


def pad(memory: Memory, length: int) -> Memory:
    """The same A with empty writes before its own, so that it has at least `length`.

    Args:
        memory: The fast weights A.
        length: The least number of writes it then has.
    """
    missing = max(length - memory.keys.shape[1], 0)
    before = (0, 0, missing, 0)
    values = None if memory.values is None else pad_with_zeros(memory.values, before)
    keys, strengths = pad_with_zeros(memory.keys, before), pad_with_zeros(memory.strengths, before[2:])
    return memory._replace(keys=keys, strengths=strengths, values=values)


def fade(memory: Memory, factor: Tensor | float) -> Memory:
    """The memory with ``factor * A``: `decay**n` lets n steps of time pass without a write.

    Args:
        memory: The fast weights A.
        factor: What is left of A; a number, or one for each row, [B].
    """
    strengths = _by_row(factor) * memory.strengths
    return memory._replace(strengths=strengths, faded=None if memory.faded is None else factor * memory.faded)


def forget(memory: Memory, rows: Tensor) -> Memory:
    """The memory with A = 0 in some rows, as at the start of an episode; nothing is left there.

    Args:
        memory: The fast weights A.
        rows: Where to forget, [B] bool.
    """
    parts = (None if part is None else part.masked_fill(rows.view(-1, *(1,) * (part.dim() - 1)), 0.0) for part in memory)
    return Memory(*parts)  # type: ignore[arg-type]


def hebb(memory: Memory, h: Tensor, decay: Tensor | float) -> tuple[Tensor, Tensor]:
    """Hebb's rule, the outer product of h with itself: value h, key h (Ba16 Eq. 1), [B, H] each.

    Args:
        memory: The fast weights A before the step.
        h: Hidden vectors, [B, H].
        decay: Fraction of A kept by the step.
    """
    return h, h


def correction(memory: Memory, key: Tensor, target: Tensor, decay: Tensor | float) -> Tensor:
    """What the next read of a key would still miss of a target: ``target - decay * A key`` (Widrow & Hoff 1960), [B, V].

    It is -dE/d(A key) for E = half the squared error, so writing it is a step of gradient descent (HP87 §3).

    Args:
        memory: The fast weights A before the step.
        key: [B, H].
        target: [B, V].
        decay: Fraction of A kept by the step.
    """
    return target - _by_row(decay) * read(memory, key)


def delta(memory: Memory, h: Tensor, decay: Tensor | float) -> tuple[Tensor, Tensor]:
    """The delta rule (Widrow & Hoff 1960): write only what a read does not return yet; value and key, [B, H] each.

    With u = h / sqrt(|h|^2 + 1e-3): value ``u - decay * A u``, key u. No vector is longer than 1, so any eta in (0, 2) is
    stable.

    Args:
        memory: The fast weights A before the step.
        h: Hidden vectors, [B, H].
        decay: Fraction of A kept by the step.
    """
    unit = _unit(h)
    return correction(memory, unit, unit, decay), unit


def oja(memory: Memory, h: Tensor, decay: Tensor | float) -> tuple[Tensor, Tensor]:
    """Oja's rule (Oja 1982, for several outputs Oja 1989): the correction is on the key's side; value and key, [B, H] each.

    With the u of `delta`: value u, key ``u - decay * A^T u``. For the same vectors this A is the transpose of the delta rule's.

    Args:
        memory: The fast weights A before the step.
        h: Hidden vectors, [B, H].
        decay: Fraction of A kept by the step.
    """
    unit = _unit(h)
    return unit, correction(transpose(memory), unit, unit, decay)


WriteRule = Callable[[Memory, Tensor, Tensor | float], tuple[Tensor, Tensor]]

WRITE_RULES: dict[str, WriteRule] = {"hebb": hebb, "delta": delta, "oja": oja}
"""What a step writes: from the memory, h [B, H] and the decay, the value and the key of one outer product."""


def write_and_read(
    matrix: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    strengths: Tensor,
    decays: Tensor | None = None,
    episode_starts: Tensor | None = None,
    *,
    corrects: bool = True,
    chunk: int = 32,
) -> tuple[Tensor, Tensor]:
    """A sequence of T steps with N heads, each step a write and then a read: ``reads(t) = A(t) queries(t)``, with

        A(t) = decays(t) A(t-1) + strengths(t) (values(t) - decays(t) A(t-1) keys(t)) keys(t)^T

    This is the delta rule (Schlag et al. 2021), or with decays the gated delta rule (Yang et al. 2025); a memory that only sums
    lacks the correction ``- decays(t) A(t-1) keys(t)``. A chunk of steps takes a few matrix products, since its writes solve a
    triangular system (the WY form, Yang et al. 2024). A NaN spreads over all steps of its chunk, and past episode starts in it;
    only a start at the beginning of a chunk stops it.

    Args:
        matrix: A before the sequence, [B, N, V, H].
        queries: [T, B, N, H].
        keys: [T, B, N, H]; of unit length, for which any strength in (0, 2) is stable.
        values: [T, B, N, V].
        strengths: [T, B, N].
        decays: Fraction of A kept by each step, [T, B, N], 0 to 1; None is 1.
        episode_starts: Where A is 0 before the step, [T, B] bool, or None.
        corrects: Whether it is the delta rule.
        chunk: Steps taken at once; it changes speed, not numbers.

    Returns:
        The reads [T, B, N, V] and the matrix after the sequence.

    Examples:
        >>> key, value = torch.tensor([0.6, 0.8]).view(1, 1, 1, 2), torch.tensor([3.0]).view(1, 1, 1, 1)
        >>> write_and_read(torch.ones(1, 1, 1, 2), key, key, value, torch.ones(1, 1, 1))[0].item()
        3.0
    """
    steps, length, dtype = len(keys), min(chunk, len(keys)), torch.promote_types(matrix.dtype, torch.float32)
    q, k, v, b = (_in_chunks(part.to(dtype), length) for part in (queries, keys, values, strengths))
    within, carried = _left(b, decays, episode_starts, length)
    weights = within * (q @ k.mT)
    added, removed = b.unsqueeze(-1) * v, None
    if corrects:
        taken = b.unsqueeze(-1) * carried.unsqueeze(-1) * k
        added, removed = _corrected(k, b, within, torch.cat([added, taken], dim=-1)).split([v.shape[-1], k.shape[-1]], dim=-1)
    reads, A = [], matrix.to(dtype)
    for i in range(len(k)):
        if episode_starts is not None:  # not even what is not a number is left
            A = A.masked_fill(episode_starts[i * length, :, None, None, None], 0.0)
        written = added[i] if removed is None else added[i] - removed[i] @ A.mT
        reads.append(weights[i] @ written + carried[i].unsqueeze(-1) * (q[i] @ A.mT))
        A = carried[i, ..., -1:, None] * A + (within[i, ..., -1, :].unsqueeze(-1) * written).mT @ k[i]
    return torch.stack(reads).movedim(3, 1).flatten(0, 1)[:steps].to(matrix.dtype), A.to(matrix.dtype)


def recall_weights(
    queries: Tensor,
    keys: Tensor,
    strengths: Tensor,
    decays: Tensor | None = None,
    episode_starts: Tensor | None = None,
    *,
    corrects: bool = True,
) -> Tensor:
    """How much of each value is in each read of `write_and_read`, with the same arguments, [T, B, N, T].

    ``reads[t] = sum_j recall_weights[t, ..., j] * values[j]``, if A was 0 before the sequence.

    Args:
        queries: [T, B, N, H].
        keys: [T, B, N, H].
        strengths: [T, B, N].
        decays: [T, B, N], or None.
        episode_starts: [T, B] bool, or None.
        corrects: Whether it is the delta rule.
    """
    dtype = torch.promote_types(keys.dtype, torch.float32)
    q, k, b = (_in_chunks(part.to(dtype), len(keys)) for part in (queries, keys, strengths))
    within, _ = _left(b, decays, episode_starts, len(keys))
    written = torch.diag_embed(b)
    if corrects:
        written = _corrected(k, b, within, written)
    return (within * (q @ k.mT) @ written)[0].movedim(2, 0).to(keys.dtype)


def _in_chunks(part: Tensor, length: int) -> Tensor:
    """[T, B, N, ...] as chunks of C = `length` steps, [T / C, B, N, C, ...], the last filled up with zeros."""
    filled = pad_with_zeros(part, (0, 0) * (part.dim() - 1) + (0, -len(part) % length))
    return filled.unflatten(0, (-1, length)).movedim(1, 3)


def _left(strengths: Tensor, decays: Tensor | None, episode_starts: Tensor | None, length: int) -> tuple[Tensor, Tensor]:
    """What is left at each step of the writes of a chunk, [.., C, C], and of the memory before it, [.., C].

    `strengths`: [.., C], for its shape.
    """
    if decays is None:
        logs = torch.zeros_like(strengths)
    else:
        least = torch.finfo(strengths.dtype).tiny
        logs = _in_chunks(decays.to(strengths.dtype).clamp(min=least).log(), length)
    earlier = torch.ones(length, length, dtype=torch.bool, device=logs.device).tril()
    # A sum for each write, since a difference of two sums would let episodes see each other in its rounding.
    since = logs.unsqueeze(-1).masked_fill(~earlier.tril(-1), 0.0).cumsum(-2)
    if episode_starts is None:
        return since.masked_fill(~earlier, -torch.inf).exp(), logs.cumsum(-1).exp()
    episode = _in_chunks(episode_starts.unsqueeze(2).long(), length).cumsum(-1)
    own = earlier & episode.unsqueeze(-1).eq(episode.unsqueeze(-2))
    return since.masked_fill(~own, -torch.inf).exp(), logs.cumsum(-1).masked_fill(episode.gt(0), -torch.inf).exp()


def _corrected(keys: Tensor, strengths: Tensor, within: Tensor, written: Tensor) -> Tensor:
    """What the steps of a chunk write [.., C, n], less what a read of their keys returns from earlier steps."""
    if keys.shape[-2] == 1:
        return written
    given_back = strengths.unsqueeze(-1) * within * (keys @ keys.mT)
    return torch.linalg.solve_triangular(given_back, written, upper=False, unitriangular=True)


def _values(memory: Memory) -> Tensor:
    return memory.keys if memory.values is None else memory.values


def _by_row(factor: Tensor | float) -> Tensor | float:
    """A factor for each row [B] as one for rows of vectors; a number as it is."""
    return factor.unsqueeze(1) if isinstance(factor, Tensor) and factor.dim() else factor


def _unit(h: Tensor, eps: float = 1e-3) -> Tensor:
    """h over its length; eps keeps the gradient finite where all units are silent."""
    return h * torch.rsqrt(h.square().sum(dim=-1, keepdim=True) + eps)
