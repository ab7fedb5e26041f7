"""Files that are whole or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["write_file", "write_json"]


def write_file(path: Path, content: bytes) -> None:
    """Write a temporary file, then rename it, so that no reader and no crash sees a part; makes folders that are missing."""
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
    """Write a record as JSON that a person can read, whole or not at all."""
    write_file(path, (json.dumps(record, indent=2) + "\n").encode())
