"""Which letters a net cannot tell apart: what that costs, by counting, and a run of few examples."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from fw_rl.tasks.retrieval import LETTERS, make_examples


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import retrieval_keys

    return retrieval_keys


def test_a_pair_with_one_key_costs_a_part_of_the_strings(script):
    """By a memory that has one place for two letters, on 20,000 strings."""
    examples = make_examples(20_000, 4, "test")
    wrong = 0
    for string, label in zip(examples.inputs.tolist(), examples.labels.tolist(), strict=True):
        places = {max(letter, 1): digit - LETTERS for letter, digit in zip(string[0:8:2], string[1:8:2], strict=True)}  # a is b
        wrong += places[max(string[-1], 1)] != label
    assert 100 * wrong / 20_000 == pytest.approx(script.error_of_a_pair(4), abs=0.12)
    cosines = np.eye(LETTERS)
    cosines[0, 1] = cosines[1, 0] = cosines[2, 5] = cosines[5, 2] = 0.9995
    assert script.same_keys(dict(cosines=cosines.tolist())) == 2


def test_alike_letters_stand_together(script):
    keys = np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1]])
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    assert script.groups(keys @ keys.T) == [0, 2, 3, 1]


def test_what_is_there_is_not_made_again(script, tmp_path, monkeypatch, capsys):
    settings = dict(hidden_size=6, epochs=1, examples=200, out=tmp_path)
    assert script.main(script.Settings(seeds=(0,), **settings)) == 0
    before = json.loads((tmp_path / "retrieval_keys.json").read_text())
    assert script.main(script.Settings(seeds=(1, 0), **settings)) == 0
    after = json.loads((tmp_path / "retrieval_keys.json").read_text())
    assert after[0] == before[0] and [record["seed"] for record in after] == [0, 1]
    assert np.shape(after[1]["cosines"]) == (26, 26) and len(after[1]["test_errors"]) == 1
    assert "pairs with the same key, of 325" in (tmp_path / "retrieval_keys.md").read_text()
    assert PIL.Image.open(tmp_path / "retrieval_keys.png").size > (200, 200)
    capsys.readouterr()
    assert script.main(script.Settings(cell="elephant", out=tmp_path)) == 2
    assert capsys.readouterr().err.startswith("retrieval_keys.py: error: cell must be one of ")
