"""How learning curves are drawn: a look of its own for each cell, bars within what is possible, names that do not overlap."""

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.figure import Figure

from fw_rl.cells import available_cells
from fw_rl.lines import CELLS, OTHERS, line_styles, name_ends, plot_mean, spread


def test_every_cell_has_a_colour_and_a_marker_of_its_own():
    assert {cell for cell in available_cells() if cell in CELLS} == set(CELLS)
    looks = [*CELLS.values(), *OTHERS]
    for kind in zip(*looks, strict=True):
        assert len(set(kind)) == len(looks)


def test_the_cells_of_the_paper_differ_in_grey():
    red, green, blue = np.array([matplotlib.colors.to_rgb(CELLS[cell][0]) for cell in ("fast-weights", "lstm", "rnn")]).T
    brightness = np.sort(0.299 * red + 0.587 * green + 0.114 * blue)
    assert np.diff(brightness).min() > 0.08


def test_a_cell_looks_the_same_in_every_picture():
    alone = line_styles({"lstm": "lstm"})["lstm"]
    among = line_styles({"ours": "my-cell", "fast": "fast-weights", "theirs": "lstm", "tuned": "lstm"})
    assert (alone["color"], alone["marker"]) == CELLS["lstm"] == (among["theirs"]["color"], among["tuned"]["marker"])
    assert among["theirs"]["linestyle"] == "-" != among["tuned"]["linestyle"]
    assert (among["ours"]["color"], among["ours"]["marker"]) == OTHERS[0]


def test_more_unknown_cells_than_looks_are_drawn_all_the_same():
    names = [f"cell{number}" for number in range(9)]
    assert list(line_styles(dict(zip(names, names, strict=True)))) == names


def test_nothing_is_drawn_beyond_what_is_possible():
    axes, frames = Figure().subplots(), np.arange(50)
    mean = np.linspace(0, 490, 50)
    style = line_styles({"lstm": "lstm"})["lstm"]
    plot_mean(axes, frames, [mean, mean - 100, mean + 100], style, possible=(0, 500))
    ends = np.concatenate([segment[:, 1] for segment in axes.collections[0].get_segments()])
    assert (ends.min(), ends.max()) == (0, 500)


@pytest.mark.parametrize("points", [1, 2, 7, 300])
def test_bars_of_two_lines_stand_apart(points):
    axes = Figure().subplots()
    for place in (0, 1):
        plot_mean(axes, np.arange(points), np.zeros((1, points)), line_styles({"gru": "gru"})["gru"], (place, 2))
    marked = [line.get_markevery() for line in axes.lines]
    assert all(0 <= place < points for places in marked for place in places)
    if points > 12:
        assert not set(marked[0]) & set(marked[1])


def test_names_keep_their_distance_and_move_little():
    heights = np.array([0.1, 0.5, 0.51, 0.99, 1.0])
    apart = spread(heights, gap=0.1)
    assert np.diff(apart).min() >= 0.1 - 1e-9 and apart.max() <= 1
    assert apart[0] == 0.1
    assert apart[1:3] == pytest.approx([0.455, 0.555])
    assert spread(np.zeros(0), 0.1).size == 0


def test_names_stand_in_the_order_of_the_ends():
    axes = Figure().subplots()
    styles = line_styles({cell: cell for cell in ("lstm", "gru", "rnn")})
    for cell, end in (("lstm", 1.0), ("gru", 3.0)):
        plot_mean(axes, [0, 1], [[0.0, end]], styles[cell])
    name_ends(axes, styles)
    assert [text.get_text() for text in axes.texts] == ["lstm", "gru"]
    assert axes.texts[0].get_position()[1] < axes.texts[1].get_position()[1]
