"""Which settings of a sweep are its best, and what its report says."""

import math

from fw_rl.experiments.search.learning import Learning
from fw_rl.experiments.search.swept import Swept, report


def of_trial(number, area=0.0, parameters=None, **others):
    given = dict(settings=dict(timesteps=100, seed=number), parameters=parameters or {"a": number}, greedy=area, seconds=1.0)
    return Learning(returns=[area] * 10, **given | others)


def rows(swept, importances=None):
    """The lines of a report, without the spaces that align its table."""
    return [" ".join(line.split()) for text in report("Catch", swept, importances or {}) for line in text.splitlines()]


def test_equal_settings_are_one_finalist():
    alike = [of_trial(0, 0.5, {"a": 1}), of_trial(1, 0.4, {"a": 1}), of_trial(2, 0.3, {"a": 2})]
    assert [trial.seed for trial in Swept(alike).finalists] == [0, 2]


def test_the_best_come_first():
    trials = [of_trial(0, 0.1), of_trial(1, 0.3), of_trial(2, 0.9, diverged=True), of_trial(3, 0.2)]
    assert [trial.seed for trial in Swept(trials).ranked] == [1, 3, 0]
    assert Swept(trials).chosen == trials[1]
    assert Swept(trials[2:3]).chosen is None
    seeds = [of_trial(9 + i, area, {"a": 1}, greedy=greedy) for i, (area, greedy) in enumerate(((0.5, 0.95), (0.7, 0.9)))]
    lines = rows(Swept([*trials, of_trial(4, math.nan, pruned=True)], seeds=seeds), {"a": 1.0})
    assert lines[0] == "## Catch: 5 trials, 1 diverged, 1 pruned"
    assert "| 1 | 0.300 | | 0.300 | 0.300 | 1 |" in lines
    assert lines[-1] == (
        "The best settings, those of trial 1, with 2 new seeds: area 0.600 (-0.671 to 1.871), 1 of 2 at 0.95 greedy."
    )


def test_new_seeds_decide_among_the_finalists():
    trials = [of_trial(0, 0.5), of_trial(1, 0.4), of_trial(2, 0.3)]
    finals = [of_trial(5_000 + i, area, {"a": i // 2}) for i, area in enumerate((0.1, 0.2, 0.1, 0.4))]
    assert Swept(trials, finals).chosen == trials[1]
    for area in (math.nan, 0.9):  # what was learned before does not count
        lost = of_trial(5_002, area, {"a": 1}, diverged=True)
        assert Swept(trials, [*finals, lost]).chosen == trials[0]
    lines = rows(Swept(trials, finals, [of_trial(9, 0.7, {"a": 1})]))
    assert "| 0 | 0.500 | 0.150 (2) | 0.500 | 0.500 | 0 |" in lines
    assert "| 1 | 0.400 | 0.250 (2) | 0.400 | 0.400 | 1 |" in lines
    assert "| 2 | 0.300 | | 0.300 | 0.300 | 2 |" in lines
    assert lines[-1].startswith("The best settings, those of trial 1, with 1 new seeds: area 0.700, ")
