"""Fast weights in float64 as plain loops over Ba16 Eq. 1 to 5: every row has its own explicit matrix A.

Nothing here is shared with `fw_rl`. `MUTATIONS` are wrong readings of the paper; a test that cannot tell one of them from the
right one is worth nothing.
"""

from typing import NamedTuple

import numpy as np
import torch

MUTATIONS = {
    "layer norm over the batch": "the mean and variance of a unit over the rows instead of those of a row over the units",
    "inner loop applies W to h_0": "W h_0(t+1) + C x in place of the sustained W h(t) + C x",
    "A stores h_0": "the outer product of the preliminary vector",
    "A comes one step late": "h(t+1) reads A(t-1), which does not hold h(t) yet",
    "only the diagonal of W": "an elementwise recurrent weight",
    "layer norm on h_0": "h_0 = f(LN[W h + C x]), where the text of Eq. 2 has f(W h + C x)",
    "layer norm of the recall alone": "f(W h + C x + LN[A h_s]) in place of f(LN[W h + C x + A h_s])",
    "inner loop keeps h_0": "every inner step reads A h_0, so that the inner loop does not iterate",
    "decay of the new write": "A(t) = decay * (A(t-1) + eta * h h^T)",
    "A is not cleared": "an episode start clears h and leaves A as it was",
}


class Slow(NamedTuple):
    """The slow weights W and C with the bias, and the gain and the shift of layer normalisation."""

    W: np.ndarray
    C: np.ndarray
    bias: np.ndarray
    gain: np.ndarray
    shift: np.ndarray


def slow_weights(cell):
    """The slow weights of a `FastWeightsCell`, by its public module names."""
    arrays = [cell.recurrent_map.weight, cell.input_map.weight, cell.input_map.bias]
    if isinstance(cell.norm, torch.nn.LayerNorm):
        arrays += [cell.norm.weight, cell.norm.bias]
    else:
        arrays += [torch.ones(cell.hidden_size), torch.zeros(cell.hidden_size)]
    return Slow(*(array.detach().double().numpy() for array in arrays))


def normalise(values, eps=1e-5):
    centred = values - values.mean(axis=0)
    return centred / np.sqrt((centred**2).mean(axis=0) + eps)


def unit(h):
    return h / np.sqrt((h**2).sum() + 1e-3)


def updated(A, h, eta, decay, rule):
    """A after one step of time that stores h with the learning rate eta."""
    if rule == "hebb":
        return decay * A + eta * np.outer(h, h)
    u = unit(h)
    if rule == "delta":
        return decay * A + eta * np.outer(u - decay * A @ u, u)
    if rule == "oja":
        return decay * A + eta * np.outer(u, u - decay * A.T @ u)
    raise AssertionError(rule)


def fast_weights(
    slow,
    x,
    *,
    eta=0.5,
    decay=0.95,
    inner_steps=1,
    layer_norm=True,
    method=1,
    rule="hebb",
    activation="relu",
    episode_starts=None,
    write_gate=None,
    wipe=None,
    mutation=None,
):
    """Every h(t) [T, B, H], and h [B, H] and A [B, H, H] after the last step, for x [T, B, I]."""
    assert mutation is None or mutation in MUTATIONS, mutation
    f = {"relu": lambda z: np.maximum(z, 0.0), "tanh": np.tanh}[activation]
    steps, rows, size = len(x), range(x.shape[1]), len(slow.W)
    W = np.diag(np.diag(slow.W)) if mutation == "only the diagonal of W" else slow.W

    def LN(row):
        return slow.gain * normalise(row) + slow.shift if layer_norm else row

    h = [np.zeros(size) for _ in rows]
    A = [np.zeros((size, size)) for _ in rows]
    late_A = [np.zeros((size, size)) for _ in rows]
    y = np.zeros((steps, len(rows), size))
    for t in range(steps):
        for b in rows:
            if episode_starts is not None and episode_starts[t, b]:
                h[b] = np.zeros(size)
                if mutation != "A is not cleared":
                    A[b], late_A[b] = np.zeros((size, size)), np.zeros((size, size))

        boundary = [W @ h[b] + slow.C @ x[t, b] + slow.bias for b in rows]
        h_0 = [f(LN(boundary[b])) if mutation == "layer norm on h_0" else f(boundary[b]) for b in rows]
        h_s = list(h_0)
        for _ in range(inner_steps):
            sustained, recalled = [], []
            for b in rows:
                held = boundary[b]
                if method == 2:
                    held = h_s[b]
                elif mutation == "inner loop applies W to h_0":
                    held = W @ h_0[b] + slow.C @ x[t, b] + slow.bias
                query = h_0[b] if mutation == "inner loop keeps h_0" else h_s[b]
                sustained.append(held)
                recalled.append((late_A[b] if mutation == "A comes one step late" else A[b]) @ query)
            total = [sustained[b] + recalled[b] for b in rows]
            if mutation == "layer norm over the batch" and layer_norm:
                total = list(slow.gain * normalise(np.array(total)) + slow.shift)
            elif mutation == "layer norm of the recall alone":
                total = [sustained[b] + LN(recalled[b]) for b in rows]
            else:
                total = [LN(total[b]) for b in rows]
            h_s = [f(total[b]) for b in rows]

        for b in rows:
            h[b] = y[t, b] = h_s[b]
            stored = h_0[b] if mutation == "A stores h_0" else h[b]
            strength = eta if write_gate is None else eta * float(write_gate[t, b])
            late_A[b] = A[b]
            A[b] = updated(A[b], stored, strength * decay if mutation == "decay of the new write" else strength, decay, rule)
            if wipe is not None and wipe[t, b]:
                h[b] = np.zeros(size)
    return y, np.array(h), np.array(A)


def explicit(keys, strengths, values=None, matrix=None, faded=None):
    """A [B, H, H] of a memory held as pending writes and a matrix: faded * matrix + sum_j strength_j * value_j key_j^T."""
    keys, strengths = (part.detach().double().numpy() for part in (keys, strengths))
    values = keys if values is None else values.detach().double().numpy()
    rows, pending, size = keys.shape
    A = np.zeros((rows, size, size))
    for b in range(rows):
        if matrix is not None:
            A[b] += faded[b].item() * matrix[b].detach().double().numpy()
        for j in range(pending):
            A[b] += strengths[b, j] * np.outer(values[b, j], keys[b, j])
    return A


def rand(*shape, seed=0):
    """Normal numbers in float64, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scrambled(cell, seed=0, scale=0.5):
    """The cell in float64 with random slow weights, so that nothing is diagonal, zero or one by its initialisation."""
    generator = torch.Generator().manual_seed(seed)
    cell = cell.double()
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            if name not in ("log_eta", "logit_decay"):
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
                if name == "norm.weight":
                    parameter.add_(1.0)
    return cell
