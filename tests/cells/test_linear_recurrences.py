"""The cells that are one scan, beside plain loops over numbers, and what they begin with."""

import cmath
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fw_rl.cells import make_cell
from tests.cells.reference import rand, scrambled

T, B, I, H = 6, 2, 3, 4  # noqa: E741


def run(cell):
    x = rand(T, B, I, seed=1)
    return x, cell(x, cell.initial_state(B))[0]


def affine(layer, x):
    return layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()


@pytest.mark.parametrize("options", [{}, dict(states=7), dict(glu=True)], ids=["default", "states", "gated"])
def test_lru_is_the_equations_in_complex_numbers(options):
    cell = scrambled(make_cell("lru", I, H, **options)).requires_grad_(False)
    x, y = run(cell)
    states, drive = cell.states, cell.input_map.weight.detach().numpy()
    C = cell.output_map.weight.detach().numpy()
    C = C[:, :states] - 1j * C[:, states:]  # Re(C h) = Re(C) Re(h) - Im(C) Im(h)
    for row in range(B):
        h = [0j] * states
        for t in range(T):
            driven = drive @ x[t, row].numpy()
            for n in range(states):
                decay = cmath.exp(complex(-math.exp(cell.log_rate[n]), math.exp(cell.log_phase[n])))
                h[n] = decay * h[n] + math.sqrt(1 - abs(decay) ** 2) * driven[n]
            u = torch.from_numpy((C @ np.array(h)).real) + cell.output_map.bias.detach()
            u = cell.norm(F.gelu(u)).detach().numpy()
            if cell.gate is not None:
                u = u / (1 + np.exp(-affine(cell.gate, u)))
            assert_close(y[t, row].detach(), torch.from_numpy(u + affine(cell.skip, x[t, row].numpy())), rtol=1e-9, atol=1e-10)


def test_lru_begins_on_its_ring_with_no_gap_between_frequencies():
    torch.manual_seed(0)
    cell = make_cell("lru", I, 64, r_min=0.5, r_max=0.9, max_phase=2.0)
    modulus, phase = torch.exp(-cell.log_rate.exp()), cell.log_phase.exp()
    assert modulus.min() > 0.499 and modulus.max() < 0.901
    assert torch.equal((phase / 2.0 * 64).floor(), torch.arange(64.0))


def test_lru_keeps_the_size_of_its_input():
    cell = make_cell("lru", 64, 64)
    _, (h,) = cell(torch.randn(3_000, 1, 64), cell.initial_state(1))
    assert 0.7 < h.square().sum(1).mean() < 1.4


def test_lru_skips_without_weights_where_the_sizes_are_equal():
    assert not list(make_cell("lru", H, H).skip.parameters())
    assert len(list(make_cell("lru", I, H).skip.parameters())) == 2


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(states=0), "states must be a whole number from 1, got 0"),
        (dict(states=1.5), r"states must be of type int \| None, got 1.5"),
        (dict(r_min=0.9, r_max=0.8), "r_min must be from 0 to r_max, which is 0.8, got 0.9"),
        (dict(r_min=0.0, r_max=0.0), "r_max must be above 0 and below 1, got 0.0"),
        (dict(r_max=1.0), "r_max must be above 0 and below 1, got 1.0"),
        (dict(max_phase=7), "max_phase must be above 0 and at most 2 pi, got 7"),
    ],
)
def test_lru_refuses_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        make_cell("lru", I, H, **options)


