"""The associative memory: two ways to read it, folding, forgetting, what the rules write, and sequences by chunks."""

import doctest

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fw_rl import memory
from fw_rl.memory import Memory
from tests.cells.reference import explicit, unit, updated

B, H = 3, 4
DECAY = 0.8

KINDS = {
    "nothing": (False, False, False),
    "pending": (False, True, False),
    "folded": (True, False, False),
    "partly folded": (True, True, False),
    "separate values": (False, True, True),
    "separate values, folded": (True, False, True),
    "separate values, partly folded": (True, True, True),
}
"""Whether something has been folded, whether K = 5 writes are pending, and whether values are kept apart from keys."""


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_memory(kind, seed=0):
    folded, pending, separate_values = KINDS[kind]
    K = 5 if pending else 0
    values = rand(B, K, H, seed=seed + 1) if separate_values else None
    matrix, faded = (rand(B, H, H, seed=seed + 2), rand(B, seed=seed + 5)) if folded else (None, None)
    return Memory(rand(B, K, H, seed=seed + 3), rand(B, K, seed=seed + 4), values, matrix, faded)


def assert_same(actual, expected, tolerance=1e-12):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=tolerance)


def times(A, query):
    return np.stack([A[b] @ query[b].numpy() for b in range(len(A))])


@pytest.mark.parametrize("kind", KINDS)
def test_a_read_is_the_product_with_the_explicit_matrix(kind):
    stored, query = random_memory(kind), rand(B, H, seed=9)
    assert_same(memory.read(stored, query), times(explicit(*stored), query))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0, 2, 5, 7])
def test_folding_keeps_A_and_every_read(kind, keep):
    stored, query = random_memory(kind), rand(B, H, seed=9)
    folded = memory.fold(stored, keep)
    pending = min(stored.keys.shape[1], keep)
    assert folded.keys.shape == (B, pending, H)
    assert folded.strengths.shape == (B, pending)
    if pending < stored.keys.shape[1]:
        assert folded.matrix.shape == (B, H, H)
        assert torch.equal(folded.keys, stored.keys[:, 5 - pending :])
    assert_same(explicit(*folded), explicit(*stored))
    assert_same(memory.read(folded, query), memory.read(stored, query))


def test_nothing_folded_is_known_to_be_nothing():
    stored = random_memory("pending")
    stored.strengths[1, :3] = 0.0
    assert memory.fold(stored, keep=2).faded.tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_padding_keeps_A_and_its_writes_are_dropped_first(kind):
    stored = random_memory(kind)
    padded = memory.pad(stored, 8)
    assert padded.keys.shape == (B, 8, H)
    assert not padded.strengths[:, : 8 - stored.keys.shape[1]].any()
    assert_same(explicit(*padded), explicit(*stored))
    for part, expected in zip(memory.recent(padded, stored.keys.shape[1]), stored, strict=True):
        assert part is expected or torch.equal(part, expected)


def test_the_recent_memory_is_the_latest_writes_alone():
    stored = random_memory("separate values")
    latest = memory.recent(stored, 2)
    assert all(torch.equal(part, whole[:, 3:]) for part, whole in zip(latest[:3], stored[:3], strict=True))


def test_folding_twice_changes_nothing():
    once = memory.fold(random_memory("separate values, partly folded"))
    twice = memory.fold(once)
    assert_same(twice.matrix, once.matrix)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decay", [0.0, DECAY, 1.0])
