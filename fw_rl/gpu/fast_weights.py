"""The net with fast weights on a GPU: its steps, with their gradient, around the kernels of `fast_weights_kernels`.

Tensors of a sequence are [.., B, H], with time first. `first_steps` [T, B] says where the episode of a step began, -1 for
before the sequence, and `cut` [T, B] where h(t-1) is zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from fw_rl.gpu.fast_weights_kernels import run_back, run_forward
from fw_rl.kernels import first_derivative

__all__ = ["Options", "Past", "run"]


class Options(NamedTuple):
    """Options of `FastWeightsCell` by its names; `eps` is None without a layer norm, and a write lasts `lasting` steps."""

    inner_steps: int
    eps: float | None
    norm_placement: str
    method: int
    rule: str
    activation: str
    lasting: int


class Past(NamedTuple):
    """What was written before a sequence: values and keys [P, B, H], strengths [P, B], and a matrix and what remains of it."""

    values: Tensor
    keys: Tensor
    strengths: Tensor
    matrix: Tensor | None
    faded: Tensor | None


def run(
    driven: Tensor,
    weights: tuple[Tensor, Tensor | None, Tensor | None],
    h: Tensor,
    past: Past,
    write: Tensor,
    decay: Tensor,
    first_steps: Tensor,
    cut: Tensor,
    options: Options,
) -> tuple[Tensor, Tensor, Tensor]:
    """Every h(t) of a sequence, and the values and keys that it wrote, [T, B, H] each.

    `driven` is C x + bias, `weights` are W and gain and bias of the layer norm, `write` [T, B] is the strength of each write.
    """
    y, values, keys = _FastWeights.apply(driven, *weights, h, *past, write, decay, first_steps, cut, options)
    return y, y if values is None else values, y if keys is None else keys


class _FastWeights(torch.autograd.Function):
    """`run`; with Hebb's rule it gives only h(t)."""

    @staticmethod
    def forward(
        ctx: Any,
        driven: Tensor,
        recurrent: Tensor,
        gain: Tensor | None,
        bias: Tensor | None,
        h: Tensor,
        values: Tensor,
        keys: Tensor,
        strengths: Tensor,
        matrix: Tensor | None,
        faded: Tensor | None,
        write: Tensor,
        decay: Tensor,
        first_steps: Tensor,
        cut: Tensor,
        options: Options,
    ) -> tuple[Tensor | None, ...]:
        driven, recurrent, h, first_steps, cut = (part.contiguous() for part in (driven, recurrent, h, first_steps, cut))
        matrix, faded = (None if part is None else part.contiguous() for part in (matrix, faded))
        steps, corrects, is_kept = len(driven), options.rule != "hebb", any(ctx.needs_input_grad)
        hidden = torch.cat([h.unsqueeze(0), driven.new_empty(driven.shape)])
        all_keys = torch.cat([keys, driven.new_empty(driven.shape)])
        all_values = torch.cat([values, driven.new_empty(driven.shape)]) if corrects else all_keys
        all_strengths = torch.cat([strengths, write])
        powers = decay.detach() ** torch.arange(max(steps, 2), device=driven.device)
        queries = driven.new_empty(steps, options.inner_steps + corrects, *driven.shape[1:])
        trace = (torch.empty_like(driven), torch.empty_like(queries)) if is_kept else (None, None)
        given = (recurrent, gain, bias, matrix, faded, all_strengths, powers, first_steps, cut)
        memory = _oriented(options.rule, all_values, all_keys)
        with torch.cuda.device_of(driven):
            run_forward[(driven.shape[1],)](
                driven, *given, hidden, *memory, queries, *trace, **_settings(driven, len(keys), options)
            )
        if is_kept:
            ctx.save_for_backward(*given, hidden, all_values, all_keys, queries, *trace)
            ctx.options = options
        written = (all_values[len(keys) :], all_keys[len(keys) :]) if corrects else (None, None)
        return hidden[1:], *written

    @staticmethod
    @first_derivative
    def backward(ctx: Any, d_y: Tensor, d_values: Tensor | None, d_keys: Tensor | None) -> tuple[Tensor | None, ...]:
        *given, hidden, values, keys, queries, boundary, recalled = ctx.saved_tensors
        _, gain, _, matrix, faded, strengths, powers, first_steps, cut = given
        options: Options = ctx.options
        pending, learns_decay = len(keys) - len(d_y), ctx.needs_input_grad[11]
        if options.rule == "oja":  # the gradient of its correction is on the side of the queries
            queries = queries.clone()
        d_recalls, d_boundary, d_h = torch.empty_like(queries), torch.empty_like(boundary), torch.empty_like(hidden[0])
        d_gain, d_bias = (None, None) if gain is None else d_h.new_zeros(2, *d_h.shape)
        d_write, d_decay = strengths.new_empty(d_y.shape[:2]), strengths.new_zeros(len(d_h)) if learns_decay else None
        d_written: tuple[Any, ...] = (None, None)
        if options.rule != "hebb":
            d_written = tuple(part.contiguous() for part in _oriented(options.rule, d_values, d_keys)[2:])
        memory, sources = _oriented(options.rule, values, keys), _oriented(options.rule, d_recalls, queries)
        found = (d_boundary, d_h, d_gain, d_bias, d_write, d_decay)
        with torch.cuda.device_of(hidden):
            run_back[(len(d_h),)](
                *given[:2], *given[3:], hidden, *memory, *sources, boundary, recalled, d_y.contiguous(), *d_written, *found,
                **_settings(d_boundary, pending, options),
            )  # fmt: skip
        before = hidden[:-1].masked_fill(cut.unsqueeze(2), 0.0)
        d_recurrent = d_boundary.flatten(0, 1).T @ before.flatten(0, 1)
        d_past: tuple[Tensor | None, ...] = (None,) * 5
        if any(ctx.needs_input_grad[5:10]):
            past = Past(values[:pending], keys[:pending], strengths[:pending], matrix, faded)
            d_past = _back_to_past(past, d_recalls, queries, powers, first_steps)
        d_norm = [None if part is None else part.sum(0) for part in (d_gain, d_bias)]
        d_rate = None if d_decay is None else d_decay.sum() / powers[1]
        return d_boundary, d_recurrent, *d_norm, d_h, *d_past, d_write, d_rate, None, None, None


