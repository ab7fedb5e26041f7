"""Trained agents on the Hugging Face Hub: a folder is pushed there, and `hf:USER/NAME` is fetched from there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from fw_rl.document import one_line
from fw_rl.experiments.run_folder import RunFolder
from fw_rl.modules import reason

__all__ = ["SHARED_FILES", "check_repository", "local_run", "push"]

PREFIX = "hf:"
SHARED_FILES = (
    *("README.md", "config.json", "model.safetensors", "eval.json"),
    *("episodes.gif", "learning_curve.png", "progress.csv"),
)
"""Only these files are pushed or fetched."""

TRUSTED_MODULES = ("ale_py", "bsuite", "gym_anytrading", "highway_env", "minigrid", "popgym", "shimmy")
"""Third-party environments that a fetched run may import by its `module:id`: those of the extra `envs`."""

TOO_MANY = 429
"""The HTTP status that asks to wait."""


def check_repository(option: str, name: str) -> None:
    """Check the name of a repository that an option gives."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, re.ASCII):
        raise ValueError(f"{option} must be USER/NAME, got {name!r}")


def local_run(run: Path) -> Path:
    """The folder of a run: the path itself, or for hf:USER/NAME the newest files on the Hub, or offline the cached ones.

    Nothing fetched is run, and of the modules that it names only known ones are imported. ValueError if there is no such run,
    ConnectionError if the Hub does not answer.
    """
    word = run.as_posix()
    if not word.startswith(PREFIX):
        return run
    name = word.removeprefix(PREFIX)
    check_repository("RUN", name)
    with _hub(f"RUN must be a repository that is there and that you may read, got {word}") as hub:
        folder = Path(hub.snapshot_download(name, allow_patterns=list(SHARED_FILES)))
    if not (folder / "config.json").is_file():
        raise ValueError(f"RUN must be a repository of an agent, which has config.json, got {word}")
    config = RunFolder.open(folder)[1]
    for module in (named.rpartition(":")[0] for named in (config.env, config.cell)):
        if module and module.partition(".")[0] not in TRUSTED_MODULES:
            trusted = f"if you trust it, `hf download {name} --local-dir FOLDER` makes it a folder of yours"
            raise ValueError(f"{word} asks to import the module {module}: {trusted}")
    return folder


def push(folder: Path, name: str) -> str:
    """Upload the shared files of a folder to the repository USER/NAME, which is made if it is missing; returns its address.

    ValueError if the user may not write there, ConnectionError if the Hub does not answer.
    """
    with _hub(f"--push must be a repository that your token may write to, got {name}") as hub:
        if hub.get_token() is None:
            raise ValueError("--push needs a token of the Hugging Face Hub, got none: run `hf auth login`, or set HF_TOKEN")
        address = hub.create_repo(name, exist_ok=True)
        files = list(SHARED_FILES)
        hub.upload_folder(repo_id=name, folder_path=folder, allow_patterns=files, commit_message="An agent of fw-rl")
    return str(address)


@contextmanager
def _hub(wanted: str) -> Iterator[Any]:
    """The package huggingface_hub; its errors become a ValueError if the Hub refuses, else a ConnectionError."""
    try:
        hub = import_module("huggingface_hub")
    except ImportError as error:
        raise ModuleNotFoundError("the Hugging Face Hub needs huggingface_hub: pip install 'fw-rl[hub]'") from error
    try:
        yield hub
    except ImportError as error:  # of a package that it needs itself
        raise ModuleNotFoundError(f"huggingface_hub is not whole ({reason(error)}): pip install 'fw-rl[hub]'") from error
    except Exception as error:  # of one of two HTTP clients, depending on the version
        on_file = isinstance(error, OSError) and error.errno is not None
        if on_file or (isinstance(error, ValueError) and not isinstance(error, OSError)):
            raise
        said = one_line(getattr(error, "server_message", None) or error).rstrip(".")
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if 400 <= status < 500 and status != TOO_MANY:
            raise ValueError(f"{wanted}: {said}") from error
        raise ConnectionError(f"the Hugging Face Hub does not answer: {said}") from error
