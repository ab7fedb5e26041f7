"""The fast-weight cell beside an independent reference, hand-worked cases, wrong readings of the paper, and its options."""

import doctest
import math
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch

from fw_rl.cells import ASSOCIATIVE, BA16, FastWeightsCell, fast_weights, make_cell
from tests.cells import reference
from tests.cells.reference import explicit, rand, scrambled, slow_weights
from tests.pairwise import pairwise

T, B, I, H = 11, 3, 3, 5  # noqa: E741
PaperCell = partial(FastWeightsCell, **BA16)


def random_bools(*shape, seed=0, rate=0.3):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < rate


def final_A(cell, state):
    return explicit(*cell.unpack(state)[1])


def assert_same(actual, expected, tolerance=1e-10):
    actual = actual.detach() if isinstance(actual, torch.Tensor) else actual
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=tolerance, atol=tolerance)


def run(cell, x, **signals):
    return cell(x, cell.initial_state(x.shape[1]), **signals)


def assert_equals_reference(cell, x, options, **signals):
    """The cell's outputs, last h and last A are those of the loops, with the same options and signals."""
    y, state = run(cell, x, **signals)
    arrays = {name: signal.numpy() for name, signal in signals.items()}
    options = {name: value for name, value in options.items() if name != "window"}
    expected_y, expected_h, expected_A = reference.fast_weights(slow_weights(cell), x.numpy(), **options, **arrays)
    assert 1e-3 < np.abs(expected_y).max() < 1e6
    assert_same(y, expected_y)
    assert_same(state[0], expected_h)
    assert_same(final_A(cell, state), expected_A)


SOME_WINDOWS = {"matrix": 0, "folding": 3, "attention": 100}
WINDOWS = pytest.mark.parametrize("window", SOME_WINDOWS.values(), ids=SOME_WINDOWS)
RULES = pytest.mark.parametrize("rule", ["hebb", "delta", "oja"])
METHODS = pytest.mark.parametrize("method", [1, 2])


@pairwise(
    window=SOME_WINDOWS,
    rule=["hebb", "delta", "oja"],
    method=[1, 2],
    layer_norm={"norm": True, "plain": False},
    inner_steps=[1, 2, 3],
)
def test_cell_is_equations_1_to_5(inner_steps, layer_norm, method, rule, window):
    options = dict(inner_steps=inner_steps, layer_norm=layer_norm, method=method, rule=rule, window=window)
    options["eta"] = 0.5 if layer_norm else 0.1
    cell = scrambled(PaperCell(I, H, **options), scale=0.5 if layer_norm else 0.2)
    signals = dict(episode_starts=random_bools(T, B, seed=2), write_gate=rand(T, B, seed=3), wipe=random_bools(T, B, seed=4))
    assert_equals_reference(cell, rand(T, B, I, seed=1), options, **signals)


SIGNALS = {
    "no signals": {},
    "starts in some rows": dict(episode_starts=random_bools(T, B, seed=2)),
    "starts in all rows": dict(episode_starts=random_bools(T, 1, seed=2).expand(T, B)),
    "a start at every step": dict(episode_starts=torch.ones(T, B, dtype=torch.bool)),
    "a start at step 0 of one row": dict(episode_starts=torch.arange(T)[:, None] + torch.arange(B) == 0),
    "gate of bools": dict(write_gate=random_bools(T, B, seed=3)),
    "gate of zeros and ones": dict(write_gate=random_bools(T, B, seed=3).double()),
    "gate between zero and one": dict(write_gate=rand(T, B, seed=3).sigmoid()),
    "wipe": dict(wipe=random_bools(T, B, seed=4)),
    "store, then wipe": dict(write_gate=random_bools(T, B, seed=4), wipe=random_bools(T, B, seed=4)),
}


@pairwise(window=SOME_WINDOWS, rule=["hebb", "delta", "oja"], signals=SIGNALS)
def test_cell_is_the_reference_under_every_signal(signals, rule, window):
    options = dict(rule=rule, window=window)
    assert_equals_reference(scrambled(PaperCell(I, H, **options)), rand(T, B, I, seed=1), options, **signals)


@pairwise(
    window=SOME_WINDOWS,
    rule=["hebb", "delta", "oja"],
    activation=["relu", "tanh"],
    rates=[(0.0, 0.9), (0.5, 0.0), (0.2, 1.0), (1.3, 0.5), (0.4, 0.05)],
)
def test_cell_is_the_reference_at_every_rate(rates, activation, rule, window):
    eta, decay = rates
    options = dict(eta=eta, decay=decay, activation=activation, rule=rule, window=window)
    signals = dict(episode_starts=random_bools(T, B, seed=2, rate=0.15))
    assert_equals_reference(scrambled(PaperCell(I, H, **options)), rand(T, B, I, seed=1), options, **signals)


