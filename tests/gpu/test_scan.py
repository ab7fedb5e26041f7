"""Triton's kernels of the linear recurrence beside a plain loop."""

import pytest
import torch
from torch.testing import assert_close

from fw_rl.scan import scan
from tests.pairwise import pairwise
from tests.test_scan import KINDS, arguments, by_loop, some_starts

pytestmark = pytest.mark.gpu


@pairwise(
    kind=list(KINDS),
    decay=["at every step", "constant"],
    with_starts=[False, True],
    shape=[(1, 1, 1), (4, 2, 5), (2, 1, 130)],
    dtype=[torch.float64, torch.float32],
)
def test_it_is_the_plain_loop_with_its_gradient(kind, decay, with_starts, shape, dtype, device):
    leaves, starts = arguments(kind, decay, *shape), some_starts(*shape[:2]) if with_starts else None
    expected = by_loop(*leaves, starts)
    own = [part.detach().to(device, dtype).requires_grad_() for part in leaves]
    actual = scan(*own, None if starts is None else starts.to(device))
    tolerance = dict(rtol=1e-9, atol=1e-10) if dtype == torch.float64 else dict(rtol=1e-5, atol=1e-5)
    weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    found = torch.autograd.grad((actual * weights.to(actual)).sum(), own)
    assert_close(actual, expected.to(actual), **tolerance)
    assert_close(found, tuple(part.to(actual) for part in torch.autograd.grad((expected * weights).sum(), leaves)), **tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_crosses_an_episode_start(kind, device):
    a, x, h = (part.detach() for part in arguments(kind, "constant", 4, 2))
    starts = torch.zeros(4, 2, dtype=torch.bool)
    starts[2, 1] = True
    expected = by_loop(a, x, h, starts)
    x[1, 1] = float("nan")
    a, x, h, starts = (part.to(device) for part in (a, x, h, starts))
    actual = scan(a, x, h.requires_grad_(), starts)
    assert actual[1, 1].isnan().any()
    assert_close(actual[2:], expected[2:].to(device))
    (gradient,) = torch.autograd.grad(actual[2:].sum(), h)
    assert not gradient[1].any() and gradient[0].all()


def test_the_layout_in_memory_does_not_matter(device):
    leaves, starts = arguments("complex", "at every step", 3, 2), some_starts(3, 2).to(device)
    leaves = [part.detach().to(device).requires_grad_() for part in leaves]
    scattered = [torch.stack([part, part], dim=-1)[..., 0] for part in leaves]
    expected, actual = scan(*leaves, starts), scan(*scattered, starts.T.contiguous().T)
    assert_close(actual, expected)
    assert_close(*(torch.autograd.grad(h.square().sum(), leaves, retain_graph=True) for h in (actual, expected)))
