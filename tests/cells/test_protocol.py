"""What every cell promises: one sequence in any parts, episodes and rows that do not see each other, states that travel."""

import copy
import io
import pickle
from itertools import pairwise

import pytest
import torch
from torch.func import functional_call
from torch.testing import assert_close

from fw_rl import memory
from fw_rl.cells import ASSOCIATIVE, Cell, FastWeightsCell, available_cells, make_cell
from tests.cells.reference import rand, scrambled

T, B, I, H = 7, 3, 3, 5  # noqa: E741

VARIANTS = {
    "fast-weights, forgetful": ("fast-weights", dict(decay=0.1, eta=0.3)),
    "fast-weights, matrix": ("fast-weights", dict(window=0)),
    "fast-weights, folding": ("fast-weights", dict(window=2, inner_steps=2)),
    "fast-weights, method 2": ("fast-weights", dict(method=2, eta=0.1, layer_norm=False, activation="tanh")),
    "fast-weights, learned rates": ("fast-weights", dict(window=3, learn_eta=True, learn_decay=True)),
    "fast-weights, delta": ("fast-weights", dict(rule="delta", window=3, learn_decay=True)),
    "fast-weights, oja": ("fast-weights", dict(rule="oja", window=3, learn_eta=True)),
    "fast-weights, no slow memory": ("fast-weights", ASSOCIATIVE),
    "associative-lstm, one head": ("associative-lstm", dict(copies=2, heads=1, forget_bias=0.0)),
    "delta-net, no decay": ("delta-net", dict(heads=2, gated=False)),
    "delta-net, sum": ("delta-net", dict(heads=1, rule="sum")),
    "delta-net, keys from the output": ("delta-net", dict(heads=2, keys="output")),
    "lru, few states and a gate": ("lru", dict(states=2, glu=True)),
    "ffm, few traces": ("ffm", dict(traces=2, contexts=3)),
    "shm, three calibrations": ("shm", dict(memory_size=8, calibrations=3)),
    "shm, as in the paper": ("shm", dict(fades=False)),
    "lru-delta-net, sum": ("lru-delta-net", dict(heads=2, rule="sum", gated=True, states=3)),
    "fast-weights, two layers": ("fast-weights", dict(layers=2)),
    "gru, three layers": ("gru", dict(layers=3)),
    "delta-net, two layers": ("delta-net", dict(layers=2, keys="output")),
}
REGISTERED = available_cells()
CELLS = {name: (name, {}) for name in REGISTERED} | VARIANTS

EVERY_CELL = pytest.mark.parametrize("label", CELLS)


def build(label, *, input_size=I, hidden_size=H, seed=0):
    name, options = CELLS[label]
    return scrambled(make_cell(name, input_size, hidden_size, **options), seed=seed)


def learned(cell):
    """Names and parameters that have a gradient."""
    return [(name, parameter) for name, parameter in cell.named_parameters() if parameter.requires_grad]


def marks(*places, steps=T, rows=B):
    """Episode starts [T, B] at the given (step, row)."""
    starts = torch.zeros(steps, rows, dtype=torch.bool)
    for step, row in places:
        starts[step, row] = True
    return starts


STARTS = {
    "none": marks(),
    "at step 0 of one row": marks((0, 1)),
    "at step 0 of all rows": marks((0, 0), (0, 1), (0, 2)),
    "in all rows": marks((3, 0), (3, 1), (3, 2)),
    "anywhere": marks((0, 0), (2, 1), (3, 0), (3, 2), (4, 2), (6, 1)),
    "at every step": torch.ones(T, B, dtype=torch.bool),
}

EVERY_START = pytest.mark.parametrize("starts", STARTS.values(), ids=STARTS)


def in_parts(cell, x, starts, lengths):
    """What a sequence in parts of these lengths comes to, from a state in the middle of an episode: outputs and last state."""
    state, outputs = used_state(cell, x.shape[1]), []
    for part, part_starts in zip(x.split(lengths), starts.split(lengths), strict=True):
        y, state = cell(part, state, part_starts)
        outputs.append(y)
    return torch.cat(outputs), written_out(cell, state)