def test_a_write_is_one_step_of_equation_1(kind, decay):
    stored, value, key, strength = random_memory(kind), rand(B, H, seed=6), rand(B, H, seed=7), rand(B, seed=8)
    if "separate" not in kind:
        value = key
    before, after = explicit(*stored), explicit(*memory.write(stored, value, key, strength, decay))
    for b in range(B):
        assert_same(after[b], decay * before[b] + strength[b].item() * np.outer(value[b], key[b]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_write_of_no_strength_only_decays(kind):
    stored = random_memory(kind)
    after = memory.write(stored, rand(B, H), rand(B, H), torch.zeros(B, dtype=torch.float64), DECAY)
    assert_same(explicit(*after), DECAY * explicit(*stored))


@pytest.mark.parametrize("fold_after", [None, 0, 2, 4])
def test_the_kth_last_write_has_decayed_k_times(fold_after):
    stored, writes = memory.empty(1, H, like=rand(1)), rand(5, 1, H)
    for number, h in enumerate(writes):
        stored = memory.write(stored, h, h, torch.tensor([0.3], dtype=torch.float64), DECAY)
        if number == fold_after:
            stored = memory.fold(stored)
    expected = sum(0.3 * DECAY ** (4 - number) * np.outer(h[0], h[0]) for number, h in enumerate(writes))
    assert_same(explicit(*stored)[0], expected)


def test_attention_is_key_times_query_by_strength():
    stored, query = random_memory("separate values, partly folded"), rand(B, H, seed=9)
    attention = memory.attend(stored, query)
    assert attention.shape == (B, 5)
    for b in range(B):
        for j in range(5):
            assert_same(attention[b, j], stored.strengths[b, j] * sum(stored.keys[b, j] * query[b]))


@pytest.mark.parametrize("kind", ["pending", "separate values"])
def test_a_read_is_the_attention_times_the_values(kind):
    stored, query = random_memory(kind), rand(B, H, seed=9)
    attention, values = memory.attend(stored, query), stored.keys if stored.values is None else stored.values
    expected = [sum(attention[b, j] * values[b, j] for j in range(5)).numpy() for b in range(B)]
    assert_same(memory.read(stored, query), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_transpose_is_the_memory_of_the_transposed_matrix(kind):
    stored, query = random_memory(kind), rand(B, H, seed=9)
    A = explicit(*stored)
    assert_same(explicit(*memory.transpose(stored)), A.swapaxes(1, 2))
    assert_same(memory.read(memory.transpose(stored), query), times(A.swapaxes(1, 2), query))
    assert_same(explicit(*memory.transpose(memory.transpose(stored))), A)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [[False] * 3, [True, False, True], [True] * 3])
def test_forget_clears_the_given_rows_and_no_others(kind, rows):
    stored, query = random_memory(kind), rand(B, H, seed=9)
    kept = memory.forget(stored, torch.tensor(rows))
    expected = np.where(np.array(rows)[:, None, None], 0.0, explicit(*stored))
    assert_same(explicit(*kept), expected)
    assert_same(memory.read(kept, query), times(expected, query))
    assert_same(explicit(*memory.fold(kept)), expected)


@pytest.mark.parametrize("folded", [True, False])
def test_forget_clears_a_row_that_overflowed(folded):
    h = torch.tensor([[1.0, 2.0], [float("inf"), 1.0]], dtype=torch.float64)
    stored = memory.write(memory.empty(2, 2, like=h), h, h, torch.ones(2, dtype=torch.float64), DECAY)
    if folded:
        stored = memory.fold(stored)
    kept = memory.forget(stored, torch.tensor([False, True]))
    assert_same(memory.read(kept, torch.ones_like(h)), [[3.0, 6.0], [0.0, 0.0]])


@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_can_be_indexed_by_row(kind):
    stored, query, rows = random_memory(kind), rand(B, H, seed=9), torch.tensor([2, 0])
    chosen = Memory(*(None if part is None else part[rows] for part in stored))
    assert_same(memory.read(chosen, query[rows]), memory.read(stored, query)[rows])


@pytest.mark.parametrize("separate", [True, False])
def test_an_empty_memory_gives_zeros_of_the_dtype(separate):
    blank = memory.empty(B, H, separate_values=separate, like=torch.zeros(1, dtype=torch.float64))
    assert (blank.values is not None) == separate
    assert {part.dtype for part in blank if part is not None} == {torch.float64}
    assert_same(memory.read(blank, rand(B, H)), np.zeros((B, H)))
    assert_same(memory.attend(blank, rand(B, H)), np.zeros((B, 0)))
    assert memory.empty(B, H).keys.dtype == torch.get_default_dtype()


def test_functions_leave_their_arguments_as_they_were():
    stored = random_memory("separate values, partly folded")
    copies = [part.clone() for part in stored]
    h = rand(B, H, seed=9)
    memory.read(stored, h)
    memory.write(stored, h, h, torch.ones(B, dtype=torch.float64), DECAY)
    memory.fold(stored)
    memory.forget(stored, torch.tensor([True, False, True]))
    for part, copy in zip(stored, copies, strict=True):
        assert torch.equal(part, copy)


@pytest.mark.parametrize("kind", ["partly folded", "separate values, partly folded"])
def test_gradients_flow_to_the_memory_the_query_and_the_decay(kind):
    stored, query = random_memory(kind), rand(B, H, seed=9)
    decay = torch.tensor(DECAY, dtype=torch.float64)
    there = [name for name, part in stored._asdict().items() if part is not None]
    leaves = [part.clone().requires_grad_() for part in (*(getattr(stored, name) for name in there), query, decay)]

    def read_and_fold(*leaves):
        *parts, query, decay = leaves
        grown = memory.write(Memory(**dict(zip(there, parts, strict=True))), query, query.tanh(), parts[1][:, 0], decay)
        return memory.read(grown, query), memory.read(memory.fold(grown), query)

    assert torch.autograd.gradcheck(read_and_fold, leaves)


@pytest.mark.parametrize("kind", KINDS)
def test_fading_scales_A_like_steps_of_time_without_a_write(kind):
    stored, query = random_memory(kind), rand(B, H, seed=9)
    faded, waited = memory.fade(stored, DECAY**2), stored
    for _ in range(2):
        waited = memory.write(waited, torch.zeros_like(query), torch.zeros_like(query), query[:, 0] * 0, DECAY)
    assert_same(explicit(*faded), DECAY**2 * explicit(*stored))
    assert_same(memory.read(faded, query), memory.read(waited, query))


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_writing_a_correction_is_a_step_towards_the_target(strength):
    stored, key, target = random_memory("separate values, partly folded"), rand(B, H, seed=6), rand(B, H, seed=7)
    rates = strength / key.square().sum(1)
    before = DECAY * memory.read(stored, key)
    after = memory.write(stored, memory.correction(stored, key, target, DECAY), key, rates, DECAY)
    assert_same(memory.read(after, key), before + strength * (target - before))


@pytest.mark.parametrize("folded", [False, True])
def test_values_may_be_longer_than_keys(folded):
    stored, key, value = memory.empty(B, H, value_size=H + 2, like=rand(1)), rand(B, H), rand(B, H + 2, seed=1)
    for number in range(3):
        stored = memory.write(stored, value + number, key * (number + 1), rand(B, seed=number), DECAY)
        if folded:
            stored = memory.fold(stored)
    A = sum(
        DECAY ** (2 - number)
        * rand(B, seed=number)[:, None, None]
        * (value + number)[:, :, None]
        * (key * (number + 1))[:, None]
        for number in range(3)
    )
    assert_same(memory.read(stored, key), times(A.numpy(), key))
    assert_same(memory.read(memory.transpose(stored), value), times(A.mT.numpy(), value))


def stored_by(rule, writes, *, eta, decay, fold_after=None):
    """The memory of one row after `writes` [n, H]."""
    stored = memory.empty(1, writes.shape[1], separate_values=rule != "hebb", like=writes)
    strength = torch.full((1,), eta, dtype=writes.dtype)
    for number, h in enumerate(writes):
        value, key = memory.WRITE_RULES[rule](stored, h[None], decay)
        stored = memory.write(stored, value, key, strength, decay)
        if number == fold_after:
            stored = memory.fold(stored)
    return stored


def test_the_rules_have_their_names():
    assert list(memory.WRITE_RULES.items()) == [("hebb", memory.hebb), ("delta", memory.delta), ("oja", memory.oja)]


@pytest.mark.parametrize("rule", ["hebb", "delta", "oja"])
@pytest.mark.parametrize("eta, decay", [(0.5, 0.95), (1.5, 0.7), (1.0, 1.0), (0.3, 0.0)])
@pytest.mark.parametrize("fold_after", [None, 0, 3])
def test_a_rule_writes_its_equation(rule, eta, decay, fold_after):
    writes = rand(6, H)
    A = np.zeros((H, H))
    for h in writes:
        A = updated(A, h.numpy(), eta, decay, rule)
    assert_same(explicit(*stored_by(rule, writes, eta=eta, decay=decay, fold_after=fold_after))[0], A)


def test_delta_recalls_the_last_of_many_vectors_exactly():
    writes = 1e4 * rand(3 * H, H)
    stored = stored_by("delta", writes, eta=1.0, decay=1.0)
    last = writes[-1:] / writes[-1].norm()
    assert_same(memory.read(stored, last), last, tolerance=1e-10)
    earlier = writes[:1] / writes[0].norm()
    assert (memory.read(stored, earlier) - earlier).abs().max() > 1e-2


def test_delta_recalls_short_vectors_up_to_its_eps():
    h = torch.tensor([[0.3, 0.4]], dtype=torch.float64)
    stored = stored_by("delta", h, eta=1.0, decay=1.0)
    squared_length = 0.25 / (0.25 + 1e-3)
    assert_same(memory.read(stored, h), squared_length * h)


def test_delta_keeps_orthogonal_memories_apart():
    writes = 1e4 * torch.linalg.qr(rand(H, H)).Q
    stored = stored_by("delta", writes, eta=1.0, decay=1.0)
    assert_same(explicit(*stored)[0], np.eye(H), tolerance=1e-8)


@pytest.mark.parametrize("rule", ["delta", "oja"])
@pytest.mark.parametrize("eta", [0.1, 1.0, 1.9])
def test_an_error_correcting_rule_converges_on_a_repeated_vector(rule, eta):
    h = 1e4 * rand(H)
    stored = stored_by(rule, h.expand(250, H), eta=eta, decay=1.0)
    u = unit(h.numpy())
    assert_same(explicit(*stored)[0], np.outer(u, u), tolerance=1e-8)


def test_hebb_grows_with_every_write_of_the_same_vector():
    h = rand(H)
    for writes in (1, 10, 100):
        stored = stored_by("hebb", h.expand(writes, H), eta=0.5, decay=1.0)
        assert_same(explicit(*stored)[0], 0.5 * writes * np.outer(h, h), tolerance=1e-10)


@pytest.mark.parametrize("rule", ["delta", "oja"])
def test_a_correction_ignores_the_length_of_h(rule):
    writes = 1e4 * rand(6, H)
    once, longer = (stored_by(rule, scale * writes, eta=0.5, decay=DECAY) for scale in (1.0, 7.0))
    assert_same(explicit(*once), explicit(*longer), tolerance=1e-9)


def test_oja_holds_the_transpose_of_delta():
    writes = rand(6, H)
    A_oja, A_delta = (explicit(*stored_by(rule, writes, eta=0.7, decay=DECAY))[0] for rule in ("oja", "delta"))
    assert_same(A_oja, A_delta.T)
    assert np.abs(A_oja - A_delta).max() > 1e-2


@pytest.mark.parametrize("rule", ["hebb", "delta", "oja"])
def test_silent_units_have_a_finite_gradient(rule):
    h = torch.zeros(1, H, dtype=torch.float64, requires_grad=True)
    value, key = memory.WRITE_RULES[rule](random_memory("separate values, partly folded"), h.expand(B, H), DECAY)
    (value.sum() + key.sum()).backward()
    assert h.grad.isfinite().all()


T, N, V = 11, 2, 5
SEQUENCES = {
    f"{rule}{', decays' * decays}{', starts' * starts}": (rule == "delta", decays, starts)
    for rule in ("delta", "sum")
    for decays in (False, True)
    for starts in (False, True)
}
EVERY_SEQUENCE = pytest.mark.parametrize("corrects, has_decays, has_starts", SEQUENCES.values(), ids=SEQUENCES)


def random_sequence(has_decays, has_starts, steps=T):
    """A matrix, and queries, keys, values, strengths, decays and episode starts."""
    keys = rand(steps, B, N, H, seed=1)
    parts = [
        rand(B, N, V, H),
        rand(steps, B, N, H, seed=2),
        keys / keys.norm(dim=3, keepdim=True),
        rand(steps, B, N, V, seed=3),
    ]
    rates = rand(2, steps, B, N, seed=4).sigmoid()
    starts = rand(steps, B, seed=5) < -0.7
    return [*parts, rates[0], rates[1] if has_decays else None, starts if has_starts else None]


def step_by_step(matrix, queries, keys, values, strengths, decays=None, starts=None, *, corrects=True):
    """The same from single writes and reads of a `Memory`, whose rows are rows and heads."""
    reads = []
    for t in range(len(keys)):
        query, key, value, strength = (part[t].flatten(0, 1) for part in (queries, keys, values, strengths))
        decay = 1.0 if decays is None else decays[t].flatten()
        stored = memory.empty(B * N, H, value_size=V, like=matrix)._replace(matrix=matrix.flatten(0, 1), faded=strength * 0 + 1)
        if starts is not None:
            stored = memory.forget(stored, starts[t].repeat_interleave(N))
        value = memory.correction(stored, key, value, decay) if corrects else value
        stored = memory.fold(memory.write(stored, value, key, strength, decay))
        reads.append(memory.read(stored, query).unflatten(0, (B, N)))
        matrix = stored.matrix.unflatten(0, (B, N))
    return torch.stack(reads), matrix


@EVERY_SEQUENCE
@pytest.mark.parametrize("chunk", [1, 4, T, 32])
def test_chunks_are_single_writes_and_reads(corrects, has_decays, has_starts, chunk):
    sequence = random_sequence(has_decays, has_starts)
    expected = step_by_step(*sequence, corrects=corrects)
    assert_close(memory.write_and_read(*sequence, corrects=corrects, chunk=chunk), expected, rtol=1e-12, atol=1e-12)


@EVERY_SEQUENCE
def test_a_sequence_is_its_parts(corrects, has_decays, has_starts):
    matrix, *sequence = random_sequence(has_decays, has_starts)
    expected = memory.write_and_read(matrix, *sequence, corrects=corrects, chunk=4)
    for cut in range(1, T):
        reads = []
        after = matrix
        for steps in (slice(cut), slice(cut, None)):
            part = (None if one is None else one[steps] for one in sequence)
            read, after = memory.write_and_read(after, *part, corrects=corrects, chunk=4)
            reads.append(read)
        assert_close((torch.cat(reads), after), expected, rtol=1e-12, atol=1e-12)


@EVERY_SEQUENCE
def test_the_gradient_of_chunks_is_finite_differences(corrects, has_decays, has_starts):
    *parts, starts = random_sequence(has_decays, has_starts, steps=5)
    leaves = [part[:, :2].clone().requires_grad_() for part in parts if part is not None]
    leaves[0] = parts[0][:2].clone().requires_grad_()
    starts = None if starts is None else starts[:, :2]

    def run(*leaves):
        decays = leaves[5] if has_decays else None
        return memory.write_and_read(*leaves[:5], decays, starts, corrects=corrects, chunk=3)

    assert torch.autograd.gradcheck(run, leaves)


def test_no_gradient_crosses_an_episode_start():
    matrix, *parts, _ = random_sequence(True, False)
    leaves = [part.requires_grad_() for part in (matrix, *parts)]
    starts = torch.zeros(T, B, dtype=torch.bool)
    starts[6] = True
    reads, after = memory.write_and_read(*leaves, starts, chunk=8)
    of_matrix, *gradients = torch.autograd.grad(reads[6:].sum() + after.sum(), leaves)
    assert not of_matrix.any()
    assert not any(gradient[:6].any() for gradient in gradients)
    assert all(gradient[7:].any() for gradient in gradients)


def test_the_second_value_of_a_key_takes_the_place_of_the_first():
    key = torch.tensor([0.6, 0.8], dtype=torch.float64).expand(2, 1, 1, 2)
    values = torch.tensor([[3.0, -1.0], [5.0, 2.0]], dtype=torch.float64).view(2, 1, 1, 2)
    sequence = (torch.zeros(1, 1, 2, 2, dtype=torch.float64), key, key, values, torch.ones(2, 1, 1, dtype=torch.float64))
    reads, matrix = memory.write_and_read(*sequence)
    assert_same(reads.flatten(1), [[3.0, -1.0], [5.0, 2.0]])
    assert_same(matrix[0, 0], [[3.0, 4.0], [1.2, 1.6]])
    reads, _ = memory.write_and_read(*sequence, corrects=False)
    assert_same(reads.flatten(1), [[3.0, -1.0], [8.0, 1.0]])


@EVERY_SEQUENCE
def test_a_read_is_the_values_with_the_recall_weights(corrects, has_decays, has_starts):
    matrix, queries, keys, values, *rates = random_sequence(has_decays, has_starts)
    reads, _ = memory.write_and_read(0 * matrix, queries, keys, values, *rates, corrects=corrects)
    weights = memory.recall_weights(queries, keys, *rates, corrects=corrects)
    assert_close(torch.einsum("tbnj,jbnv->tbnv", weights, values), reads, rtol=1e-12, atol=1e-12)
    assert not weights.permute(1, 2, 0, 3).triu(1).any()


def test_a_decay_of_each_row_is_that_rows_decay():
    stored, decays = random_memory("separate values, partly folded"), rand(B, seed=8).sigmoid()
    key, target = rand(B, H, seed=6), rand(B, H, seed=7)
    for row, decay in enumerate(decays.tolist()):
        alone = Memory(*(part[row : row + 1] for part in stored))
        expected = memory.read(memory.fade(alone, decay), key[row : row + 1])
        assert_same(memory.read(memory.fade(stored, decays), key)[row : row + 1], expected)
        expected = memory.correction(alone, key[row : row + 1], target[row : row + 1], decay)
        assert_same(memory.correction(stored, key, target, decays)[row : row + 1], expected)


def test_examples_in_the_docstrings():
    result = doctest.testmod(memory)
    assert result.attempted > 0
    assert result.failed == 0


def test_what_was_folded_stays_though_nothing_is_written_since():
    stored, query, nothing = random_memory("folded"), rand(B, H, seed=9), torch.zeros(B, dtype=torch.float64)
    silent = memory.write(stored, rand(B, H), rand(B, H), nothing, decay=1.0)
    assert_same(memory.read(memory.fold(silent), query), memory.read(stored, query))


def test_a_matrix_that_overflowed_does_not_cross_the_start_of_a_chunk():
    matrix = torch.full((1, 1, 2, 2), torch.inf)
    parts = [torch.ones(3, 1, 1, 2)] * 3 + [torch.ones(3, 1, 1)]
    reads, after = memory.write_and_read(matrix, *parts, episode_starts=torch.tensor([[True], [False], [False]]))
    assert reads.isfinite().all() and after.isfinite().all()
