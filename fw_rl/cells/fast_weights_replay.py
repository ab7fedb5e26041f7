"""The fast-weight recurrence over a sequence whose hidden vectors are known, with a backward pass written by hand.

The steps of the net depend on each other through h(1), h(2), ... only. Once these are known, as after acting, every step of the
forward pass is independent of the others, and a whole sequence takes a few large matrix products. What stays sequential is the
way back. For Hebb's rule, where A is symmetric, with q the query of a read and dr = d loss / d (A q), it goes from the last
step to the first by

    d q(t)  =  A(t-1) dr(t)
    d h(t)  =  W^T d boundary(t+1)  +  sum_{t' > t} weight(t', t) [ (h(t) . q(t')) dr(t')  +  (h(t) . dr(t')) q(t') ]

with weight(t', t) = eta * decay**(t' - 1 - t). Products with A are attention reads (Ba16 Eq. 4): no matrix [H, H] is ever
built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fw_rl.memory import Memory

__all__ = ["Recurrence", "Replay"]


class Recurrence(NamedTuple):
    """The constants of a fast-weight net: Ba16 Eq. 1 and 5 with Hebb's rule."""

    eta: float
    decay: float
    inner_steps: int
    activation: str
    norm_eps: float | None


class Replay(torch.autograd.Function):
    """The outputs [T, B, H] of a fast-weight net, with their gradient to `driven`, W and the layer normalisation.

    Arguments of `Replay.apply`: `driven`, C x + bias, [T, B, H]. `recurrent_weight`, W. `norm_gain`, `norm_bias`: of the layer
    normalisation, or None. `outputs`: every h(t) as the net gave it for this input, these parameters and the state (`h` [B, H],
    `fast`) before the sequence. `episode_starts`: [T, B] bool, or None. `recurrence`: the constants.

    Time comes first everywhere, so that what a step reads and writes lies together; a product over rows sees it batch first.
    """

    @staticmethod
    def forward(
        ctx: Any,
        driven: Tensor,
        recurrent_weight: Tensor,
        norm_gain: Tensor | None,
        norm_bias: Tensor | None,
        outputs: Tensor,
        h: Tensor,
        fast: Memory,
        episode_starts: Tensor | None,
        recurrence: Recurrence,
    ) -> Tensor:
        steps, _, size = driven.shape
        before = torch.cat([h.unsqueeze(0), outputs[:-1]])
        if episode_starts is not None:
            before = before.masked_fill(episode_starts.unsqueeze(2), 0.0)
        keys = torch.cat([fast.keys.transpose(0, 1), outputs]) if fast.keys.shape[1] else outputs
        weights, matrix_weights = _read_weights(fast, episode_starts, steps, recurrence)

        boundary = F.linear(before, recurrent_weight).add_(driven)
        queries = [_activate(boundary, recurrence)]
        scores, sums, means, scales = [], [], [], []
        for _ in range(recurrence.inner_steps):
            score = torch.bmm(_rows(queries[-1]), _rows(keys).mT).mul_(weights)
            summed = torch.bmm(score, _rows(keys)).transpose(0, 1).add(boundary)
            if fast.matrix.shape[1]:
                summed += (torch.bmm(_rows(queries[-1]), fast.matrix.mT) * matrix_weights).transpose(0, 1)
            sums.append(summed)
            if recurrence.norm_eps is not None:
                summed, mean, scale = torch.native_layer_norm(summed, [size], norm_gain, norm_bias, recurrence.norm_eps)
                means.append(mean)
                scales.append(scale)
            queries.append(_activate(summed, recurrence))
            scores.append(score)

        ctx.recurrence, ctx.pending = recurrence, fast.keys.shape[1]
        ctx.save_for_backward(
            recurrent_weight, norm_gain, norm_bias, before, keys, weights, matrix_weights, fast.matrix, episode_starts,
            *queries, *scores, *sums, *means, *scales,
        )  # fmt: skip
        return outputs.clone()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        weight, gain, bias, before, keys, weights, matrix_weights, matrix, starts, *saved = ctx.saved_tensors
        recurrence, pending, inner = ctx.recurrence, ctx.pending, ctx.recurrence.inner_steps
        queries, scores, sums = saved[: inner + 1], saved[inner + 1 : 2 * inner + 1], saved[2 * inner + 1 : 3 * inner + 1]
        means, scales = saved[3 * inner + 1 : 4 * inner + 1], saved[4 * inner + 1 :]
        steps, batch, size = d_outputs.shape
        slope, has_norm = _SLOPES[recurrence.activation], recurrence.norm_eps is not None

        d_boundary = torch.zeros_like(d_outputs)
        d_normed = d_outputs.new_empty(inner, steps, batch, size)
        # What later reads send back to h(t): the pair of vectors (dr, q) of each, with two coefficients for every key.
        sources = d_outputs.new_empty(steps, inner, 2, batch, size)
        coefficients = d_outputs.new_empty(len(keys), batch, steps, inner, 2)
        for s in range(inner):
            sources[:, s, 1] = queries[s]
            coefficients[..., s, 0] = scores[s].permute(2, 0, 1)

        d_h = d_outputs[-1]
        for t in reversed(range(steps)):
            past = _rows(keys[: pending + t])
            d_query = d_h
            for s in reversed(range(inner)):
                d_summed = slope(d_query, queries[s + 1][t])
                if has_norm:
                    d_normed[s, t] = d_summed
                    d_summed = torch.ops.aten.native_layer_norm_backward(
                        d_summed, sums[s][t], [size], means[s][t], scales[s][t], gain, bias, [True, False, False]
                    )[0]
                sources[t, s, 0] = d_summed
                attended = torch.bmm(d_summed.unsqueeze(1), past.mT).squeeze(1) * weights[:, t, : pending + t]
                coefficients[: pending + t, :, t, s, 1] = attended.T
                d_query = torch.bmm(attended.unsqueeze(1), past).squeeze(1)
                if matrix.shape[1]:
                    d_query += torch.bmm(d_summed.unsqueeze(1), matrix).squeeze(1) * matrix_weights[:, t]
                d_boundary[t] += d_summed
            d_boundary[t] += slope(d_query, queries[0][t])
            if t > 0:
                d_before = d_boundary[t] if starts is None else d_boundary[t].masked_fill(starts[t].unsqueeze(1), 0.0)
                d_h = torch.addmm(d_outputs[t - 1], d_before, weight)
                later = coefficients[pending + t - 1, :, t:].view(batch, 1, -1)
                d_h = torch.baddbmm(d_h.unsqueeze(1), later, _rows(sources[t:].view(-1, batch, size))).squeeze(1)

        d_weight = d_boundary.flatten(0, 1).T @ before.flatten(0, 1)
        d_gain = d_bias = None
        for s in range(inner if has_norm else 0):
            _, of_gain, of_bias = torch.ops.aten.native_layer_norm_backward(
                d_normed[s], sums[s], [size], means[s], scales[s], gain, bias, [False, True, True]
            )
            d_gain = of_gain if d_gain is None else d_gain + of_gain
            d_bias = of_bias if d_bias is None else d_bias + of_bias
        return d_boundary, d_weight, d_gain, d_bias, None, None, None, None, None