def written_out(cell, state):
    """A state in one form: fast weights as their matrix, however many of its writes are kept apart."""
    if not isinstance(cell, FastWeightsCell):
        return state
    h, fast = cell.unpack(state)
    return h, memory.fold(fast).matrix if fast.keys.shape[1] else fast.faded[:, None, None] * fast.matrix


def used_state(cell, rows=B):
    return cell(rand(4, rows, cell.input_size, seed=20), cell.initial_state(rows))[1]


def gradients(cell, y, state):
    """Of a loss that looks at every output and at the last state."""
    loss = (y * rand(*y.shape, seed=10)).sum() + sum((part * torch.arange(part.numel()).view_as(part)).sum() for part in state)
    return torch.autograd.grad(loss, [parameter for _, parameter in learned(cell)])


@EVERY_CELL
def test_shapes_and_dtypes(label):
    cell = build(label)
    assert isinstance(cell, Cell)
    assert (cell.input_size, cell.hidden_size) == (I, H)
    for steps, rows in ((1, 1), (1, B), (T, 1), (T, B)):
        y, state = cell(rand(steps, rows, I), cell.initial_state(rows))
        assert y.shape == (steps, rows, H)
        assert isinstance(state, tuple)
        assert all(part.shape[0] == rows and part.dtype == y.dtype == torch.float64 for part in state)


@EVERY_CELL
@pytest.mark.parametrize("input_size, hidden_size", [(1, 1), (1, 8), (9, 2)])
def test_input_and_hidden_sizes_are_free(label, input_size, hidden_size):
    cell = build(label, input_size=input_size, hidden_size=hidden_size)
    y, state = cell(rand(T, B, input_size), cell.initial_state(B))
    assert y.shape == (T, B, hidden_size)
    assert [part.shape for part in state] == [part.shape for part in cell.initial_state(B)]
    assert all(len(part) == B for part in state)
    assert y.isfinite().all()


@EVERY_CELL
@EVERY_START
def test_any_split_gives_the_same_outputs_states_and_gradients(label, starts):
    cell, x = build(label), rand(T, B, I, seed=1)
    y, state = in_parts(cell, x, starts, [T])
    expected = gradients(cell, y, state)
    assert all(gradient.isfinite().all() for gradient in expected)
    assert starts.all() or all(gradient.any() for gradient in expected)
    for lengths in ([1] * T, *([cut, T - cut] for cut in range(1, T))):
        parts_y, parts_state = in_parts(cell, x, starts, lengths)
        assert_close(parts_y, y, rtol=1e-10, atol=1e-10)
        assert_close(parts_state, state, rtol=1e-10, atol=1e-10)
        assert_close(gradients(cell, parts_y, parts_state), expected, rtol=1e-8, atol=1e-8)


@EVERY_CELL
def test_no_starts_are_starts_that_are_all_false(label):
    cell, x, state = build(label), rand(T, B, I, seed=1), used_state(build(label))
    y, last = cell(x, state)
    assert_close((y, last), cell(x, state, torch.zeros(T, B, dtype=torch.bool)), rtol=1e-12, atol=1e-12)


@EVERY_CELL
def test_an_episode_start_is_the_initial_state(label):
    cell, x = build(label), rand(T, B, I, seed=1)
    fresh, _ = cell(x, cell.initial_state(B))
    stale, _ = cell(x, used_state(cell))
    restarted, _ = cell(x, used_state(cell), STARTS["at step 0 of all rows"])
    assert_close(restarted, fresh, rtol=1e-12, atol=1e-12)
    assert (stale - fresh).abs().max() > 1e-3
    one_row, _ = cell(x, used_state(cell), STARTS["at step 0 of one row"])
    assert_close(one_row[:, 1], fresh[:, 1], rtol=1e-12, atol=1e-12)
    assert_close(one_row[:, [0, 2]], stale[:, [0, 2]], rtol=1e-12, atol=1e-12)


