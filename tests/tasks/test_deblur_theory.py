"""HP87 §5: the formulas on small cases that can be counted by hand, and beside Monte Carlo."""

import itertools
import math

import pytest
import torch

from fw_rl.tasks.deblur import theory
from fw_rl.tasks.deblur.theory import Inputs, Plane


def vector(*components):
    return torch.tensor(components, dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_equation_2_counts_ones():
    a, b = vector(1, 1, 1, 0, 0, 1), vector(1, 0, 1, 1, 0, 0)
    assert theory.expected_transfer(a, b).item() == pytest.approx(2**2 / (4 * 3))


def test_equation_3_counts_agreements_and_disagreements():
    a, b = vector(1, -1, 1, 0, -1), vector(1, 1, 1, -1, -1)
    assert theory.expected_transfer(a, b).item() == pytest.approx((3 - 1) ** 2 / (4 * 5))


def test_equation_1_is_the_cosine_of_two_gradients():
    a, b, noise = vector(1, 0, 1, 1), vector(0, 1, 1, 1), torch.randn(20, 4, generator=seeded(), dtype=torch.float64)
    for g in noise:
        gradients = []
        for x in (a, b):
            weights = g.clone().requires_grad_()
            gradients.append(torch.autograd.grad((x @ weights).square() / 2, weights)[0])
        cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0).item()
        assert theory.descent_cosine(a, b, g).item() == pytest.approx(cosine)


def test_the_mean_of_equation_1_is_not_equation_2():
    a, b = vector(1, 1, 0), vector(1, 0, 1)
    cosines = theory.descent_cosine(a, b, torch.randn(200_000, 3, generator=seeded(), dtype=torch.float64))
    assert theory.expected_cosine(a, b).item() == pytest.approx(0.5 / 3)
    assert cosines.mean().item() == pytest.approx(0.5 / 3, abs=4 * 0.5 / math.sqrt(200_000))
    assert theory.expected_transfer(a, b).item() == pytest.approx(0.25)


@pytest.mark.parametrize("inputs", [Inputs(4, 0.5), Inputs(3, 0.3), Inputs(3, 0.25, signed=True)])
def test_mean_transfer_is_the_sum_over_all_inputs(inputs):
    chances = {1: inputs.p, 0: 1 - inputs.p}
    if inputs.signed:
        chances = {1: inputs.p, -1: inputs.p, 0: 1 - 2 * inputs.p}
    vectors = [(v, math.prod(chances[c] for c in v)) for v in itertools.product(chances, repeat=inputs.n)]
    product = sum(p * q * sum(x * y for x, y in zip(a, b, strict=True)) ** 2 for a, p in vectors for b, q in vectors)
    length = sum(p * sum(x * x for x in a) ** 2 for a, p in vectors)
    assert theory.mean_transfer(inputs) == pytest.approx(product / length)


def test_limits_of_the_paper():
    assert theory.mean_transfer(Inputs(100_000, 0.5)) == pytest.approx(0.25, rel=1e-4)
    for p in (0.1, 0.25, 0.4):
        assert theory.mean_transfer(Inputs(100_000, p, signed=True)) == pytest.approx(1 / 100_000, rel=1e-3)
    assert theory.expected_ratio(0.25, 50) == pytest.approx(0.943, abs=5e-4)
    assert theory.expected_ratio(0.25, 1) == 0.25


