"""Files that are complete or not there."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["check_writable", "write_file", "write_json"]


def write_file(path: Path, content: bytes) -> None:
    """Write a temporary file, then rename it, so that no reader and no crash sees a part; makes missing folders."""
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(temporary, content)
        os.replace(temporary, path)
    except OSError as error:
        _remove(temporary)
        error.filename = str(path)  # which the caller knows
        raise
    except BaseException:
        _remove(temporary)
        raise


def check_writable(path: Path) -> None:
    """OSError if a file cannot be written; this neither makes nor changes it, but makes missing folders."""
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(temporary, bytes(4096))  # a full disk takes a name, but no content
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        _remove(temporary)


def write_json(path: Path, record: Any) -> None:
    """Write a record as JSON that a person can read, completely or not at all."""
    write_file(path, (json.dumps(record, indent=2) + "\n").encode())


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    with suppress(OSError):  # its folder may be gone, or a file
        path.unlink()