@EVERY_CELL
@EVERY_START
def test_every_episode_is_that_episode_run_alone(label, starts):
    cell, x = build(label), rand(T, B, I, seed=1)
    y, _ = cell(x, cell.initial_state(B), starts)
    for row in range(B):
        edges = sorted({0, T, *starts[:, row].nonzero().flatten().tolist()})
        for begin, end in pairwise(edges):
            alone, _ = cell(x[begin:end, row : row + 1], cell.initial_state(1))
            assert_close(y[begin:end, row : row + 1], alone, rtol=1e-10, atol=1e-10)


@EVERY_CELL
@pytest.mark.parametrize("starts", [STARTS["none"], STARTS["anywhere"]], ids=["one episode", "episodes"])
def test_an_output_depends_on_its_own_past_alone(label, starts):
    cell, x = build(label), rand(T, B, I, seed=1).requires_grad_()
    if getattr(cell, "activation", "relu") == "relu":
        with torch.no_grad():  # so that few units are silent, and a dependence shows in the gradient
            for name, parameter in cell.named_parameters():
                if name in ("norm.bias", "core.bias_ih_l0"):
                    parameter.fill_(2.0)
    state = tuple(part.requires_grad_() for part in used_state(cell.requires_grad_(False)))
    y, _ = cell(x, state, starts)
    projected = (y * rand(H, seed=2)).sum(dim=2)
    for t in range(T):
        for row in range(B):
            by_x, by_state = torch.autograd.grad(projected[t, row], (x, state[0]), retain_graph=True)
            begin = max((step for step in range(t + 1) if starts[step, row]), default=None)
            depends = torch.zeros(T, B, dtype=torch.bool)
            depends[begin or 0 : t + 1, row] = True
            assert torch.equal(by_x.any(dim=2), depends)
            assert torch.equal(by_state.flatten(1).any(dim=1), (torch.arange(B) == row) & (begin is None))


@EVERY_CELL
def test_not_even_an_overflow_crosses_an_episode_start(label):
    cell, x = build(label), rand(T, B, I, seed=1)
    expected, _ = cell(x, cell.initial_state(B), marks((5, 1)))
    x[4, 1] = float("nan")
    y, state = cell(x, cell.initial_state(B), marks((5, 1)))
    assert y[4, 1].isnan().any()
    assert_close(y[5:], expected[5:], rtol=1e-12, atol=1e-12)
    assert all(part.isfinite().all() for part in state)


@EVERY_CELL
@pytest.mark.parametrize("rows", [[2, 0, 1], [1], [2, 2, 0, 1, 0]], ids=["permuted", "one", "repeated"])
def test_a_state_indexed_by_row_goes_on_with_those_rows(label, rows):
    cell, x = build(label), rand(T, B, I, seed=1)
    expected, _ = cell(x, cell.initial_state(B), STARTS["anywhere"])
    for cut in range(1, T):
        _, state = cell(x[:cut], cell.initial_state(B), STARTS["anywhere"][:cut])
        chosen = tuple(part[rows] for part in state)
        y, _ = cell(x[cut:, rows], chosen, STARTS["anywhere"][cut:, rows])
        assert_close(y, expected[cut:, rows], rtol=1e-10, atol=1e-10)


@EVERY_CELL
def test_a_detached_state_cuts_the_graph_and_keeps_the_numbers(label):
    cell, x = build(label), rand(T, B, I, seed=1).requires_grad_()
    expected, _ = cell(x, cell.initial_state(B))
    _, state = cell(x[:4], cell.initial_state(B))
    y, _ = cell(x[4:], tuple(part.detach() for part in state))
    assert_close(y, expected[4:], rtol=1e-10, atol=1e-10)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert not gradient[:4].any()
    assert gradient[4:].any()


