"""Names for cells: the built-in ones, a user's own, and what is said of a wrong one."""

import doctest

import numpy as np
import pytest
import torch
from torch import nn

from fw_rl import cells
from fw_rl.cells import (
    AcceleratedCell,
    Backend,
    Cell,
    FastWeightsCell,
    available_cells,
    base,
    find_cell,
    make_cell,
    register_backend,
    register_cell,
)


def new_cell_class(name, module=__name__):
    def initial_state(self, batch_size):
        return (torch.zeros(batch_size, self.hidden_size),)

    def forward(self, x, state, episode_starts=None):
        return state[0].expand(len(x), -1, -1), state

    return type(name, (Cell,), {"__module__": module, "initial_state": initial_state, "forward": forward})


@pytest.mark.parametrize(
    "name, cell_class",
    [
        ("fast-weights", cells.FastWeightsCell),
        ("rnn", cells.RNNCell),
        ("lstm", cells.LSTMCell),
        ("gru", cells.GRUCell),
    ],
)
def test_a_built_in_cell_is_made_by_its_name(name, cell_class):
    assert name in available_cells()
    cell = make_cell(name, 3, 5)
    assert type(cell) is cell_class
    assert (cell.input_size, cell.hidden_size) == (3, 5)


def test_options_reach_the_class():
    cell = make_cell("fast-weights", 3, 5, eta=0.25, inner_steps=2, layer_norm=False)
    assert (cell.eta, cell.inner_steps) == (0.25, 2)
    assert isinstance(cell.norm, nn.Identity)
    assert make_cell("rnn", 3, 5, recurrent_scale=0.25).core.weight_hh_l0[0, 0] == 0.25
    assert (make_cell("lstm", 3, 5, forget_bias=3.0).core.bias_ih_l0[5:10] == 3.0).all()


def test_an_own_cell_is_made_by_name_and_listed_last():
    FlipFlop = new_cell_class("FlipFlop")
    before = available_cells()
    assert register_cell("flip-flop")(FlipFlop) is FlipFlop
    assert available_cells() == [*before, "flip-flop"]
    assert type(make_cell("flip-flop", 3, 5)) is FlipFlop


def test_the_options_of_an_own_cell_are_checked():
    @register_cell("leaky")
    class Leaky(new_cell_class("FlipFlop")):
        def __init__(self, input_size, hidden_size, leak: float = 0.1):
            super().__init__(input_size, hidden_size)
            self.leak = leak

    assert make_cell("leaky", 3, 5, leak=0.5).leak == make_cell("leaky", 3, 5, leak=np.float32(0.5)).leak == 0.5
    with pytest.raises(ValueError, match=r"^leak must be of type float, got 'high'$"):
        make_cell("leaky", 3, 5, leak="high")
    with pytest.raises(ValueError, match=r"^an option of cell 'leaky' must be one of leak, layers, got 'eta'$"):
        make_cell("leaky", 3, 5, eta=0.5)


def test_a_class_can_have_two_names():
    FlipFlop = new_cell_class("FlipFlop")
    register_cell("flip-flop")(FlipFlop)
    register_cell("toggle")(FlipFlop)
    assert type(make_cell("toggle", 3, 5)) is type(make_cell("flip-flop", 3, 5)) is FlipFlop


def test_a_class_defined_again_takes_its_name_over():
    """As when a cell of a notebook is run twice, or a module is reloaded."""
    register_cell("flip-flop")(new_cell_class("FlipFlop"))
    Again = new_cell_class("FlipFlop")
    register_cell("flip-flop")(Again)
    assert type(make_cell("flip-flop", 3, 5)) is Again
    assert available_cells().count("flip-flop") == 1


def test_another_class_cannot_take_a_name():
    with pytest.raises(ValueError, match=r"^the name of a cell must be new, got 'lstm', .* fw_rl.cells.lstm.LSTMCell$"):
        register_cell("lstm")(new_cell_class("FlipFlop"))
    assert type(make_cell("lstm", 3, 5)) is cells.LSTMCell