def test_random_inputs_have_their_densities():
    draws = Inputs(50, 0.3).draw(2000, generator=seeded())
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert draws.mean().item() == pytest.approx(0.3, abs=0.01)
    draws = Inputs(50, 0.2, signed=True).draw(2000, generator=seeded())
    assert set(draws.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert (draws == 1).double().mean().item() == pytest.approx(0.2, abs=0.01)
    assert (draws == -1).double().mean().item() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("inputs", [Inputs(10, 0.5), Inputs(30, 0.25), Inputs(30, 0.25, signed=True)])
def test_monte_carlo_agrees_with_equations_2_and_3(inputs):
    check = theory.check_pairs(inputs, pairs=60, noises=300, generator=seeded())
    assert abs(check["transfer_measured"] - check["transfer_formula"]) < 4 * check["transfer_error"]
    assert abs(check["cosine_measured"] - check["cosine_formula"]) < 4 * check["cosine_error"]
    assert 0 < check["transfer_error"] < 0.02
    # The two are different quantities, further apart than the noise.
    assert check["transfer_formula"] - check["cosine_formula"] > 5 * check["cosine_error"]


def test_zero_vectors_are_drawn_again():
    check = theory.check_pairs(Inputs(2, 0.5), pairs=100, noises=10, generator=seeded())
    assert all(math.isfinite(number) for number in check.values())


@pytest.mark.parametrize("inputs", [Inputs(20, 0.5), Inputs(20, 0.25, signed=True)])
def test_transfer_of_random_pairs(inputs):
    assert theory.measure_transfer(inputs, 100_000, seeded()) == pytest.approx(theory.mean_transfer(inputs), rel=0.02)


@pytest.mark.parametrize("inputs, cases", [(Inputs(60, 0.5), 100), (Inputs(40, 0.25, signed=True), 40)])
def test_the_ratio_at_the_start_is_the_expected_one(inputs, cases):
    fall = theory.rehearse_linear(inputs, cases, cases // 2, 0, 2000, seeded())
    assert fall.start_ratio() == pytest.approx(theory.expected_ratio(theory.mean_transfer(inputs), cases // 2), rel=0.03)


def test_retraining_a_linear_net_lowers_errors_and_its_transfer_falls():
    fall = theory.rehearse_linear(Inputs(40, 0.5), 40, 20, 60, 300, seeded())
    error = fall.retrained.mean(1)
    assert (error.diff() < 0).all()
    ratios = fall.ratios()
    assert ratios[0].item() == pytest.approx(fall.start_ratio(), rel=0.02)
    assert (ratios.diff() < 0).all()
    assert ratios[-1] < 0.9 * ratios[0]


def test_slopes_are_those_of_the_errors():
    """A short step lowers the errors by what the slopes say."""
    inputs, cases, retrained = Inputs(6, 0.5), 5, 2
    fall = theory.rehearse_linear(inputs, cases, retrained, 0, 3, seeded(4))
    generator = seeded(4)
    x = inputs.draw(3, cases, generator=generator)
    noise = torch.randn(3, 6, 1, generator=generator, dtype=x.dtype)
    step = 1e-7
    moved = noise - step * x[:, :retrained].mT @ (x[:, :retrained] @ noise)
    gains = ((x @ noise).square() - (x @ moved).square()).squeeze(2) / 2 / step
    expected = torch.stack([gains[:, :retrained].mean(1), gains[:, retrained:].mean(1)])
    torch.testing.assert_close(fall.slopes, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def plane():
    return Plane(vector(1.0, 0.25, 0.6, 1.0).view(2, 2), vector(0.8, 0.9), vector(-0.6, -0.3))


def test_learning_both_associations_ends_where_their_lines_meet(plane):
    torch.testing.assert_close(plane.inputs @ plane.solution, plane.targets)


def test_retraining_moves_points_perpendicularly_towards_the_line(plane):
    path = plane.retrain(plane.circle(0.5, 12), sweeps=200, lr=0.1)
    assert torch.allclose((path[0] - plane.solution).norm(dim=1), torch.tensor(0.5, dtype=torch.float64))
    moves = (path[-1] - path[0]) / plane.inputs[0]
    torch.testing.assert_close(moves[:, 0], moves[:, 1])
    assert (path[-1] @ plane.inputs[0] - plane.targets[0]).abs().max() < 1e-6


def test_positive_transfer_means_that_a_short_step_helps_the_other(plane):
    points = plane.circle(0.5, 36)
    stepped = plane.retrain(points, sweeps=1, lr=1e-6)[1]
    misses = [(part @ plane.inputs[1] - plane.targets[1]).abs() for part in (points, stepped)]
    assert torch.equal(plane.transfers(points), misses[1] < misses[0])


@pytest.mark.parametrize("second", [(0.6, 1.0), (-0.6, 1.0), (1.0, 0.5)])
def test_the_share_of_positive_transfer_is_the_formula(second):
    plane = Plane(vector(1.0, 0.25, *second).view(2, 2), vector(0.8, 0.9), vector(0.0, 0.0))
    path = plane.retrain(plane.circle(0.3, 3600), sweeps=10, lr=0.1)
    misses = (path @ plane.inputs[0] - plane.targets[0]).abs().amax(1)
    torch.testing.assert_close(
        plane.transfers(path).double().mean(1), plane.probability(misses / misses[0]), rtol=0, atol=0.002
    )


def test_on_the_circle_it_is_one_minus_the_angle(plane):
    angle = torch.acos(torch.nn.functional.cosine_similarity(*plane.inputs, dim=0))
    assert plane.probability(torch.ones(1)).item() == pytest.approx(1 - angle.item() / math.pi)
    assert plane.probability(torch.zeros(1)).item() == 0.5