def _oriented(rule: str, values: Any, keys: Any) -> tuple[Any, ...]:
    """Values and keys, then errors and units, which are the same in some order; see `fast_weights_kernels`."""
    return values, keys, *((keys, values) if rule == "oja" else (values, keys))


def _settings(driven: Tensor, pending: int, options: Options) -> dict[str, Any]:
    """The arguments of both kernels after their tensors."""
    steps, rows, size = driven.shape
    units = max(triton.next_power_of_2(size), 16)
    return dict(
        steps=steps,
        rows=rows,
        size=size,
        pending=pending,
        lasting=options.lasting,
        inner_steps=options.inner_steps,
        EPS=options.eps,
        PLACEMENT=options.norm_placement,
        KEEPS_BOUNDARY=options.method == 1,
        RULE=options.rule,
        TANH=options.activation == "tanh",
        UNITS=units,
        TILE=max(min(16, 8192 // units), 1),
        num_warps=4 if units <= 128 else 8,
    )


def _back_to_past(
    past: Past, d_recalls: Tensor, queries: Tensor, powers: Tensor, first_steps: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of what was written before the sequence, from those of the reads, by D [B, H, H] at its beginning."""
    faded_recalls = powers[: len(first_steps), None, None, None] * d_recalls
    sent, asked = (part.masked_fill(first_steps[:, None, :, None] >= 0, 0.0) for part in (faded_recalls, queries))
    D = torch.einsum("tsbv,tsbk->bvk", sent, asked)
    along_keys, along_values = torch.einsum("bvk,pbk->pbv", D, past.keys), torch.einsum("bvk,pbv->pbk", D, past.values)
    d_strengths, strengths = (past.values * along_keys).sum(2), past.strengths.unsqueeze(2)
    if past.matrix is None or past.faded is None:
        return strengths * along_keys, strengths * along_values, d_strengths, None, None
    d_matrix, d_faded = past.faded[:, None, None] * D, (past.matrix * D).sum((1, 2))
    return strengths * along_keys, strengths * along_values, d_strengths, d_matrix, d_faded