@EVERY_CELL
def test_a_state_can_be_cloned_saved_and_pickled(label):
    cell, x = build(label), rand(T, B, I, seed=1)
    with torch.no_grad():
        state = used_state(cell)
        expected, _ = cell(x, state)
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        for twin in (tuple(part.clone() for part in state), torch.load(file), pickle.loads(pickle.dumps(state))):
            assert_close(cell(x, twin)[0], expected, rtol=0, atol=0)


@EVERY_CELL
def test_a_state_changes_its_dtype_with_the_cell(label):
    cell, x = build(label), rand(T, B, I, seed=1)
    state = used_state(cell)
    expected, _ = cell(x, state)
    y, last = cell.float()(x.float(), tuple(part.to(torch.float32) for part in state))
    assert {part.dtype for part in (y, *last)} == {torch.float32}
    assert_close(y.double(), expected, rtol=1e-3, atol=1e-4)


@EVERY_CELL
def test_a_step_stays_on_the_device_and_waits_for_nothing(label):
    if CELLS[label][0] == "fast-weights":
        pytest.skip("plain Torch asks which rows start an episode; Triton's kernels do not")
    cell = build(label).to("meta")
    stepper = cell.stepper(cell.initial_state(B))
    y = stepper.step(cell.initial_state(B)[0].new_empty(B, I), torch.empty(B, dtype=torch.bool, device="meta"))
    assert {part.device.type for part in (*cell.initial_state(B), y, *stepper.state)} == {"meta"}


@EVERY_CELL
def test_a_call_leaves_its_arguments_as_they_were(label):
    cell, x, starts = build(label), rand(T, B, I, seed=1), STARTS["anywhere"].clone()
    state = used_state(cell)
    copies = [tensor.clone() for tensor in (x, starts, *state)]
    first = cell(x, state, starts)
    cell.diagnostics(x, state, starts)
    assert all(torch.equal(tensor, copied) for tensor, copied in zip((x, starts, *state), copies, strict=True))
    assert_close(cell(x, state, starts), first, rtol=0, atol=0)


@pytest.mark.parametrize("steps", [1, T])
@EVERY_CELL
def test_writing_into_an_output_leaves_the_state_alone(label, steps):
    cell = build(label)
    with torch.no_grad():
        y, state = cell(rand(steps, B, I, seed=1), cell.initial_state(B))
        copies = [part.clone() for part in state]
        y.fill_(7.0)
    assert_close(state, tuple(copies), rtol=0, atol=0)


@EVERY_CELL
def test_writing_into_h_leaves_the_rest_of_a_state_alone(label):
    h, *rest = build(label).initial_state(B)
    h.fill_(7.0)
    assert not any(part.any() for part in rest)


@EVERY_CELL
def test_a_state_dict_carries_a_cell_over(label):
    cell, other, x = build(label), build(label, seed=1), rand(T, B, I, seed=1)
    y, _ = cell(x, cell.initial_state(B), STARTS["anywhere"])
    assert (other(x, other.initial_state(B), STARTS["anywhere"])[0] - y).abs().max() > 1e-3
    file = io.BytesIO()
    torch.save(cell.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert_close(other(x, other.initial_state(B), STARTS["anywhere"])[0], y, rtol=0, atol=0)


@EVERY_CELL
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda cell: pickle.loads(pickle.dumps(cell))], ids=["copied", "pickled"])
def test_a_cell_can_be_copied_and_sent_to_another_process(label, copied):
    cell, x = build(label), rand(T, B, I, seed=1)
    twin = copied(cell)
    assert_close(twin(x, twin.initial_state(B)), cell(x, cell.initial_state(B)), rtol=0, atol=0)
    assert not {id(parameter) for parameter in twin.parameters()} & {id(parameter) for parameter in cell.parameters()}


@EVERY_CELL
def test_bfloat16_is_near_float32(label):
    cell = build(label).bfloat16()
    x, starts = rand(T, B, I, seed=1).bfloat16(), STARTS["anywhere"]
    y, state = cell(x, cell.initial_state(B), starts)
    assert {part.dtype for part in (y, *state)} == {torch.bfloat16}
    if cell.attends:
        assert cell.attention(x, cell.initial_state(B), starts).dtype == torch.bfloat16
    cell.float()
    exact, _ = cell(x.float(), cell.initial_state(B), starts)
    assert (y.float() - exact).norm() < 0.03 * exact.norm()


