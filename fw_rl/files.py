"""Files that are whole or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["write_file", "write_json"]


def write_file(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, then rename it, so that no reader and no crash ever sees a part.

    Args:
        path: Where to; folders that are missing are made.
        content: The whole file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, record: Any) -> None:
    """Write a record as JSON that a person can read, as `write_file` does.

    Args:
        path: Where to.
        record: What JSON can hold.
    """
    write_file(path, (json.dumps(record, indent=2) + "\n").encode())
