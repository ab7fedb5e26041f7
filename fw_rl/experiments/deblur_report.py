"""The report of `deblur` as a text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["describe"]

Record = dict[str, Any]


def describe(record: Record) -> str:
    """All sections as plain text, in the order of the paper."""
    sections = (_simulation, _ways, _theory, _uses, _recurrent)
    parts = ("\n".join(line.rstrip() for line in section(record)) for section in sections)
    return "\n\n".join([record["command"], *parts]) + "\n"


def _simulation(record: Record) -> Iterator[str]:
    protocol, figure = record["settings"]["protocol"], record["figure_2"]
    sizes = f"{protocol['inputs']}-{protocol['hidden']}-{protocol['outputs']}"
    yield "THE SIMULATION (HP87 §4, Figure 2: figure_2.png)"
    yield f"{sizes}, {protocol['associations']} associations, then {protocol['interfering']} others; {protocol['seeds']} seeds."
    yield "Errors are means over output units, with the 95 % interval of the mean over seeds."
    yield ""
    yield f"{'':34}{'|y - d|':24}(y - d)^2"
    labels = dict(learned="old, learned", blurred="old, blurred by the new", new="new, before rehearsal")
    for name, label in labels.items():
        yield f"{label:34}" + "".join(f"{_interval(part):24}" for part in figure[name])
    yield f"worst seed after learning: {figure['learned_worst_seed']:.3f}"
    yield ""
    last = protocol["rehearsal_sweeps"]
    shown = sorted({1, min(5, last), last})
    yield f"Rehearsal of a part: errors |y - d| after {last} sweeps, and the improvement of unretrained over that of retrained"
    yield "associations, for |y - d| and for (y - d)^2, which is the error that is minimised."
    sweeps = "".join(f"{f'sweep {sweep}':14}" for sweep in shown)
    yield f"{'part':6}{'retrained':24}{'unretrained':24}{sweeps}its interval for |y - d|"
    for percent, subset in figure["subsets"].items():
        absolute, squared = subset["absolute"], subset["squared"]
        ratios = (f"{absolute['ratio'][s - 1][0]:.2f} / {squared['ratio'][s - 1][0]:.2f}" for s in shown)
        ends = (f"{_interval(absolute[kind][-1]):24}" for kind in ("retrained", "unretrained"))
        _, low, high = absolute["ratio"][-1]
        row = "".join([f"{percent + ' %':6}", *ends, *(f"{ratio:14}" for ratio in ratios)])
        yield f"{row}{low:.2f} to {high:.2f}"


def _ways(record: Record) -> Iterator[str]:
    ways, percent = record["rehearsal"], record["settings"]["subset"]
    last = next(iter(ways.values()))["times"][-1]
    yield "WHAT THE FAST WEIGHTS ADD (HP87 §1 and §6: fast_weights.png)"
    yield f"Errors |y - d| before and after rehearsal of {percent} %, and after {last} more steps without learning, while the"
    yield "fast weights decay. What rehearses: both weights at their rates; both, the slow ones at a hundredth of their"
    yield "rate; the fast ones alone; the slow ones alone, in nets that never had fast weights."
    yield ""
    columns = ("retrained", "unretrained", "new")
    yield f"{'':16}" + "".join(f"{name:^24}" for name in columns) + "new, after/before"
    for name, way in ways.items():
        curves = [way["curves"][column] for column in columns]
        cells = (f"{c['rehearsal'][0][0]:.3f} {c['rehearsal'][-1][0]:.3f} {c['forgetting'][-1][0]:.3f}" for c in curves)
        yield f"{name:16}" + "".join(f"{cell:^24}" for cell in cells) + f"{way['new_after_over_before']:10.3f}"


def _theory(record: Record) -> Iterator[str]:
    theory, plane = record["theory"], record["figure_4"]
    yield "THE THEORY (HP87 §5, linear nets without hidden units: theory.png)"
    yield "Transfer between two random associations. Eq. 2 and Eq. 3 are the squared cosine between the inputs: the ratio"
    yield "of the expected improvements. The mean of Eq. 1 itself differs: 2/pi c asin(c) for a cosine c."
    yield ""
    yield f"{'Eq.':4}{'n':>6}{'p':>7}{'formula':>11}{'measured':>10}{'z':>7}   {'mean of Eq. 1':>14}{'measured':>10}{'z':>7}"
    scores = []
    for row in theory["equations"]:
        z, z_cosine = (_standard_errors(row, part) for part in ("transfer", "cosine"))
        scores.append(z)
        transfer = f"{row['transfer_formula']:11.4f}{row['transfer_measured']:10.4f}{z:7.2f}"
        cosine = f"{row['cosine_formula']:14.4f}{row['cosine_measured']:10.4f}{z_cosine:7.2f}"
        yield f"{row['equation']:<4}{row['n']:6}{row['p']:7.2f}{transfer}   {cosine}"
    one, two = (sum(abs(z) <= bound for z in scores) for bound in (1, 2))
    spread, chance = sum(z * z for z in scores) / len(scores), (2 / len(scores)) ** 0.5
    yield f"z is the difference in standard errors: of {len(scores)} for Eq. 2 and 3, {one} are within 1 and {two} within 2;"
    yield f"the mean of z^2 is {spread:.2f}, where chance gives 1, plus or minus {chance:.2f}."
    yield ""
    yield "The same averaged over random pairs: the limit for large n, the formula for inputs of length n, Monte Carlo."
    yield f"{'inputs':12}{'n':>6}{'limit':>9}{'formula':>9}{'measured':>10}"
    for row in theory["transfers"]:
        yield f"{_kind(row):12}{row['n']:6}{row['limit']:9.4f}{row['formula']:9.4f}{row['measured']:10.4f}"
    yield ""
    yield "Improvement of an unretrained over that of a retrained association at the start, with half of them retrained:"
    yield f"{'inputs':12}{'n':>6}{'cases':>7}{'limit':>9}{'formula':>9}   measured"
    for row in theory["ratios"]:
        expected = f"{row['limit']:9.3f}{row['formula']:9.3f}"
        yield f"{_kind(row):12}{row['n']:6}{row['cases']:7}{expected}   {_interval(row['measured'])}"
    yield ""
    yield "The fall of transfer (§5.3), 0/1, n = 100, 50 of 100 retrained: the ratio for what has improved so far"
    yield "  " + ", ".join(_fall(theory["fall"]))
    worst = max(abs(a - b) for a, b in zip(plane["measured"], plane["formula"], strict=True))
    first, last = plane["measured"][0], plane["measured"][-1]
    yield f"Figure 4 (figure_4.png): positive transfer from {first:.1%} of the circle and {last:.1%} of the last ellipse;"
    yield f"  run and formula differ by at most {worst:.1%}."


def _standard_errors(row: Record, part: str) -> float:
    """How far the measured value lies from the formula."""
    difference, error = row[f"{part}_measured"] - row[f"{part}_formula"], row[f"{part}_error"]
    return float(difference / error) if error else 0.0


def _fall(fall: Record) -> Iterator[str]:
    yield f"at the start {fall['at_start']:.3f}"
    for share in (0.5, 0.7, 0.8, 0.9):
        reached = next((i for i, left in enumerate(fall["left"]) if left <= 1 - share), None)
        if reached is not None:
            yield f"with {share:.0%} of the error gone {fall['ratio'][reached]:.3f}"


def _uses(record: Record) -> Iterator[str]:
    trial, binding = record["uses"]["one_trial"], record["uses"]["binding"]
    yield "TEMPORARY LEARNING AND BINDING (HP87 §1: uses.png)"
    yield "One trial: a new association, presented once to the last layer. Shares of correct bits:"
    yield f"{'steps since':>13}{'the new one':>13}{'all old ones':>14}"
    yield f"{'(before)':>13}{trial['new_before'][0]:13.3f}{trial['old_before'][0]:14.3f}"
    for time, new, old in zip(trial["times"], trial["new"], trial["old"], strict=True):
        if time in (1, 50, 100, 200, 500):
            yield f"{time:13}{new[0]:13.3f}{old[0]:14.3f}"
    yield "Binding: 4 objects per scene, each a shape in one of 16 colours, each presented once. Colours named correctly:"
    yield f"  first scene {binding['first']:.3f}, second scene {binding['second']:.3f}, a guess {binding['chance']:.3f}."
    stale, answered = f"{binding['stale']:.3f}", f"{binding['answered']:.3f}"
    yield f"  The first scene's colour in the second scene {stale}; any colour after 300 steps {answered}."


def _recurrent(record: Record) -> Iterator[str]:
    settings = record["settings"]["sequences"]
    units, count, length, seeds = (settings[f"sequence{name}"] for name in ("_units", "s", "_length", "_seeds"))
    yield "A RECURRENT CELL (recurrent.png)"
    yield f"The fast-weight cell of Ba16, {units} units, learns {count} sequences of {length} random vectors and is blurred;"
    yield f"then the fast weights alone rehearse a part. Errors |y - d|, {seeds} seeds. The ratio is that of the improvements,"
    yield "unretrained over retrained, with its 95 % interval. 'no memory' has an eta of 0."
    yield ""
    errors = f"{'learned':>9}{'blurred':>9}{'retrained':>11}{'unretrained':>13}"
    yield f"{'':10}{'part':>5}{errors}   {'ratio':24}new: before, after, decayed"
    for name, cell in record["recurrent"].items():
        for percent, subset in cell["subsets"].items():
            retrained, unretrained, new = (subset["curves"][part] for part in ("retrained", "unretrained", "new"))
            before, after = unretrained["rehearsal"][0][0], unretrained["rehearsal"][-1][0]
            errors = f"{cell['learned'][0]:9.3f}{before:9.3f}{retrained['rehearsal'][-1][0]:11.3f}{after:13.3f}"
            ratio = _interval(subset["transfer"]["absolute"]["ratio"][-1])
            course = (new["rehearsal"][0], new["rehearsal"][-1], new["forgetting"][-1])
            yield f"{name:10}{percent:>3} %{errors}   {ratio:24}" + "  ".join(f"{spread[0]:.3f}" for spread in course)


def _kind(row: Record) -> str:
    return "1, 0, -1" if row["signed"] else "0/1, p = .5"


def _interval(spread: list[float]) -> str:
    mean, low, high = spread
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"