@pytest.mark.parametrize("window", range(T + 2))
def test_every_window_gives_the_same_numbers(window):
    options = dict(inner_steps=2, window=window)
    signals = dict(episode_starts=random_bools(T, B, seed=2, rate=0.15))
    assert_equals_reference(scrambled(PaperCell(I, H, **options)), rand(T, B, I, seed=1), options, **signals)


@pytest.mark.parametrize(
    "options, writes, has_matrix",
    [
        (dict(decay=0.1), 16, False),
        (dict(decay=0.3), 31, False),
        (dict(decay=0.02), 10, False),
        (dict(decay=0.0), 1, False),
        (dict(decay=0.3, rule="delta"), 31, False),
        (dict(decay=0.3, window=30), 30, True),
        (dict(decay=0.5), 32, True),
        (dict(decay=0.95), 32, True),
        (dict(decay=1.0, window=5), 5, True),
        (dict(decay=0.1, learn_decay=True), 32, True),
        (dict(decay=0.1, window=0), 0, True),
    ],
)
def test_a_state_has_a_matrix_only_where_decay_is_slow(options, writes, has_matrix):
    cell = PaperCell(I, H, **options)
    h, fast = cell.unpack(cell.initial_state(B))
    assert h.shape == (B, H)
    assert fast.keys.shape == (B, writes, H)
    assert fast.strengths.shape == (B, writes)
    assert (fast.values is not None) == ("rule" in options)
    assert (fast.matrix is not None) == has_matrix
    assert has_matrix or cell.decay**writes <= 2**-53 < (cell.decay or 2) ** (writes - 1)


def test_the_window_holds_the_last_writes_the_matrix_others():
    cell, x = scrambled(PaperCell(I, H, window=3)), rand(9, 1, I)
    y, state = cell.unroll(x, cell.initial_state(1))
    _, fast = cell.unpack(state)
    assert_same(fast.keys[0], y[6:, 0].detach())
    assert_same(fast.strengths[0], [0.5 * 0.95**age for age in (2, 1, 0)])
    older = sum(0.5 * 0.95 ** (8 - t) * np.outer(h, h) for t, h in enumerate(y[:6, 0].detach().numpy()))
    assert_same(fast.faded * fast.matrix[0], older)


WRONG_READINGS = [
    (mutation, inner_steps)
    for mutation in reference.MUTATIONS
    for inner_steps in (1, 2)
    if inner_steps > 1 or mutation != "inner loop keeps h_0"
]


@WINDOWS
@pytest.mark.parametrize("mutation, inner_steps", WRONG_READINGS)
def test_a_wrong_reading_of_the_paper_would_be_seen(mutation, inner_steps, window):
    options = dict(inner_steps=inner_steps, decay=0.7)
    cell = scrambled(PaperCell(I, H, window=window, **options))
    x, starts = rand(T, B, I, seed=1), random_bools(T, B, seed=2, rate=0.15)
    y = run(cell, x, episode_starts=starts)[0].detach().numpy()
    right, wrong = (
        reference.fast_weights(slow_weights(cell), x.numpy(), episode_starts=starts.numpy(), mutation=reading, **options)[0]
        for reading in (None, mutation)
    )
    assert_same(y, right)
    assert np.abs(y - wrong).max() > 0.1


@WINDOWS
@METHODS
@pytest.mark.parametrize("inner_steps", [1, 3])
@pytest.mark.parametrize("placement, reading", [("all", "layer norm on h_0"), ("recall", "layer norm of the recall alone")])
def test_the_layer_norm_can_be_put_elsewhere(placement, reading, inner_steps, method, window):
    options = dict(inner_steps=inner_steps, method=method, eta=0.2)
    cell = scrambled(PaperCell(I, H, norm_placement=placement, window=window, **options))
    assert_equals_reference(cell, rand(T, B, I, seed=1), options | dict(mutation=reading), episode_starts=random_bools(T, B))


@pytest.mark.parametrize("layer_norm", [True, False])
def test_a_row_does_not_depend_on_the_rows_beside_it(layer_norm):
    cell = scrambled(PaperCell(I, H, layer_norm=layer_norm, eta=0.1), scale=0.3)
    x = rand(T, B, I, seed=1)
    others = torch.cat([x[:, :1], rand(T, 4, I, seed=2)], dim=1)
    assert_same(run(cell, x)[0][:, :1], run(cell, x[:, :1])[0].detach())
    assert_same(run(cell, x)[0][:, :1], run(cell, others)[0][:, :1].detach())


