"""The linear recurrence beside a plain loop: compiled and in parallel, real and complex, with episodes that start inside."""

import doctest

import pytest
import torch
from torch.testing import assert_close

from fw_rl import scan as module
from fw_rl.scan import product, scan

B, N = 3, 5

KINDS = {"real": (), "complex": (2,), "complex with real inputs": (2,)}
DECAYS = ["at every step", "constant"]

EVERY_FORM = pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "parallel"])
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
EVERY_DECAY = pytest.mark.parametrize("decay", DECAYS)


@pytest.fixture
def form(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(module, "can_run", lambda *tensors: False)


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arguments(kind, decay, steps, rows=B, size=N):
    """Decays of either sign below 1, inputs and the h before, which ask for their gradient."""
    shape = (*KINDS[kind], size)
    a = 0.7 * rand(*(() if decay == "constant" else (steps, rows)), *shape, seed=1).tanh()
    inputs = rand(steps, rows, *(shape[1:] if kind == "complex with real inputs" else shape), seed=2)
    return [part.requires_grad_() for part in (a, inputs, rand(rows, *shape, seed=3))]


def some_starts(steps, rows=B):
    return torch.rand(steps, rows, generator=torch.Generator().manual_seed(4)) < 0.15


def by_loop(decay, inputs, before, starts=None):
    """h(t) = decay(t) h(t-1) + inputs(t), in Python's complex numbers where it is complex."""
    is_complex = before.dim() == 3
    a, h = (torch.complex(*part.unbind(-2)) if is_complex else part for part in (decay, before))
    x = torch.complex(*inputs.unbind(-2)) if inputs.dim() == 4 else inputs
    outputs = []
    for t in range(len(x)):
        if starts is not None:
            h = torch.where(starts[t, :, None], torch.zeros_like(h), h)
        h = (a if a.dim() == 1 else a[t]) * h + x[t]
        outputs.append(h)
    h = torch.stack(outputs)
    return torch.stack([h.real, h.imag], dim=-2) if is_complex else h


def gradients(leaves, h):
    return torch.autograd.grad((h * rand(*h.shape, seed=9)).sum(), leaves, retain_graph=True)


@EVERY_FORM
@EVERY_KIND
@EVERY_DECAY
@pytest.mark.parametrize("with_starts", [False, True], ids=["one episode", "episodes"])
def test_it_is_the_plain_loop_with_its_gradient(form, kind, decay, with_starts):
    for steps, rows, size in ((1, 1, 1), (1, B, N), (2, B, N), (9, 1, 1), (77, B, N), (130, 2, 1)):
        leaves = arguments(kind, decay, steps, rows, size)
        starts = some_starts(steps, rows) if with_starts else None
        expected, actual = by_loop(*leaves, starts), scan(*leaves, starts)
        assert_close(actual, expected, rtol=1e-10, atol=1e-12)
        assert_close(gradients(leaves, actual), gradients(leaves, expected), rtol=1e-9, atol=1e-10)
        with torch.no_grad():
            assert_close(scan(*leaves, starts), expected, rtol=1e-10, atol=1e-12)


@EVERY_FORM
@EVERY_KIND
@EVERY_DECAY
def test_gradients_are_finite_differences(form, kind, decay):
    leaves, starts = arguments(kind, decay, 4, 2, 2), torch.tensor([[0, 1], [0, 0], [1, 0], [0, 0]]).bool()
    assert torch.autograd.gradcheck(lambda *parts: scan(*parts, starts), leaves)


@EVERY_FORM
@EVERY_KIND
@EVERY_DECAY
def test_any_split_gives_the_same(form, kind, decay):
    steps = 12
    a, x, h = leaves = arguments(kind, decay, steps)
    starts = some_starts(steps)
    expected = scan(*leaves, starts)
    for lengths in ([1] * steps, [5, 7], [11, 1]):
        parts, last = [], h
        decays = [a] * len(lengths) if decay == "constant" else a.split(lengths)
        for part in zip(decays, x.split(lengths), starts.split(lengths), strict=True):
            parts.append(scan(part[0], part[1], last, part[2]))
            last = parts[-1][-1]
        assert_close(torch.cat(parts), expected, rtol=1e-12, atol=1e-12)
        assert_close(gradients(leaves, torch.cat(parts)), gradients(leaves, expected), rtol=1e-10, atol=1e-10)


@EVERY_FORM
@EVERY_KIND
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nothing_crosses_an_episode_start(form, kind, value):
    a, x, h = (part.detach() for part in arguments(kind, "constant", 9))
    starts = torch.zeros(9, B, dtype=torch.bool)
    starts[5, 1] = True
    expected = scan(a, x, h, starts)
    x[4, 1] = value
    h = h.requires_grad_()
    actual = scan(a, x, h, starts)
    assert not actual[4, 1].isfinite().all()
    assert_close(actual[5:], expected[5:])
    (gradient,) = torch.autograd.grad(actual[5:].sum(), h)
    assert not gradient[1].any() and gradient[[0, 2]].all()


@EVERY_KIND
def test_the_layout_in_memory_does_not_matter(kind):
    leaves, starts = arguments(kind, "at every step", 6), some_starts(6)
    expected = scan(*leaves, starts)
    scattered = [torch.stack([part, part], dim=-1)[..., 0] for part in leaves]
    assert not any(part.is_contiguous() for part in scattered)
    actual = scan(*scattered, starts.T.contiguous().T).transpose(0, 1).contiguous().transpose(0, 1)
    assert_close(actual, expected)
    assert_close(gradients(leaves, actual), gradients(leaves, expected))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@EVERY_KIND
def test_lower_precisions_are_near_float64(kind, dtype, tolerance):
    leaves, starts = arguments(kind, "at every step", 20), some_starts(20)
    expected = scan(*leaves, starts)
    actual = scan(*(part.to(dtype) for part in leaves), starts)
    assert actual.dtype == dtype
    assert (actual - expected).norm() < tolerance * expected.norm()
    assert all(gradient.isfinite().all() for gradient in gradients(leaves, actual))


@pytest.mark.parametrize(
    "shapes, starts",
    [
        (((1,), (4, 2, 5), (2, 5)), None),
        (((5,), (4, 1, 5), (2, 5)), None),
        (((4, 1, 5), (4, 2, 5), (2, 5)), None),
        (((5,), (4, 2, 5), (1, 5)), None),
        (((2, 5), (4, 2, 2, 5), (2, 5)), None),
        (((5,), (4, 2, 5), (2, 5)), torch.zeros(2, 4, dtype=torch.bool)),
        (((5,), (4, 2, 5), (2, 5)), torch.zeros(4, 2)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, starts):
    with pytest.raises(ValueError, match=r"^decay, inputs, before and episode_starts must be \[T, B, N\] or \[N\], .* got \["):
        scan(*(rand(*shape) for shape in shapes), starts)


@EVERY_KIND
def test_torch_func_sees_every_operation(kind):
    run, x = of_inputs(kind)
    loss = lambda inputs: run(inputs).square().sum()  # noqa: E731
    several, leaf = torch.stack([x, 2 * x]), x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    assert_close(torch.func.vmap(run)(several), torch.stack([run(x), run(2 * x)]))
    assert_close(torch.func.grad(loss)(x), expected)
    assert_close(torch.func.vmap(torch.func.grad(loss))(several)[0], expected)


@pytest.mark.processes
@EVERY_KIND
def test_a_compiler_sees_every_operation(kind):
    run, x = of_inputs(kind)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(run(leaf).sum(), leaf)
    y = torch.compile(run, backend="eager", fullgraph=True)(leaf)
    assert_close(y, run(x))
    assert_close(torch.autograd.grad(y.sum(), leaf)[0], expected)


def of_inputs(kind):
    """The recurrence as a function of its inputs, and these."""
    (a, x, h), starts = (part.detach() for part in arguments(kind, "constant", 6)), some_starts(6)
    return lambda inputs: scan(a, inputs, h, starts), x


def test_a_product_is_that_of_complex_numbers():
    a, b = rand(4, 2, N), rand(4, 2, N, seed=1)
    expected = torch.complex(*a.unbind(1)) * torch.complex(*b.unbind(1))
    assert_close(product(a, b), torch.stack([expected.real, expected.imag], dim=1))


def test_examples_in_the_docstrings():
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