def _rows(sequence: Tensor) -> Tensor:
    """[T, B, H] as [B, T, H]."""
    return sequence.transpose(0, 1)


def _read_weights(fast: Memory, episode_starts: Tensor | None, steps: int, recurrence: Recurrence) -> tuple[Tensor, Tensor]:
    """What decay leaves at each step of each write, [B, T, K + T] ([1, ...] if alike for all rows), and of the matrix, [B, T,
    1].

    A step reads the writes of earlier steps of the same episode.
    """
    like, pending = fast.strengths, fast.keys.shape[1]
    clock = torch.arange(steps, device=like.device)
    age = clock[:, None] - 1 - clock
    own = recurrence.eta * recurrence.decay ** age.clamp(min=0).to(like.dtype) * (age >= 0)
    own = own.unsqueeze(0)
    faded = (recurrence.decay ** clock.to(like.dtype))[None, :, None]
    older = fast.strengths.unsqueeze(1) * faded
    matrix = faded * recurrence.decay**pending
    if episode_starts is not None:
        episode = episode_starts.T.cumsum(1)
        first = (episode == 0).unsqueeze(2)
        own = own * (episode.unsqueeze(2) == episode.unsqueeze(1))
        older, matrix = older * first, matrix * first
    return (torch.cat([older, own.expand(len(older), -1, -1)], dim=2) if pending else own), matrix


def _activate(x: Tensor, recurrence: Recurrence) -> Tensor:
    return torch.relu(x) if recurrence.activation == "relu" else torch.tanh(x)


# From the gradient after an activation and its output, the gradient before it.
_SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda gradient, output: torch.ops.aten.threshold_backward(gradient, output, 0),
    "tanh": torch.ops.aten.tanh_backward,
}