@EVERY_CELL
def test_bfloat16_learns(label):
    cell = build(label).bfloat16()
    y, _ = cell(rand(T, B, I, seed=1).bfloat16(), cell.initial_state(B), STARTS["anywhere"])
    y.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for _, parameter in learned(cell))


@EVERY_CELL
def test_gradients_are_finite_differences(label):
    cell = build(label, input_size=2, hidden_size=3)
    names, parameters = zip(*learned(cell), strict=True)
    x, state = rand(4, 2, 2, seed=1), used_state(cell, 2)
    starts = marks((2, 0), steps=4, rows=2)

    def outputs_and_last_state(x, *tensors):
        values, state = dict(zip(names, tensors, strict=False)), tensors[len(names) :]
        y, last = functional_call(cell, values, (x, state, starts))
        return y, *last

    leaves = [tensor.detach().clone().requires_grad_() for tensor in (x, *parameters, *state)]
    assert torch.autograd.gradcheck(outputs_and_last_state, leaves)


@EVERY_CELL
def test_diagnostics_are_floats_by_name(label):
    cell = build(label)
    values = cell.diagnostics(rand(T, B, I), cell.initial_state(B), STARTS["anywhere"])
    assert all(isinstance(name, str) and type(value) is float for name, value in values.items())


@EVERY_CELL
def test_a_representation_names_the_class_and_the_sizes(label):
    cell = build(label)
    assert repr(cell).startswith(f"{type(cell).__name__}(")
    assert f"input_size={I}, hidden_size={H}" in repr(cell)


def shapes(state):
    return [part.shape for part in state]


@EVERY_CELL
def test_the_shapes_of_a_state_never_change(label):
    cell, x = build(label), rand(40, B, I)
    promised = shapes(cell.initial_state(B))
    assert all(shape[0] == B for shape in promised)
    assert [shape[1:] for shape in shapes(cell.initial_state(1))] == [shape[1:] for shape in promised]
    state, starts = cell.initial_state(B), marks((9, 1), (20, 0), (20, 1), (20, 2), steps=40)
    stepper = cell.stepper(state)
    with torch.no_grad():
        for t in range(40):
            _, state = cell(x[t : t + 1], state, starts[t : t + 1])
            stepper.step(x[t], starts[t])
            assert shapes(state) == shapes(stepper.state) == promised
        for steps in (1, 2, 40):
            for given in (None, starts[:steps], torch.ones(steps, B, dtype=torch.bool)):
                assert shapes(cell(x[:steps], state, given)[1]) == promised
    assert shapes(cell(x, state, starts)[1]) == promised


@EVERY_CELL
def test_states_of_different_moments_go_on_together(label):
    cell, x, starts = build(label), rand(T, B, I, seed=1), STARTS["anywhere"]
    states, expected = [cell.initial_state(B)], []
    for t in range(3):
        states.append(cell(x[t : t + 1], states[-1], starts[t : t + 1])[1])
    expected = torch.cat([cell(x[3:], state, starts[3:])[0] for state in states], dim=1)
    together = tuple(torch.cat(parts) for parts in zip(*states, strict=True))
    y, _ = cell(x[3:].repeat(1, 4, 1), together, starts[3:].repeat(1, 4))
    assert_close(y, expected, rtol=1e-10, atol=1e-10)


def test_the_cells_that_attend_say_so():
    for name in REGISTERED:
        cell = make_cell(name, I, H)
        x, state = torch.zeros(T, B, I), cell.initial_state(B)
        if cell.attends:
            assert cell.attention(x, state).shape == (T, B, T)
        else:
            with pytest.raises(ValueError, match=f"a cell with attention must be used, got {type(cell).__name__}"):
                cell.attention(x, state)
