"""Runs on Weights & Biases: the settings, what TensorBoard gets, and the evaluation; a resumed run continues its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from fw_rl.document import one_line
from fw_rl.experiments.checks import require_option
from fw_rl.experiments.run_folder import RunFolder
from fw_rl.experiments.settings import RunSettings
from fw_rl.files import write_json

__all__ = ["begin_tracking", "prepare_tracking"]


def prepare_tracking(project: str | None, run: Path | None) -> None:
    """Check, before anything is made, that a run can be tracked, if an option or an earlier run asks for it.

    ValueError for an invalid name or without an account, ConnectionError if the service does not answer.
    """
    if project is not None:
        fits = len(project) <= 128 and not set(project) & set("/\\#?%:")
        require_option("wandb", project, fits, "the name of a project, at most 128 characters without / \\ # ? % :")
    stored = _stored(RunFolder(run)) if run else None
    if project and stored:
        require_option("wandb", project, project == stored["project"], f"left out or {stored['project']}, as in the run")
    if project or stored:
        with _wandb() as wandb:
            wandb.login()


def begin_tracking(folder: RunFolder, config: RunSettings, project: str | None) -> Any:
    """Begin a run on Weights & Biases, or continue the one of the folder; None if neither option nor folder has one.

    It must begin before the logger, whose TensorBoard files it follows. ConnectionError if the service does not answer.
    """
    stored = _stored(folder)
    if not (project or stored):
        return None
    with _wandb() as wandb:
        run = wandb.init(
            **stored or dict(project=project),
            name=folder.path.name,
            config=dataclasses.asdict(config),
            allow_val_change=True,  # of the timesteps, if a run is made longer
            sync_tensorboard=True,
            resume="allow",
        )
    write_json(folder.wandb, dict(project=run.project, entity=run.entity or None, id=run.id))
    return run


def _stored(folder: RunFolder) -> dict[str, Any] | None:
    """The run on Weights & Biases that a folder belongs to."""
    if not folder.wandb.is_file():
        return None
    try:
        record = json.loads(folder.wandb.read_text())
        return {name: record[name] for name in ("project", "entity", "id")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder.wandb} is damaged: {one_line(error)}") from error


@contextmanager
def _wandb() -> Iterator[Any]:
    """The package wandb; its errors become a ValueError if the user can fix them, else a ConnectionError."""
    try:
        wandb = import_module("wandb")
    except ImportError as error:
        raise ModuleNotFoundError("--wandb needs wandb: pip install 'fw-rl[wandb]'") from error
    try:
        yield wandb
    except wandb.errors.UsageError as error:
        raise ValueError(f"--wandb needs an account: {one_line(error)} Or set WANDB_MODE=offline") from error
    except wandb.errors.Error as error:
        raise ConnectionError(f"Weights & Biases does not answer, WANDB_MODE=offline waits: {one_line(error)}") from error
