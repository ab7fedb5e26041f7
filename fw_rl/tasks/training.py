"""The training loop of every supervised task."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from fw_rl.document import one_line, pack, read_document, write_document
from fw_rl.tasks.base import Data, Split

__all__ = ["Epoch", "Training", "best_epoch", "evaluate", "train"]

tqdm.set_lock(threading.RLock())  # of this process only: a worker that Ctrl-C ends would leave a shared lock behind

Epoch = dict[str, float]
"""The results of one epoch: train_loss, valid_loss, test_loss (nats), valid_error, test_error (percent), and the processor's
seconds of training."""

_EPOCH_KEYS = {"train_loss", "valid_loss", "valid_error", "test_loss", "test_error", "seconds"}

EPOCHS_WITHOUT_ERROR = 3
"""A run stops early after this many epochs in a row without an error on the validation set."""


@dataclass(frozen=True)
class Training:
    """How a net is trained by AdamW.

    The seed is that of the net and of the order of the examples. `anneal` lets the learning rate follow a cosine down to 0. A
    gradient with a norm above `max_grad_norm` is scaled down to it.
    """

    learning_rate: float
    epochs: int
    seed: int
    batch_size: int = 128
    anneal: bool = True
    weight_decay: float = 0.0
    max_grad_norm: float | None = None


def train(
    net: nn.Module,
    data: Data,
    training: Training,
    *,
    vary: Callable[[Tensor, Generator], Tensor] | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[int, Epoch], None] | None = None,
    description: str = "",
    quiet: bool = True,
) -> list[Epoch]:
    """Train to the end, from the last complete epoch on if there is a checkpoint.

    A run that is stopped and resumed gives the same numbers as one that is not: all randomness comes from seed and epoch.
    """
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=training.weight_decay, fused=True)
    history = _load(checkpoint, net, optimizer) if checkpoint is not None and checkpoint.exists() else []
    batches = math.ceil(len(data.train.labels) / training.batch_size)
    total, done = training.epochs * batches, len(history) * batches
    with tqdm(total=total, initial=done, desc=description, unit=" batches", mininterval=0.5, disable=quiet or None) as bar:
        while len(history) < training.epochs and not _done(history):
            begin = time.process_time()
            train_loss = _train_epoch(net, optimizer, data.train, training, len(history), vary, bar)
            seconds = time.process_time() - begin
            valid_error, valid_loss = evaluate(net, data.valid)
            test_error, test_loss = evaluate(net, data.test)
            if not math.isfinite(train_loss + valid_loss + test_loss):
                raise FloatingPointError(f"the loss is not finite in epoch {len(history) + 1}: lower the learning rate")
            losses = Epoch(train_loss=train_loss, valid_loss=valid_loss, test_loss=test_loss)
            epoch = losses | dict(valid_error=valid_error, test_error=test_error, seconds=seconds)
            history.append(epoch)
            bar.set_postfix_str(f"validation error {valid_error:.2f} %", refresh=False)
            if checkpoint is not None:
                _save(checkpoint, net, optimizer, history)
            if on_epoch is not None:
                on_epoch(len(history), epoch)
    return history


def check_history(history: object) -> None:
    """ValueError, in one line, unless a file's history has the results of epochs."""
    if not isinstance(history, list) or not history:
        raise ValueError("it holds no list of epochs")
    for number, epoch in enumerate(history, 1):
        known = isinstance(epoch, dict) and epoch.keys() >= _EPOCH_KEYS
        if not known or not all(isinstance(value, int | float) for value in epoch.values()):
            raise ValueError(f"epoch {number} does not have the numbers {', '.join(sorted(_EPOCH_KEYS))}")


def best_epoch(history: list[Epoch]) -> int:
    """The number of the epoch, from 1, with the lowest error on the validation set; at equal errors that of the lowest loss."""
    return 1 + min(range(len(history)), key=lambda i: (history[i]["valid_error"], history[i]["valid_loss"]))


@torch.no_grad()
def evaluate(net: nn.Module, split: Split, batch_size: int = 1000) -> tuple[float, float]:
    """The error in percent and the mean cross-entropy in nats of a net that maps inputs [B, ...] to logits [B, classes]."""
    net.eval()
    wrong, loss = 0, 0.0
    for inputs, labels in zip(split.inputs.split(batch_size), split.labels.split(batch_size), strict=True):
        logits = net(inputs)
        wrong += int((logits.argmax(dim=1) != labels).sum())
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
    return 100 * wrong / len(split.labels), loss / len(split.labels)


def _train_epoch(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    split: Split,
    training: Training,
    epoch: int,
    vary: Callable[[Tensor, Generator], Tensor] | None,
    bar: tqdm,
) -> float:
    """One pass over the examples in a new order; the mean loss."""
    generator = torch.Generator().manual_seed(1_000_003 * training.seed + epoch)
    device = split.labels.device
    batches = torch.randperm(len(split.labels), generator=generator).to(device).split(training.batch_size)
    total = torch.zeros((), device=device)
    net.train()
    for number, rows in enumerate(batches):
        progress = (epoch + number / len(batches)) / training.epochs
        factor = (1 + math.cos(math.pi * progress)) / 2 if training.anneal else 1.0
        optimizer.param_groups[0]["lr"] = training.learning_rate * factor
        inputs = split.inputs[rows]
        loss = F.cross_entropy(net(inputs if vary is None else vary(inputs, generator)), split.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        if training.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(net.parameters(), training.max_grad_norm)
        optimizer.step()
        total += loss.detach() * len(rows)
        bar.update()
    return total.item() / len(split.labels)


def _done(history: list[Epoch]) -> bool:
    last = history[-EPOCHS_WITHOUT_ERROR:]
    return len(last) == EPOCHS_WITHOUT_ERROR and all(epoch["valid_error"] == 0 for epoch in last)


def _save(path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, history: list[Epoch]) -> None:
    tensors: dict[str, Tensor] = {}
    run = dict(net=net.state_dict(), adam=optimizer.state_dict()["state"], history=history)
    write_document(path, pack(run, "run", tensors), tensors)


def _load(path: Path, net: nn.Module, optimizer: torch.optim.Optimizer) -> list[Epoch]:
    """Load the states of net and optimiser from the file; returns the finished epochs."""
    try:
        run = read_document(path)
        check_history(run["history"])
        net.load_state_dict(run["net"])
        _check_adam(run["adam"], net)
        optimizer.load_state_dict(optimizer.state_dict() | {"state": run["adam"]})
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{path} is no checkpoint of this run ({one_line(error)}): delete it to begin the run anew") from error
    history: list[Epoch] = run["history"]
    return history


def _check_adam(state: dict[int, dict[str, Tensor]], net: nn.Module) -> None:
    """Check the shapes: Torch's fused step trusts them, and would crash."""
    for number, parameter in enumerate(net.parameters()):
        if not parameter.requires_grad:  # Adam has no state for it
            continue
        shapes = {name: tensor.shape for name, tensor in state.get(number, {}).items()}
        if shapes != {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}:
            raise ValueError("the state of Adam does not fit the net")