def test_another_class_of_the_same_name_is_refused():
    with pytest.raises(ValueError, match="must be new"):
        register_cell("lstm")(new_cell_class("LSTMCell", module="somebody.elses.lstm"))
    assert type(make_cell("lstm", 3, 5)) is cells.LSTMCell


def test_an_unknown_cell_is_answered_with_the_known_ones():
    with pytest.raises(ValueError) as caught:
        make_cell("lsmt", 3, 5)
    known = f"{', '.join(available_cells())}, or module:name for one that a module registers"
    assert str(caught.value) == f"cell must be one of {known}, got 'lsmt'"
    with pytest.raises(ValueError, match=r"^cell must be one of .*, got <class .*LSTMCell'>: see register_cell$"):
        make_cell(cells.LSTMCell, 3, 5)


def test_a_cell_of_a_module_that_nobody_has_imported_yet(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "flipping.py").write_text(
        "from fw_rl.cells import LSTMCell, register_cell\n@register_cell('flip')\nclass Flip(LSTMCell): ...\n"
    )
    assert type(make_cell("flipping:flip", 3, 5)).__name__ == "Flip"
    assert type(make_cell("flip", 3, 5)) is find_cell("flipping:flip")
    with pytest.raises(ValueError, match=r"^cell must be one of .*flip, or module:name .*, got 'flipping:flop'"):
        find_cell("flipping:flop")
    with pytest.raises(ValueError, match=r"^cell must be in a module that runs, got 'flapping:flip': .*No module"):
        find_cell("flapping:flip")


@pytest.mark.parametrize(
    "name, takes", [("rnn", "recurrent_scale, bound, layers"), ("lstm", "forget_bias, layers"), ("gru", "layers")]
)
def test_an_unknown_option_is_answered_with_the_known_ones(name, takes):
    with pytest.raises(ValueError, match=f"^an option of cell '{name}' must be one of {takes}, got 'window'$"):
        make_cell(name, 3, 5, window=4)


def test_the_options_of_fast_weights_are_listed():
    with pytest.raises(ValueError) as caught:
        make_cell("fast-weights", 3, 5, etta=0.5)
    message = str(caught.value)
    assert message.startswith("an option of cell 'fast-weights' must be one of ")
    assert "\n" not in message
    listed = message.removesuffix(", got 'etta'").split("must be one of ")[1].split(", ")
    assert {"eta", "decay", "inner_steps", "layer_norm", "method", "rule", "activation", "window"} <= set(listed)
    assert not {"self", "input_size", "hidden_size"} & set(listed)


def test_the_list_of_names_is_a_copy():
    available_cells().clear()
    assert "lstm" in available_cells()


def test_a_cell_without_its_two_methods_cannot_be_made():
    class Half(Cell):
        def initial_state(self, batch_size):
            return ()

    with pytest.raises(TypeError, match="forward"):
        Half(3, 5)


def test_examples_in_the_docstrings():
    result = doctest.testmod(base, extraglobs=dict(make_cell=make_cell))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_latest_backend_that_can_run_computes_a_cell():
    class Doubled(AcceleratedCell):
        def initial_state(self, batch_size):
            return (torch.zeros(batch_size, self.hidden_size),)

        def unroll(self, x, state, episode_starts=None):
            return 2 * x, state

    x = torch.ones(4, 2, 3)
    cell = Doubled(3, 3)

    def outputs():
        y, _ = cell(x, cell.initial_state(2), None)
        acted = cell.stepper(cell.initial_state(2)).step(x[0], torch.zeros(2, dtype=torch.bool))
        return y[0, 0, 0].item(), cell.replay(x, cell.initial_state(2), None, y)[0, 0, 0].item(), acted[0, 0].item()

    assert outputs() == (2, 2, 2)

    @register_backend(Doubled)
    class Threefold(Backend):
        def can_run(self, cell, *tensors):
            return all(tensor.dtype == torch.float32 for tensor in tensors)

        def sequence(self, cell, x, state, episode_starts, **signals):
            return 3 * x, state

    assert outputs() == (3, 3, 3)
    x = x.double()
    assert cell(x, cell.initial_state(2))[0][0, 0, 0] == 2
    assert type(FastWeightsCell(3, 3).double().backend(x)).__name__ == "NumbaFastWeights"
