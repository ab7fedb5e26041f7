"""The report of `deblur` as a text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["describe"]

Record = dict[str, Any]


def describe(record: Record) -> str:
    """All sections as plain text, in the order of the paper."""
    sections = (_simulation, _ways, _theory, _uses, _recurrent)
    return "\n\n".join("\n".join(section(record)) for section in sections) + "\n"


def _simulation(record: Record) -> Iterator[str]:
    protocol, figure = record["settings"]["protocol"], record["figure_2"]
    sizes = f"{protocol['inputs']}-{protocol['hidden']}-{protocol['outputs']}"
    yield "THE SIMULATION (HP87 §4, Figure 2: figure_2.png)"
    yield f"{sizes}, {protocol['associations']} associations, then {protocol['interfering']} others; {protocol['seeds']} seeds."
    yield "Errors are means over output units, with the 95 % interval of the mean over seeds."
    yield ""
    yield f"{'':34}{'|y - d|':24}(y - d)^2"
    for name, label in (
        ("learned", "old, learned"),
        ("blurred", "old, blurred by the new"),
        ("new", "new, before rehearsal"),
    ):
        yield f"{label:34}" + "".join(f"{_interval(part):24}" for part in figure[name])
    yield f"worst seed after learning: {figure['learned_worst_seed']:.3f}"
    yield ""
    last = protocol["rehearsal_sweeps"]
    shown = sorted({1, min(5, last), last})
    yield f"Rehearsal of a part: errors |y - d| after {last} sweeps, and the improvement of unretrained over that of retrained"
    yield "associations, for |y - d| and for (y - d)^2, which is the error that is descended."
    yield f"{'part':8}{'retrained':>11}{'unretrained':>13}" + "".join(f"{f'sweep {sweep}':>16}" for sweep in shown)
    for percent, subset in figure["subsets"].items():
        absolute, squared = subset["absolute"], subset["squared"]
        ratios = (f"{absolute['ratio'][s - 1][0]:.2f} / {squared['ratio'][s - 1][0]:.2f}" for s in shown)
        ends = f"{absolute['retrained'][-1][0]:11.3f}{absolute['unretrained'][-1][0]:13.3f}"
        yield f"{percent + ' %':8}{ends}" + "".join(f"{ratio:>16}" for ratio in ratios)


def _ways(record: Record) -> Iterator[str]:
    ways, percent = record["rehearsal"], record["settings"]["subset"]
    last = next(iter(ways.values()))["times"][-1]
    yield "WHAT THE FAST WEIGHTS ADD (HP87 §1 and §6: fast_weights.png)"
    yield f"Errors |y - d| before and after rehearsal of {percent} %, and after {last} steps more without learning, while the"
    yield "fast weights decay. What rehearses: both weights at their rates; both, the slow ones at a hundredth of their rate; the"
    yield "fast ones alone; the slow ones alone, in nets that never had fast weights."
    yield ""
    columns = ("retrained", "unretrained", "new")
    yield f"{'':16}" + "".join(f"{name:^27}" for name in columns) + "new, after/before"
    for name, way in ways.items():
        curves = [way["curves"][column] for column in columns]
        cells = (f"{c['rehearsal'][0][0]:.3f} {c['rehearsal'][-1][0]:.3f} {c['forgetting'][-1][0]:.3f}" for c in curves)
        yield f"{name:16}" + "".join(f"{cell:^27}" for cell in cells) + f"{way['new_after_over_before']:10.3f}"


def _theory(record: Record) -> Iterator[str]:
    theory = record["theory"]
    yield "THE THEORY (HP87 §5, linear nets without hidden units: theory.png)"
    yield "Transfer between two random associations. Eq. 2 and Eq. 3 are the squared cosine between the inputs: the ratio of the"
    yield "expected improvements. The mean of Eq. 1 itself is another, 2/pi c asin(c) for a cosine c."
    yield ""
    yield f"{'Eq.':4}{'n':>6}{'p':>7}{'formula':>11}{'measured':>10}{'z':>7}   {'mean of Eq. 1':>14}{'measured':>10}{'z':>7}"
    scores = []
    for row in theory["equations"]:
        z = [(row[f"{part}_measured"] - row[f"{part}_formula"]) / row[f"{part}_error"] for part in ("transfer", "cosine")]
        scores.append(z[0])
        yield (
            f"{row['equation']:<4}{row['n']:6}{row['p']:7.2f}{row['transfer_formula']:11.4f}{row['transfer_measured']:10.4f}"
            f"{z[0]:7.2f}   {row['cosine_formula']:14.4f}{row['cosine_measured']:10.4f}{z[1]:7.2f}"
        )
    within = [sum(abs(z) <= bound for z in scores) for bound in (1, 2, 3)]
    yield f"z is the difference in standard errors: for Eq. 2 and 3 {within[0]} of {len(scores)} within 1, {within[1]} within 2, {within[2]} within 3."
    yield ""
    yield "Improvement of an unretrained over that of a retrained association at the start, with half of them retrained. The paper"
    yield "has the limit of large n, .25 for 0/1 and 1/n for 1, 0, -1; the formula is that of inputs of length n."
    yield f"{'inputs':12}{'n':>6}{'cases':>7}{'paper':>9}{'formula':>9}   measured"
    for row in theory["ratios"]:
        kind = "1, 0, -1" if row["signed"] else "0/1, p = .5"
        yield f"{kind:12}{row['n']:6}{row['cases']:7}{row['paper']:9.3f}{row['formula']:9.3f}   {_interval(row['measured'])}"
    yield ""
    yield "The fall of transfer (§5.3), 0/1, n = 100, 50 of 100 retrained: the ratio of what has improved so far"
    fall = theory["fall"]
    points = [f"at the start {fall['at_start']:.3f}"]
    for left in (0.5, 0.3, 0.2, 0.1):
        reached = next((i for i, value in enumerate(fall["left"]) if value <= left), None)
        if reached is not None:
            points.append(f"when {left:.0%} of the error is left {fall['ratio'][reached]:.3f}")
    yield "  " + ", ".join(points) + "."
    plane = record["figure_4"]
    worst = max(abs(a - b) for a, b in zip(plane["measured"], plane["formula"], strict=True))
    yield "Figure 4 (figure_4.png): positive transfer from "
    yield (
        f"  {plane['measured'][0]:.1%} of the circle and {plane['measured'][-1]:.1%} of the last ellipse; the formula and the run "
        f"differ by at most {worst:.1%}."
    )


def _uses(record: Record) -> Iterator[str]:
    trial, binding = record["uses"]["one_trial"], record["uses"]["binding"]
    yield "TEMPORARY LEARNING AND BINDING (HP87 §1: uses.png)"
    yield "One trial: a new association, presented once to the last layer. Bits that are right, of it and of all old ones:"
    before = f"  before {trial['new_before'][0]:.3f} and {trial['old_before'][0]:.3f}"
    steps = [0, *(i for i, time in enumerate(trial["times"]) if time in (100, 200, 500))]
    after = (f"after {trial['times'][i]} steps {trial['new'][i][0]:.3f} and {trial['old'][i][0]:.3f}" for i in steps)
    yield ", ".join([before, *after])
    yield "Binding: 4 objects a scene, each a shape in one of 16 colours, each presented once. Colours named right:"
    yield (
        f"  first scene {binding['first']:.3f}, second scene {binding['second']:.3f} (still the first scene's colour "
        f"{binding['stale']:.3f}), a guess {binding['chance']:.3f}; named at all after 300 steps {binding['answered']:.3f}"
    )


def _recurrent(record: Record) -> Iterator[str]:
    settings = record["settings"]["sequences"]
    yield "A RECURRENT CELL (recurrent.png)"
    yield (
        f"The fast-weight cell of Ba16 with {settings['sequence_units']} units learns {settings['sequences']} random sequences of "
        f"{settings['sequence_length']} vectors; its slow weights are"
    )
    yield f"blurred as above, and the fast weights alone rehearse a part. {settings['sequence_seeds']} seeds; |y - d|; no memory is eta = 0."
    yield ""
    yield f"{'':12}{'part':8}{'learned':>9}{'blurred':>9}{'retrained':>11}{'unretrained':>13}{'ratio':>8}   new: before, after, decayed"
    for name, cell in record["recurrent"].items():
        for percent, subset in cell["subsets"].items():
            curves = subset["curves"]
            ratio = subset["transfer"]["absolute"]["ratio"][-1][0]
            new = (curves["new"]["rehearsal"][0], curves["new"]["rehearsal"][-1], curves["new"]["forgetting"][-1])
            yield (
                f"{name:12}{percent + ' %':8}{cell['learned'][0]:9.3f}{curves['unretrained']['rehearsal'][0][0]:9.3f}"
                f"{curves['retrained']['rehearsal'][-1][0]:11.3f}{curves['unretrained']['rehearsal'][-1][0]:13.3f}{ratio:8.2f}   "
                + "  ".join(f"{spread[0]:.3f}" for spread in new)
            )


def _interval(spread: list[float]) -> str:
    mean, low, high = spread
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"
