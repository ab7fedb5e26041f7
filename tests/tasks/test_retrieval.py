"""The strings of associative retrieval, and the net that reads them."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fw_rl.cells import BA16, available_cells, make_cell
from fw_rl.tasks.retrieval import SYMBOLS, Retrieval, RetrievalNet, make_examples
from fw_rl.tasks.training import Training, evaluate, train


def as_text(string):
    """A string as the paper prints it, such as c9k8j3f1??c."""
    return "".join(SYMBOLS[index] for index in string.tolist())


@pytest.mark.parametrize("pairs", [1, 4, 26])
def test_strings_have_distinct_keys_and_answer_their_query(pairs):
    examples = make_examples(200, pairs, "train")
    for string, label in zip(examples.inputs, examples.labels.tolist(), strict=True):
        text = as_text(string)
        assert len(text) == 2 * pairs + 3
        keys, values, query = text[: 2 * pairs : 2], text[1 : 2 * pairs : 2], text[-1]
        assert keys.isalpha() and values.isdigit() and text[-3:-1] == "??"
        assert len(set(keys)) == pairs
        assert int(values[keys.index(query)]) == label


def test_letters_digits_and_places_are_drawn_alike():
    examples = make_examples(20_000, 4, "train")
    keys, query = examples.inputs[:, 0:8:2], examples.inputs[:, -1]
    letters = torch.bincount(keys.flatten(), minlength=26)
    assert letters.min() > 0.9 * letters.float().mean()
    assert torch.bincount(examples.labels).min() > 0.9 * 2000
    places = (keys == query.unsqueeze(1)).sum(0)
    assert places.sum() == 20_000
    assert places.min() > 0.95 * 5000


def test_splits_are_disjoint_repeatable_and_of_the_papers_sizes():
    data, again = Retrieval(examples=2000).load(), Retrieval(examples=2000).load()
    assert [len(split.labels) for split in data] == [2000, 200, 400]
    assert [size * 50 for size in (2000, 200, 400)] == [100_000, 10_000, 20_000]
    assert all(torch.equal(a, b) for split, twin in zip(data, again, strict=True) for a, b in zip(split, twin, strict=True))
    strings = [set(map(as_text, split.inputs)) for split in data]
    assert (data.train.inputs[:200, 0:8:2] == data.valid.inputs[:, 0:8:2]).float().mean() < 0.1  # not the same draws of letters
    assert not strings[0] & strings[1] and not strings[0] & strings[2] and not strings[1] & strings[2]


def test_to_know_digits_but_no_letters_errs_on_62_percent():
    """The plateau: guess the digit that occurs most often among the four, which is right with probability 0.3835."""
    examples = make_examples(20_000, 4, "test")
    torch.manual_seed(0)
    counts = F.one_hot(examples.inputs[:, 1:8:2] - 26, 10).sum(1) + 0.1 * torch.rand(20_000, 10)
    error = (counts.argmax(1) != examples.labels).float().mean()
    assert abs(error - 0.6165) < 0.012


@pytest.mark.parametrize("pairs, examples", [(0, 100), (27, 100), (4, 9)])
def test_impossible_strings_are_refused(pairs, examples):
    with pytest.raises(ValueError, match=r"pairs must be between 1 and 26|examples must be at least 10"):
        Retrieval(pairs, examples)


@pytest.mark.parametrize("name", available_cells())
def test_every_registered_cell_fits_and_all_of_the_net_learns(name):
    task = Retrieval(examples=10)
    net = task.make_net(task.row(name), hidden_size=8)
    inputs, labels = task.load().train
    logits = net(inputs)
    assert logits.shape == (10, 10)
    F.cross_entropy(logits, labels).backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in net.parameters())


def test_the_net_embeds_each_symbol_by_itself():
    net = RetrievalNet(make_cell("lstm", 100, 6))
    strings = make_examples(5, 2, "train").inputs
    x = net.embedding(strings.T)
    y, _ = net.cell(x, net.cell.initial_state(5))
    assert_close(net(strings), net.head(y[-1]))


def test_rows_take_options_and_any_cell_that_is_known():
    task = Retrieval()
    assert task.row("fast-weights").options == BA16
    assert task.row("fast-weights", dict(eta=0.1)).options == BA16 | dict(eta=0.1)
    assert task.row("fast-weights", dict(eta=0.1)).label == "Fast weights, eta=0.1"
    with pytest.raises(ValueError, match=r"cell must be one of rnn, lstm, .*got 'lsmt'"):
        task.row("lsmt")
    with pytest.raises(ValueError, match="cell must be in a module that runs, got 'lstms:lsmt': lstms cannot be imported"):
        task.row("lstms:lsmt")


def test_the_papers_numbers_are_for_four_pairs():
    assert Retrieval(pairs=4).paper["fast-weights", 20] == 1.81
    assert not Retrieval(pairs=3).paper


@pytest.mark.processes
@pytest.mark.parametrize("name", ["lstm", "fast-weights"])
def test_one_pair_is_learned_in_seconds(name):
    task = Retrieval(pairs=1, examples=6000)
    data = task.load()
    torch.manual_seed(0)
    net = task.make_net(task.row(name), hidden_size=20)
    assert evaluate(net, data.test)[0] > 50
    train(net, data, Training(learning_rate=1e-2, epochs=5, seed=0), vary=task.vary)
    assert evaluate(net, data.test)[0] < 1