# Two units, worked by hand. W = [0 1; 2 0] swaps the units, C = I and there is no bias, eta = decay = 0.5.


def two_units(**options):
    cell = PaperCell(2, 2, eta=0.5, decay=0.5, **options).double()
    with torch.no_grad():
        cell.recurrent_map.weight.copy_(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
        cell.input_map.weight.copy_(torch.eye(2))
    return cell


def sequence(*vectors):
    return torch.tensor(vectors, dtype=torch.float64).unsqueeze(1)


TWO_UNIT_X = sequence([1, 2], [1, -3], [-9, -4])


@WINDOWS
def test_two_units_without_norm(window):
    cell, state = two_units(layer_norm=False, window=window), None
    expected = [
        # boundary = (1, 2) = h_0, and A = 0:  h = (1, 2)
        # A = 0.5 (1, 2)(1, 2)^T
        ([1, 2], [[0.5, 1], [1, 2]]),
        # W h = (2, 2 * 1); boundary = (2 + 1, 2 - 3) = (3, -1); h_0 = (3, 0); A h_0 = (0.5 * 3, 1 * 3)
        # h = f((3, -1) + (1.5, 3)) = (4.5, 2)
        # A = 0.5 A + 0.5 (4.5, 2)(4.5, 2)^T = [.25 .5; .5 1] + [10.125 4.5; 4.5 2]
        ([4.5, 2], [[10.375, 5], [5, 3]]),
        # W h = (2, 9); boundary = (2 - 9, 9 - 4) = (-7, 5); h_0 = (0, 5); A h_0 = (5 * 5, 3 * 5)
        # h = f((-7, 5) + (25, 15)) = (18, 20)
        # A = 0.5 A + 0.5 (18, 20)(18, 20)^T = [5.1875 2.5; 2.5 1.5] + [162 180; 180 200]
        ([18, 20], [[167.1875, 182.5], [182.5, 201.5]]),
    ]
    state = cell.initial_state(1)
    for x, (h, A) in zip(TWO_UNIT_X, expected, strict=True):
        y, state = cell(x[None], state)
        assert_same(y[0, 0], h)
        assert_same(final_A(cell, state)[0], A)


@WINDOWS
def test_two_units_with_two_inner_steps(window):
    y, state = run(two_units(layer_norm=False, inner_steps=2, window=window), TWO_UNIT_X[:2])
    # A = [.5 1; 1 2] after the first step; boundary = (3, -1); h_0 = (3, 0); h_1 = (4.5, 2) as with one inner step
    # A h_1 = (0.5 * 4.5 + 2, 4.5 + 2 * 2) = (4.25, 8.5); h_2 = f((3, -1) + (4.25, 8.5))
    assert_same(y[:, 0], [[1, 2], [7.25, 7.5]])
    # 0.5 A + 0.5 (7.25, 7.5)(7.25, 7.5)^T
    assert_same(final_A(two_units(), state)[0], [[0.25 + 26.28125, 0.5 + 27.1875], [0.5 + 27.1875, 1 + 28.125]])


@WINDOWS
@pytest.mark.parametrize("inner_steps, h", [(1, [4.5, 3]), (2, [9.75, 13.5])])
def test_two_units_of_method_2(inner_steps, h, window):
    y, _ = run(two_units(layer_norm=False, method=2, inner_steps=inner_steps, window=window), TWO_UNIT_X[:2])
    # h_0 = (3, 0); h_1 = f(h_0 + A h_0) = (3 + 1.5, 0 + 3)
    # A h_1 = (0.5 * 4.5 + 3, 4.5 + 2 * 3) = (5.25, 10.5); h_2 = f(h_1 + A h_1) = (4.5 + 5.25, 3 + 10.5)
    assert_same(y[:, 0], [[1, 2], h])


@WINDOWS
def test_two_units_with_norm(window):
    cell = two_units(window=window)
    cell.norm.eps = 0.0  # so that LN of any two numbers is (-1, 1) or (1, -1)
    with torch.no_grad():
        cell.norm.weight.copy_(torch.tensor([2.0, 4.0]))
        cell.norm.bias.copy_(torch.tensor([3.0, -1.0]))
    y, state = run(cell, TWO_UNIT_X[:2])
    # boundary = (1, 2), A = 0: LN = (-1, 1); h = f((-2 + 3, 4 - 1)) = (1, 3); A = 0.5 (1, 3)(1, 3)^T = [.5 1.5; 1.5 4.5]
    # W h = (3, 2); boundary = (4, -1); h_0 = (4, 0), not normalised; A h_0 = (2, 6)
    # sum = (6, 5): LN = (1, -1); h = f((2 + 3, -4 - 1)) = (5, 0)
    assert_same(y[:, 0], [[1, 3], [5, 0]])
    # A = [.25 .75; .75 2.25] + 0.5 (5, 0)(5, 0)^T
    assert_same(final_A(cell, state)[0], [[12.75, 0.75], [0.75, 2.25]])


FIRST, SECOND = torch.tensor([[True], [False]]), torch.tensor([[False], [True]])


@WINDOWS
@pytest.mark.parametrize(
    "signals, second_h",
    [
        (dict(write_gate=SECOND), [3, 0]),  # A = 0, so h = f(boundary) = f((3, -1))
        (dict(wipe=FIRST), [1.5, 0]),  # W h = 0; boundary = (1, -3); h_0 = (1, 0); A h_0 = (0.5, 1); h = f((1.5, -2))
        (dict(write_gate=SECOND, wipe=FIRST), [1, 0]),  # W h = 0 and A = 0, so h = f(boundary) = f((1, -3))
        (dict(episode_starts=SECOND), [1, 0]),  # the same
        (dict(write_gate=0.5 * FIRST), [3.75, 0.5]),  # A = 0.5 [.5 1; 1 2]; A h_0 = (0.75, 1.5); h = f((3.75, 0.5))
    ],
    ids=["not stored", "wiped", "wiped and not stored", "started", "half stored"],
)
def test_two_units_under_a_signal(signals, second_h, window):
    y, _ = run(two_units(layer_norm=False, window=window), TWO_UNIT_X[:2], **signals)
    assert_same(y[:, 0], [[1, 2], second_h])


@pytest.mark.parametrize("inner_steps", [1, 2, 3])
@pytest.mark.parametrize("silenced", [dict(eta=0.0), dict(eta=0.5, decay=0.0)], ids=["eta 0", "nothing stored"])
def test_the_two_methods_agree_for_relus_without_A(silenced, inner_steps):
    """Ba16 Appendix B."""
    x = rand(T, B, I, seed=1)
    signals = dict(write_gate=torch.zeros(T, B)) if silenced["eta"] else {}
    cells = [scrambled(PaperCell(I, H, layer_norm=False, method=m, inner_steps=inner_steps, **silenced)) for m in (1, 2)]
    first, second = (run(cell, x, **signals)[0] for cell in cells)
    assert_same(first, second.detach(), tolerance=1e-14)


@pytest.mark.parametrize(
    "different", [dict(eta=0.1), dict(eta=0.0, activation="tanh"), dict(eta=0.0, layer_norm=True)], ids=["A", "tanh", "norm"]
)
def test_the_two_methods_differ_with_A_tanh_or_norm(different):
    x = rand(T, B, I, seed=1)
    options = dict(layer_norm=False, inner_steps=2) | different
    first, second = (run(scrambled(PaperCell(I, H, method=m, **options), scale=0.3), x)[0] for m in (1, 2))
    assert (first - second).abs().max() > 0.01


@RULES
@METHODS
def test_with_the_gate_shut_it_is_a_plain_net(method, rule):
    cell = scrambled(PaperCell(I, H, method=method, rule=rule, window=3))
    x = rand(T, B, I, seed=1)
    y, state = run(cell, x, write_gate=torch.zeros(T, B, dtype=torch.float64))
    assert not final_A(cell, state).any()

    slow = slow_weights(cell)
    h = np.zeros((B, H))
    for t in range(T):
        for b in range(B):
            total = slow.W @ h[b] + slow.C @ x[t, b].numpy() + slow.bias
            if method == 2:
                total = np.maximum(total, 0)
            h[b] = np.maximum(slow.gain * reference.normalise(total) + slow.shift, 0)
        assert_same(y[t], h)


@RULES
def test_a_constant_gate_scales_eta(rule):
    x = rand(T, B, I, seed=1)
    gated, _ = run(scrambled(PaperCell(I, H, eta=0.8, rule=rule)), x, write_gate=torch.full((T, B), 0.25).double())
    slower, _ = run(scrambled(PaperCell(I, H, eta=0.2, rule=rule)), x)
    assert_same(gated, slower.detach())


@RULES
def test_an_open_gate_is_no_gate(rule):
    cell, x = scrambled(PaperCell(I, H, rule=rule)), rand(T, B, I, seed=1)
    plain, _ = run(cell, x)
    for gate in (torch.ones(T, B, dtype=torch.float64), torch.ones(T, B, dtype=torch.bool)):
        assert_same(run(cell, x, write_gate=gate)[0], plain.detach(), tolerance=0)


def test_a_wipe_clears_h_but_not_output_or_memory():
    cell, x = scrambled(PaperCell(I, H)), rand(T, B, I, seed=1)
    kept, kept_state = run(cell, x)
    last = torch.arange(T)[:, None] == T - 1
    wiped, wiped_state = run(cell, x, wipe=last.expand(T, B))
    assert_same(wiped, kept.detach(), tolerance=0)
    assert kept_state[0].any()
    assert not wiped_state[0].any()
    assert final_A(cell, kept_state).any()
    assert_same(final_A(cell, wiped_state), final_A(cell, kept_state), tolerance=0)


def test_no_W_h_crosses_a_wipe():
    """Without anything in A, what comes after a wipe is what comes after an episode start."""
    cell, x = scrambled(PaperCell(I, H)), rand(T, B, I, seed=1)
    wipe = random_bools(T, B, seed=4)
    starts = torch.cat([torch.zeros(1, B, dtype=torch.bool), wipe[:-1]])
    nothing = torch.zeros(T, B, dtype=torch.float64)
    wiped, _ = run(cell, x, wipe=wipe, write_gate=nothing)
    started, _ = run(cell, x, episode_starts=starts, write_gate=nothing)
    assert_same(wiped, started.detach(), tolerance=0)


@pytest.mark.parametrize("stored", [True, False])
def test_only_a_stored_step_reaches_across_its_wipe(stored):
    cell, x = scrambled(PaperCell(I, H, activation="tanh")), rand(2, 1, I, seed=1).requires_grad_()
    y, _ = run(cell, x, wipe=FIRST, write_gate=FIRST & stored)
    (gradient,) = torch.autograd.grad((y[1, 0] * rand(H, seed=2)).sum(), x)
    assert bool(gradient[0].any()) == stored


LEARNED = dict(learn_eta=True, learn_decay=True)


@pytest.mark.parametrize("eta, decay", [(0.5, 0.95), (0.01, 0.5), (3.0, 0.999)])
def test_learned_rates_start_at_the_given_ones(eta, decay):
    cell = PaperCell(I, H, eta=eta, decay=decay, **LEARNED)
    assert cell.eta.item() == pytest.approx(eta, rel=1e-5)
    assert cell.decay.item() == pytest.approx(decay, rel=1e-5)


@pytest.mark.parametrize("learned", [set(), {"log_eta"}, {"logit_decay"}, {"log_eta", "logit_decay"}])
def test_a_rate_is_a_parameter_only_where_it_is_learned(learned):
    cell = PaperCell(I, H, learn_eta="log_eta" in learned, learn_decay="logit_decay" in learned)
    names = {name for name, _ in cell.named_parameters()}
    slow = {"input_map.weight", "input_map.bias", "recurrent_map.weight", "norm.weight", "norm.bias"}
    assert names == slow | learned
    assert set(cell.state_dict()) == names


@WINDOWS
@RULES
def test_learned_rates_do_not_change_the_numbers(rule, window):
    x, starts = rand(T, B, I, seed=1), random_bools(T, B, seed=2, rate=0.15)
    options = dict(eta=0.5, decay=0.95, rule=rule, window=window)
    fixed, learning = (scrambled(PaperCell(I, H, **options, **learn)) for learn in ({}, LEARNED))
    with torch.no_grad():  # to more digits than the float32 that they were made with
        learning.log_eta.fill_(math.log(0.5))
        learning.logit_decay.fill_(math.log(0.95 / 0.05))
    assert_same(run(learning, x, episode_starts=starts)[0], run(fixed, x, episode_starts=starts)[0].detach())


@WINDOWS
@RULES
def test_the_gradients_of_the_rates_are_finite_differences(rule, window):
    eta, decay, step = 0.4, 0.8, 1e-5
    x, starts = rand(T, B, I, seed=1), random_bools(T, B, seed=2, rate=0.15)

    def loss(eta, decay, **learn):
        cell = PaperCell(I, H, eta=eta, decay=decay, rule=rule, activation="tanh", window=window, **learn)
        return cell, (run(scrambled(cell), x, episode_starts=starts)[0] * rand(T, B, H, seed=5)).sum()

    cell, value = loss(eta, decay, **LEARNED)
    value.backward()
    by_eta = (loss(eta + step, decay)[1] - loss(eta - step, decay)[1]).item() / (2 * step)
    by_decay = (loss(eta, decay + step)[1] - loss(eta, decay - step)[1]).item() / (2 * step)
    assert abs(by_eta) > 1e-2
    assert abs(by_decay) > 1e-2
    # d eta / d log eta = eta; d decay / d logit decay = decay (1 - decay)
    assert cell.log_eta.grad.item() == pytest.approx(by_eta * eta, rel=1e-4)
    assert cell.logit_decay.grad.item() == pytest.approx(by_decay * decay * (1 - decay), rel=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_learned_rate_stays_in_its_range(sign):
    cell = PaperCell(I, H, **LEARNED)
    eta, decay = cell.eta.item(), cell.decay.item()
    optimiser = torch.optim.SGD(cell.parameters(), lr=1.0)
    for _ in range(10):
        optimiser.zero_grad()
        (sign * (cell.log_eta + cell.logit_decay)).backward()
        optimiser.step()
    assert sign * cell.eta.item() < sign * eta
    assert sign * cell.decay.item() < sign * decay
    assert 0 < cell.eta.item() < math.inf
    assert 0 < cell.decay.item() < 1


@pytest.mark.parametrize("options", [dict(window=4), dict(window=4, rule="delta"), dict()], ids=["hebb", "delta", "default"])
def test_an_endless_episode_has_a_bounded_state(options):
    steps, rows, size = 2000, 2, 6
    cell = scrambled(PaperCell(I, size, **options))
    x = rand(steps, rows, I, seed=1)
    state, outputs = cell.initial_state(rows), []
    with torch.no_grad():
        expected, _ = run(scrambled(PaperCell(I, size, **(options | dict(window=0)))), x)
        for t in range(steps):
            y, state = cell(x[t : t + 1], state)
            outputs.append(y)
    assert sum(part.numel() for part in state) <= rows * (1 + size + 2 * 32 * size + 32 + size * size)
    assert all(part.isfinite().all() for part in state)
    assert_same(torch.cat(outputs), expected, tolerance=1e-8)


TWO_STEPS_RECALL = math.hypot(1.5, 3) / (math.hypot(1, 2) + math.hypot(3, -1))


@WINDOWS
def test_recall_strength_of_two_units(window):
    cell = two_units(layer_norm=False, window=window)
    # step 1: A h_0 = 0, boundary = (1, 2); step 2: A h_0 = (1.5, 3), boundary = (3, -1)
    values = cell.diagnostics(TWO_UNIT_X[:2], cell.initial_state(1))
    assert values["recall_strength"] == pytest.approx(TWO_STEPS_RECALL)


def test_attention_age_of_two_units():
    cell = two_units(layer_norm=False)
    # step 2: (1, 2) . h_0 = (1, 2) . (3, 0) = 3, strength 0.5: attention 1.5 at age 1
    # step 3: (1, 2) . (0, 5) = 10, strength 0.5 * 0.5: attention 2.5 at age 2; (4.5, 2) . (0, 5) = 10, strength 0.5: 5 at age 1
    state = cell.initial_state(1)
    assert cell.diagnostics(TWO_UNIT_X[:2], state)["attention_age"] == pytest.approx(1.0)
    assert cell.diagnostics(TWO_UNIT_X, state)["attention_age"] == pytest.approx((1.5 * 1 + 2.5 * 2 + 5 * 1) / (1.5 + 2.5 + 5))


def test_attention_is_that_of_the_last_read():
    cell = two_units(layer_norm=False, inner_steps=2)
    # the last read of step 2 is A h_1 = (4.25, 8.5), see test_two_units_with_two_inner_steps
    recall = math.hypot(4.25, 8.5) / (math.hypot(1, 2) + math.hypot(3, -1))
    assert cell.diagnostics(TWO_UNIT_X[:2], cell.initial_state(1))["recall_strength"] == pytest.approx(recall)


def test_diagnostics_count_on_from_the_state():
    cell = two_units(layer_norm=False)
    _, state = run(cell, TWO_UNIT_X[:2])
    values = cell.diagnostics(TWO_UNIT_X[2:], state)
    # A h_0 = (25, 15), boundary = (-7, 5); attention 2.5 at age 2 and 5 at age 1
    assert values["recall_strength"] == pytest.approx(math.hypot(25, 15) / math.hypot(-7, 5))
    assert values["attention_age"] == pytest.approx((2.5 * 2 + 5 * 1) / 7.5)


def test_diagnostics_of_rows_weigh_by_their_attention():
    """A row that starts an episode at every step adds to the boundaries, not to the recall or the ages."""
    cell = two_units(layer_norm=False)
    x = TWO_UNIT_X[:2].expand(2, 2, 2)
    starts = torch.tensor([[False, True], [False, True]])
    values = cell.diagnostics(x, cell.initial_state(2), starts)
    boundaries = math.hypot(1, 2) + math.hypot(3, -1) + math.hypot(1, 2) + math.hypot(1, -3)
    assert values == {"recall_strength": pytest.approx(math.hypot(1.5, 3) / boundaries), "attention_age": pytest.approx(1.0)}


def test_diagnostics_are_zero_at_the_first_step():
    cell = PaperCell(I, H)
    assert cell.diagnostics(torch.randn(1, B, I), cell.initial_state(B)) == {"recall_strength": 0.0, "attention_age": 0.0}


@WINDOWS
@RULES
def test_diagnostics_are_floats_and_leave_the_cell_alone(rule, window):
    cell = scrambled(PaperCell(I, H, rule=rule, window=window, **LEARNED))
    x = rand(T, B, I, seed=1).requires_grad_()
    state = cell.initial_state(B)
    before = {name: tensor.clone() for name, tensor in cell.state_dict().items()}
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda nothing: nothing):
        values = cell.diagnostics(x, state, random_bools(T, B, seed=2))
    assert saved == []
    assert list(values) == ["recall_strength", "attention_age"]
    assert all(type(value) is float and math.isfinite(value) and value >= 0 for value in values.values())
    assert values["recall_strength"] > 0
    assert x.grad is None
    assert all(parameter.grad is None for parameter in cell.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in cell.state_dict().items())
    assert torch.is_grad_enabled()


def test_the_defaults_are_the_paper_s():
    cell = PaperCell(I, H)
    assert (cell.eta, cell.decay, cell.inner_steps, cell.method, cell.rule) == (0.5, 0.95, 1, 1, "hebb")
    assert isinstance(cell.norm, torch.nn.LayerNorm)


def test_initial_weights_are_the_paper_s():
    cell = PaperCell(40, 100)
    assert torch.equal(cell.recurrent_map.weight, 0.05 * torch.eye(100))
    assert cell.recurrent_map.bias is None
    weight = cell.input_map.weight
    assert weight.shape == (100, 40)
    assert 0.095 < weight.abs().max() <= 0.1
    assert weight.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.05)
    assert not cell.input_map.bias.any()
    assert (cell.norm.weight == 1).all()
    assert not cell.norm.bias.any()
    assert torch.equal(FastWeightsCell(40, 100, recurrent_scale=0.5).recurrent_map.weight, 0.5 * torch.eye(100))


