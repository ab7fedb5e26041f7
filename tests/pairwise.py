"""Few combinations of many choices, in which every two choices meet."""

from itertools import combinations, product

import pytest


def pairwise(**axes):
    """A parametrization over the axes' values (a list, or a dictionary by label) in which every pair of two axes occurs.

    Faults that need three particular values at once are rare; those that need two are found here, by a fraction of the product.
    """
    values = {name: choices if isinstance(choices, dict) else {str(c): c for c in choices} for name, choices in axes.items()}
    cases = _covering([len(choices) for choices in values.values()])
    labels = [[list(choices)[i] for choices, i in zip(values.values(), case, strict=True)] for case in cases]
    rows = [[choices[label] for choices, label in zip(values.values(), row, strict=True)] for row in labels]
    return pytest.mark.parametrize(", ".join(values), rows, ids=["-".join(row) for row in labels])


def _covering(sizes):
    """Cases of indices below the sizes, such that every two indices of two places occur together in one of them."""
    missing = {
        ((i, a), (j, b)) for i, j in combinations(range(len(sizes)), 2) for a, b in product(range(sizes[i]), range(sizes[j]))
    }
    cases = []
    while missing:
        case = dict(min(missing))
        for place in sorted(set(range(len(sizes))) - set(case)):
            # Of equals the one that comes next, so that all are used alike.
            order = [(len(cases) + n) % sizes[place] for n in range(sizes[place])]
            gains = [sum(tuple(sorted([(place, i), other])) in missing for other in case.items()) for i in order]
            case[place] = order[gains.index(max(gains))]
        missing -= set(combinations(sorted(case.items()), 2))
        cases.append([case[place] for place in range(len(sizes))])
    return cases
