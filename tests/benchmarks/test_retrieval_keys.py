"""Which letters a net cannot tell apart: the errors that this explains, by hand, and a run of few examples."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from fw_rl.tasks.base import Split
from fw_rl.tasks.retrieval import LETTERS, SYMBOLS


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import retrieval_keys

    return retrieval_keys


def test_an_error_is_explained_by_a_letter_that_is_alike(script):
    strings = torch.tensor(
        [[SYMBOLS.index(symbol) for symbol in string] for string in ("a1b2??a", "a1c2??a", "b3a1??a", "a1b2??b")]
    )
    labels = torch.tensor([1, 1, 1, 2])
    alike = np.eye(LETTERS, dtype=bool)
    alike[0, 1] = alike[1, 0] = True  # a and b

    def answers(told):
        return lambda inputs: torch.nn.functional.one_hot(torch.tensor(told), 10)

    assert script.errors(answers([2, 2, 1, 2]), Split(strings, labels), alike) == (50, 0.5)  # b's digit, and c's
    assert script.errors(answers([2, 1, 3, 1]), Split(strings, labels), alike) == (75, 1.0)
    error, explained = script.errors(answers([1, 1, 1, 2]), Split(strings, labels), alike)
    assert error == 0 and np.isnan(explained)


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
    assert "alike, of 325 pairs" in (tmp_path / "retrieval_keys.md").read_text()
    assert PIL.Image.open(tmp_path / "retrieval_keys.png").size > (200, 200)
    capsys.readouterr()
    assert script.main(script.Settings(cell="elephant", out=tmp_path)) == 2
    assert capsys.readouterr().err.startswith("retrieval_keys.py: error: cell must be one of ")
