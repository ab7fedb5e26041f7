"""Two uses of fast weights that HP87 §1 names, as a `fw_rl.memory`: temporary learning in one trial, and temporary bindings."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from fw_rl import memory
from fw_rl.fast_slow import associate, recall
from fw_rl.memory import Memory
from fw_rl.tasks.deblur.simulation import DeblurTask, Ensemble

__all__ = ["bind", "learn_in_one_trial"]


@torch.no_grad()
def learn_in_one_trial(
    nets: Ensemble, task: DeblurTask, decay: float, times: list[int], logit: float = 3.0
) -> dict[str, Tensor]:
    """Show each net its new associations, one by one and once, and store them in the fast weights of the last layer.

    The hidden vector h is the key, and what the output units lack of +-`logit` is the value; a rate of 1 / |h|^2 stores all of
    it. Every new association starts from fast weights at zero.

    Returns shares of bits that are right: of a new association and of all old ones before the new one is presented, `untaught`
    and `blank` [S], and at these times after one presentation, `new` and `old` [time, S].
    """
    rows = []
    for seed in range(len(task.new.inputs)):
        net = nets.member(seed)
        assert isinstance(net, nn.Sequential)
        (new, new_target), (old, old_target) = ((data.inputs[seed], data.targets[seed]) for data in (task.new, task.old))
        hidden, layer = net[:-2], cast(nn.Linear, net[-2])
        key, target = hidden(new), logit * (2 * new_target - 1)
        fast = memory.empty(len(key), key.shape[1], value_size=target.shape[1], like=key)
        untaught, blank = _right(layer(key), new_target), _right(layer(hidden(old)), old_target)
        fast = associate(layer, fast, key, target, 1 / key.square().sum(1), decay)
        # Every old association is asked of each of the memories: [new x old] rows.
        asked, wanted = hidden(old).repeat(len(key), 1), old_target.repeat(len(key), 1)
        taught = []
        for time in times:
            # A read comes one step of time after the write.
            later = memory.fade(fast, decay ** (time - 1))
            copies = Memory(*(part.repeat_interleave(len(old), 0) for part in later if part is not None))
            answers = recall(layer, later, key, decay), recall(layer, copies, asked, decay)
            taught.append((_right(answers[0], new_target), _right(answers[1], wanted)))
        rows.append((untaught, blank, *(torch.stack(parts) for parts in zip(*taught, strict=True))))
    shares = (torch.stack(parts, dim=-1) for parts in zip(*rows, strict=True))
    return dict(zip(("untaught", "blank", "new", "old"), shares, strict=True))


def _right(logits: Tensor, target: Tensor) -> Tensor:
    return ((logits > 0) == (target > 0.5)).double().mean()


@torch.no_grad()
def bind(
    scenes: int, objects: int, vocabulary: int, size: int, decay: float, later: int, generator: torch.Generator
) -> dict[str, float]:
    """Show scenes of objects, each a shape in a colour, and ask for the colours.

    Shapes and colours are random vectors of length `size` from a vocabulary. Each object is presented once, the shape as the
    input of a linear layer that knows nothing and the colour as its target. The nearest colour is the answer, if at least half
    of it is recalled.

    Returns the shares of right answers after a first scene, `first`, and after a second one with the same shapes in other
    colours, `second`; of answers that are `stale` then, those of the first scene; of shapes for which anything is `answered`
    when `later` steps have passed before the one that asks; and the `chance` of a guess.
    """
    shapes, colours = (2.0 * torch.randint(2, (2, vocabulary, size), generator=generator) - 1).unbind()
    layer = nn.Linear(size, size, bias=False)
    nn.init.zeros_(layer.weight)

    def scene() -> Tensor:
        return torch.stack([torch.randperm(vocabulary, generator=generator)[:objects] for _ in range(scenes)])

    def present(fast: Memory, seen: Tensor) -> Memory:
        for shape, colour in zip(shown.T, seen.T, strict=True):
            fast = associate(layer, fast, shapes[shape], colours[colour], 1 / size, decay)
        return fast

    def answers(fast: Memory) -> Tensor:
        """The number of a colour for each object, or -1, [scenes, objects]."""
        recalled = torch.stack([recall(layer, fast, shapes[shape], decay) for shape in shown.T], dim=1)
        similarity, nearest = (recalled @ colours.T / size).max(2)
        return nearest.where(similarity >= 0.5, -1)

    shown, first, second = scene(), scene(), scene()
    fast = present(memory.empty(scenes, size, value_size=size), first)
    again = present(fast, second)
    faded = memory.fade(again, decay**later)
    changed = first != second
    return dict(
        first=_share(answers(fast) == first),
        second=_share(answers(again) == second),
        stale=_share((answers(again) == first)[changed]),
        answered=_share(answers(faded) >= 0),
        chance=1 / vocabulary,
    )


def _share(right: Tensor) -> float:
    return right.double().mean().item()
