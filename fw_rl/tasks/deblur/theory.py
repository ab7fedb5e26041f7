"""The theory of HP87 §5: transfer between associations in a linear net without hidden units, by formula and by Monte Carlo.

The net has learned each association perfectly, and then noise g has been added to its weights: it misses by a . g for an input
a, and the direction of steepest descent is -(a . g) a.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

__all__ = ["Inputs", "descent_cosine", "expected_cosine", "expected_ratio", "expected_transfer", "mean_transfer"]


@dataclass(frozen=True)
class Inputs:
    """Random input vectors of length n; a component is 1 with probability p, -1 with the same if `signed`, and 0 otherwise."""

    n: int
    p: float
    signed: bool = False

    def draw(self, *shape: int, generator: torch.Generator) -> Tensor:
        """Vectors, [*shape, n]."""
        u = torch.rand(*shape, self.n, generator=generator, dtype=torch.float64)
        ones = (u < self.p).double()
        return ones - (u > 1 - self.p).double() if self.signed else ones


def descent_cosine(a: Tensor, b: Tensor, noise: Tensor) -> Tensor:
    """The cosine of the angle between the directions of steepest descent for inputs a and b [..., n], [...] (HP87 Eq. 1).

    It is the ratio of two improvements of b by a step of fixed length: by retraining a, and by retraining b itself.
    """
    return cosine_similarity(a, b, dim=-1) * torch.sign((a * noise).sum(-1) * (b * noise).sum(-1))


def expected_transfer(a: Tensor, b: Tensor) -> Tensor:
    """The squared cosine of the angle between two inputs, [...]: HP87 Eq. 2, n_ab^2 / (n_a n_b), and Eq. 3 with -1.

    It is the ratio of the expected improvements, where the weight change is proportional to the gradient.
    """
    return cosine_similarity(a, b, dim=-1).square()


def expected_cosine(a: Tensor, b: Tensor) -> Tensor:
    """The exact mean of Eq. 1 over Gaussian noise, ``2/pi c asin(c)`` with c the cosine of the angle between the inputs, [...].

    HP87 goes from Eq. 1 to c^2, which is not its mean, but the ratio of the expected improvements (footnote 2 of the paper).
    """
    cosine = cosine_similarity(a, b, dim=-1)
    return 2 / math.pi * cosine * torch.asin(cosine.clamp(-1, 1))


def mean_transfer(inputs: Inputs) -> float:
    """The transfer between two random associations, ``E[(a . b)^2] / E[|a|^4]``: of order 1/n with -1, else near p^2 (§5.2)."""
    n, p = inputs.n, inputs.p
    if inputs.signed:
        return 4 * p**2 * n / (2 * p * (1 - 2 * p) * n + 4 * p**2 * n**2)
    return (n * p**2 * (1 - p**2) + n**2 * p**4) / (n * p * (1 - p) + n**2 * p**2)


def measure_transfer(inputs: Inputs, pairs: int, generator: torch.Generator) -> float:
    """`mean_transfer` by Monte Carlo over pairs of inputs."""
    a, b = inputs.draw(2, pairs, generator=generator)
    lengths = torch.cat([a, b]).square().sum(1)
    return ((a * b).sum(1).square().mean() / lengths.square().mean()).item()


def expected_ratio(transfer: float, retrained: int) -> float:
    """Improvement of an unretrained over that of one of k retrained associations: ``k t / (1 + (k - 1) t)`` (HP87 §5.1)."""
    return retrained * transfer / (1 + (retrained - 1) * transfer)


def check_pairs(inputs: Inputs, pairs: int, noises: int, generator: torch.Generator) -> dict[str, float]:
    """Means over random pairs of Eq. 2 or 3 and of Eq. 1, and the standard error of the difference to Monte Carlo over noises.

    A pair with a zero vector, of which nothing can be learned, is drawn again.
    """
    rows: list[Tensor] = []
    while len(rows) < pairs:
        a, b = inputs.draw(2, generator=generator)
        if a.any() and b.any():
            noise = torch.randn(noises, inputs.n, generator=generator, dtype=a.dtype)
            miss_a, miss_b = noise @ a, noise @ b
            product = (miss_a * miss_b).mean() * (a @ b)  # of the gradients miss_a * a and miss_b * b
            lengths = miss_a.square().mean() * (a @ a) * miss_b.square().mean() * (b @ b)
            transfer = product / lengths.sqrt()
            cosine = descent_cosine(a, b, noise).mean()
            rows.append(torch.stack([expected_transfer(a, b), transfer, expected_cosine(a, b), cosine]))
    table = torch.stack(rows)
    means = table.mean(0).tolist()
    errors = ((table[:, [1, 3]] - table[:, [0, 2]]).std(0) / math.sqrt(len(table))).tolist()
    transfer = dict(transfer_formula=means[0], transfer_measured=means[1], transfer_error=errors[0])
    return transfer | dict(cosine_formula=means[2], cosine_measured=means[3], cosine_error=errors[1])


class Fall(NamedTuple):
    """Errors E of an association of each kind, [time, runs], and how fast the two fall per infinitesimal step, [2, runs]."""

    retrained: Tensor
    unretrained: Tensor
    slopes: Tensor

    def start_ratio(self) -> float:
        """Expected improvement of an unretrained over that of a retrained association, before the first step."""
        retrained, unretrained = self.slopes.mean(1).tolist()
        return unretrained / retrained

    def ratios(self) -> Tensor:
        """The same for what has improved since the start, [time - 1]."""
        retrained, unretrained = self.retrained.mean(1), self.unretrained.mean(1)
        return (unretrained[0] - unretrained[1:]) / (retrained[0] - retrained[1:])


def rehearse_linear(inputs: Inputs, cases: int, retrained: int, sweeps: int, runs: int, generator: torch.Generator) -> Fall:
    """Retrain linear nets with noise in their weights on some of their random associations, by short steps of descent."""
    x = inputs.draw(runs, cases, generator=generator)
    noise = torch.randn(runs, inputs.n, 1, generator=generator, dtype=x.dtype)
    shown = x[:, :retrained]
    lr = 0.2 / torch.linalg.matrix_norm(shown @ shown.mT)[:, None, None]
    errors = []
    for sweep in range(sweeps + 1):
        miss = x @ noise
        gradient = shown.mT @ miss[:, :retrained]
        if sweep == 0:
            slopes = _means(miss * (x @ gradient), retrained)
        errors.append(_means(miss.square() / 2, retrained))
        noise = noise - lr * gradient
    of_retrained, of_unretrained = torch.stack(errors, dim=1)
    return Fall(of_retrained, of_unretrained, slopes)


def _means(values: Tensor, retrained: int) -> Tensor:
    """The means over retrained and over other cases, [2, runs], of values [runs, cases, 1]."""
    return torch.stack([values[:, :retrained].mean((1, 2)), values[:, retrained:].mean((1, 2))])


class Plane:
    """The weight space of HP87 Figures 3 and 4, for two associations of an input [2] with one linear output unit.

    The path [sweeps + 1, 2] of gradient descent on both ends at the solution [2], which satisfies both.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, start: Tensor, sweeps: int = 2000, lr: float = 0.2) -> None:
        self.inputs, self.targets = inputs.double(), targets.double()
        path = [start.double()]
        for _ in range(sweeps):
            path.append(path[-1] - lr * self.inputs.T @ (self.inputs @ path[-1] - self.targets))
        self.path = torch.stack(path)
        self.solution = self.path[-1]

    def circle(self, radius: float, points: int) -> Tensor:
        """Weights with noise of one length in all directions, [points, 2]."""
        angles = torch.arange(points, dtype=torch.float64) * (2 * math.pi / points)
        return self.solution + radius * torch.stack([angles.cos(), angles.sin()], dim=1)

    def retrain(self, weights: Tensor, sweeps: int, lr: float) -> Tensor:
        """Weights during gradient descent on association 1 alone, [sweeps + 1, points, 2]."""
        a, target = self.inputs[0], self.targets[0]
        path = [weights]
        for _ in range(sweeps):
            path.append(path[-1] - lr * (path[-1] @ a - target).unsqueeze(1) * a)
        return torch.stack(path)

    def transfers(self, weights: Tensor) -> Tensor:
        """Whether retraining on association 1, from points [..., 2], improves association 2 too."""
        miss = weights @ self.inputs.T - self.targets
        return miss[..., 0] * miss[..., 1] * (self.inputs[0] @ self.inputs[1]) > 0

    def probability(self, left: Tensor) -> Tensor:
        """The share of the circle from which transfer is positive when `left` of the error on association 1 is left.

        With theta the angle between the two inputs it is ``1/2 + atan(left |cot theta|) / pi``: 1 - theta/pi on the circle (for
        an acute angle), and 1/2 when association 1 is restored, with the points between on the ellipses of HP87 §5.3.
        """
        cosine = cosine_similarity(self.inputs[0], self.inputs[1], dim=0).abs()
        return 0.5 + torch.atan(left * cosine / (1 - cosine.square()).sqrt()) / math.pi