@pytest.mark.parametrize(
    "options, name",
    [
        (dict(input_size=0), "input_size"),
        (dict(hidden_size=0), "hidden_size"),
        (dict(hidden_size=-1), "hidden_size"),
        (dict(eta=-0.1), "eta"),
        (dict(eta=math.nan), "eta"),
        (dict(eta=0.0, learn_eta=True), "eta"),
        (dict(decay=-0.1), "decay"),
        (dict(decay=1.1), "decay"),
        (dict(decay=math.nan), "decay"),
        (dict(decay=0.0, learn_decay=True), "decay"),
        (dict(decay=1.0, learn_decay=True), "decay"),
        (dict(inner_steps=0), "inner_steps"),
        (dict(method=0), "method"),
        (dict(method=3), "method"),
        (dict(rule="hop"), "rule"),
        (dict(norm_placement="last"), "norm_placement"),
        (dict(activation="gelu"), "activation"),
        (dict(window=-1), "window"),
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [FastWeightsCell, partial(make_cell, "fast-weights")], ids=["class", "by name"])
def test_an_option_out_of_range_is_named_in_one_line(make, options, name):
    with pytest.raises(ValueError, match=rf"^{name} must ") as caught:
        make(**(dict(input_size=I, hidden_size=H) | options))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 100
    assert str(options[name]) in message


@pytest.mark.parametrize("options", [dict(eta=0.0), dict(decay=0.0), dict(decay=1.0), dict(window=0)], ids=str)
def test_the_ends_of_a_range_belong_to_it(options):
    y, _ = run(PaperCell(I, H, **options), torch.randn(T, B, I))
    assert y.isfinite().all()


def test_examples_in_the_docstrings():
    result = doctest.testmod(fast_weights)
    assert result.attempted > 0
    assert result.failed == 0


def test_torch_func_sees_every_operation():
    """vmap over inputs, and over weights, gives what single calls give."""
    cell = PaperCell(I, H)
    x = torch.randn(4, 5, 2, I, generator=torch.Generator().manual_seed(0))

    def run(part):
        return cell(part, cell.initial_state(2))[0]

    torch.testing.assert_close(torch.func.vmap(run)(x), torch.stack([run(part) for part in x]))
    weights = {name: torch.stack([weight, 2 * weight]).detach() for name, weight in cell.named_parameters()}

    def run_with(parameters):
        return torch.func.functional_call(cell, parameters, (x[0], cell.initial_state(2)))[0]

    single = [run_with({name: weight[i] for name, weight in weights.items()}) for i in range(2)]
    torch.testing.assert_close(torch.func.vmap(run_with)(weights), torch.stack(single))


@pytest.mark.parametrize("window", [0, 2, 32])
def test_attention_is_equation_4_step_by_step_whatever_the_window(window):
    cell = scrambled(PaperCell(3, 5, eta=0.4, decay=0.8, inner_steps=2, window=window))
    x = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    starts = torch.zeros(6, 2, dtype=torch.bool)
    starts[0] = True
    starts[3, 1] = True
    attention = cell.attention(x, cell.initial_state(2), starts)
    outputs, _ = cell(x, cell.initial_state(2), starts)
    queries = torch.stack([step.query for step in cell._steps(x, cell.initial_state(2), starts)])
    begins = torch.tensor([[0, 0]] * 3 + [[0, 3]] * 3)
    for t, row, j in product(range(6), range(2), range(6)):
        expected = 0.4 * 0.8 ** (t - 1 - j) * outputs[j, row] @ queries[t, row] if begins[t, row] <= j < t else 0.0
        assert attention[t, row, j].item() == pytest.approx(float(torch.as_tensor(expected).detach()), abs=1e-12)


def test_attention_times_what_is_attended_to_is_what_comes_back():
    cell = scrambled(PaperCell(3, 5, eta=0.4, decay=0.8))
    x = torch.randn(6, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    attention = cell.attention(x, cell.initial_state(1))[:, 0]
    outputs, _ = cell(x, cell.initial_state(1))
    recalled = torch.cat([step.recalled for step in cell._steps(x, cell.initial_state(1))])
    torch.testing.assert_close(attention @ outputs[:, 0], recalled)


def test_attention_leaves_out_what_lies_before():
    cell = scrambled(PaperCell(3, 5, eta=0.4, decay=0.8))
    x = torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = cell.attention(x, cell.initial_state(2))
    _, state = cell(x[:3], cell.initial_state(2))
    torch.testing.assert_close(cell.attention(x[3:], state), whole[3:, :, 3:])

    starts = torch.zeros(7, 2, dtype=torch.bool)
    starts[3] = True
    begun = cell.attention(x, cell.initial_state(2), starts)
    assert not begun[3:, :, :3].any()
    torch.testing.assert_close(begun[3:, :, 3:], cell.attention(x[3:], cell.initial_state(2)))


def test_without_slow_recurrence_fast_weights_alone_remember():
    cell = FastWeightsCell(3, 8, **ASSOCIATIVE | dict(eta=0.0))
    x, state = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)), cell.initial_state(2)
    together, _ = cell(x, state)
    torch.testing.assert_close(together, torch.cat([cell(step[None], state)[0] for step in x]))
    together.sum().backward()
    assert cell.recurrent_map.weight.grad is None


def test_a_key_recalls_its_pair_before_any_training():
    torch.manual_seed(0)
    cell = FastWeightsCell(24, 64, **ASSOCIATIVE)
    keys, values = torch.eye(24)[:4], torch.eye(24)[16:20]
    outputs, _ = cell(torch.cat([keys + values, keys.flip(0)]).unsqueeze(1), cell.initial_state(1))
    shown, asked = outputs[:4, 0], outputs[4:, 0].flip(0)
    alike = torch.nn.functional.cosine_similarity(asked[:, None], shown[None], dim=2)
    assert torch.equal(alike.argmax(dim=1), torch.arange(4))


def test_a_matrix_that_holds_nothing_takes_no_memory():
    cell = make_cell("fast-weights", 3, 100, decay=0.95)
    _, after = cell(torch.zeros(2, 8, 3), wipe=torch.zeros(2, 8, dtype=torch.bool))
    for state in (cell.initial_state(8), after):
        assert state[3].shape == (8, 100, 100) and not state[3].any()
        assert state[3].untyped_storage().nbytes() == 4