def test_min_gru_is_its_equations():
    cell = scrambled(make_cell("min-gru", I, H))
    x, y = run(cell)
    for row in range(B):
        h = np.zeros(H)
        for t in range(T):
            z = 1 / (1 + np.exp(-affine(cell.gate, x[t, row].numpy())))
            h = (1 - z) * h + z * affine(cell.candidate, x[t, row].numpy())
            assert_close(y[t, row].detach(), torch.from_numpy(h), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_kernels_of_min_gru_are_its_torch_form_with_gradients(dtype, tolerance):
    cell = scrambled(make_cell("min-gru", I, H)).to(dtype)
    x, h = (rand(*shape, seed=2).to(dtype).requires_grad_() for shape in ((T, B, I), (B, H)))
    some = torch.zeros(T, B, dtype=torch.bool)
    some[0, 1] = some[3, 0] = True
    for starts in (None, some):
        found, expected = ([*run(x, (h,), starts)] for run in (cell, cell.unroll))
        assert_close(found, expected, rtol=tolerance, atol=tolerance)
        leaves = [x, h, *cell.parameters()]
        gradients = (torch.autograd.grad(y.square().sum() + last.sum(), leaves) for y, (last,) in (found, expected))
        assert_close(*gradients, rtol=tolerance, atol=tolerance)


def test_ffm_is_its_equations_in_complex_numbers():
    cell = scrambled(make_cell("ffm", I, H, traces=3, contexts=2)).requires_grad_(False)
    x, y = run(cell)
    for row in range(B):
        S = np.zeros((3, 2), dtype=complex)
        for t in range(T):
            seen = x[t, row].numpy()
            gates = [1 / (1 + np.exp(-affine(layer, seen))) for layer in (cell.input_gate, cell.output_gate)]
            driven = affine(cell.input_map, seen) * gates[0]
            for j in range(3):
                for k in range(2):
                    S[j, k] = S[j, k] * cmath.exp(complex(-abs(cell.rate[j]), cell.frequency[k])) + driven[j]
            z = affine(cell.output_map, np.concatenate([S.real.flatten(), S.imag.flatten()]))
            z = (z - z.mean()) / np.sqrt(z.var() + 1e-5)
            expected = gates[1] * z + (1 - gates[1]) * affine(cell.skip, seen)
            assert_close(y[t, row], torch.from_numpy(expected), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("options", [dict(traces=0), dict(contexts=1.5), dict(max_period=1)])
def test_ffm_refuses_numbers_out_of_range(options):
    with pytest.raises(ValueError, match=r"must be a whole number from 1|must be of type int|max_period must be above 1"):
        make_cell("ffm", I, H, **options)


@pytest.mark.parametrize("fades", [True, False])
def test_shm_is_its_equations(fades):
    cell = scrambled(make_cell("shm", I, H, memory_size=3, calibrations=4, fades=fades)).requires_grad_(False)
    x, starts = rand(T, B, I, seed=1), torch.zeros(T, B, dtype=torch.bool)
    starts[3, 1] = True
    y, (last, turn) = cell(x, cell.initial_state(B), starts)
    W_q, W_k, W_v, W_c = cell.input_map.weight.numpy().reshape(4, 3, I)
    for row in range(B):
        for t in range(T):
            if t == 0 or starts[t, row]:
                M, step = np.zeros((3, 3)), 0
            seen = cell.norm(x[t, row]).numpy()
            key, query = (np.maximum(W @ seen, 0) / (np.maximum(W @ seen, 0).sum() + 1e-5) for W in (W_k, W_q))
            strength = 1 / (1 + np.exp(-cell.strength_map.weight.numpy() @ seen))
            change = np.outer(cell.theta[step % 4].numpy(), W_c @ seen)
            calibration = 1 / (1 + np.exp(-change - cell.bias.numpy()[:, None])) if fades else 1 + np.tanh(change)
            M = calibration * M + strength * np.outer(W_v @ seen, key)
            step += 1
            expected = cell.output_map.weight.numpy() @ (M @ query) + affine(cell.skip_map, x[t, row].numpy())
            assert_close(y[t, row], torch.from_numpy(expected), rtol=1e-9, atol=1e-10)
        assert_close(last[row], torch.from_numpy(M), rtol=1e-9, atol=1e-10)
        assert turn[row] == step % 4


def test_shm_counts_its_turns_in_any_dtype():
    cell, x = make_cell("shm", I, H, memory_size=3).bfloat16(), torch.zeros(600, B, I, dtype=torch.bfloat16)
    _, (_, turn) = cell(x)
    state = None
    for part in x.split(50):
        _, state = cell(part, state)
    assert turn.tolist() == state[1].tolist() == B * [[600 % 128]]


def test_rows_of_shm_fade_at_the_start():
    cell = make_cell("shm", I, H, memory_size=6)
    rows = cell.bias.detach().sigmoid()
    assert rows[0] == pytest.approx(np.exp(-(10**-0.5))) and rows[-1] == pytest.approx(np.exp(-0.001))
    assert (rows.diff() > 0).all()


@pytest.mark.parametrize("options", [dict(memory_size=0), dict(calibrations=1.5)])
def test_shm_refuses_numbers_out_of_range(options):
    with pytest.raises(ValueError, match=r"must be a whole number from 1|must be of type int"):
        make_cell("shm", I, H, **options)


def test_a_modulus_of_lru_lies_anywhere_on_its_ring():
    """As much of it in the inner half of the disc as in the outer one."""
    torch.manual_seed(0)
    modulus = torch.exp(-make_cell("lru", 1, 1, states=4000, r_min=0.0, r_max=0.9).log_rate.exp())
    assert (modulus < 0.9 / 2**0.5).double().mean() == pytest.approx(0.5, abs=0.04)
