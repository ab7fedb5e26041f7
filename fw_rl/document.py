"""Nested values as one safetensors file: tensors, and one JSON document that says what they are.

Reading a file runs no code from it: there is no pickle, and a class that the document names is looked up among `CLASSES`, never
imported. The document is plain JSON except for objects with one key that begins with "$": {"$tensor": name}, {"$array": name}
(of NumPy, but stored as a tensor), {"$tuple": [...]}, {"$float": "inf"}, {"$class": "torch.nn.Tanh"}, and {"$items": [[key,
value], ...]} for a dictionary whose keys are not just strings.

A file whose name ends with .safetensors is that file; any other is a zip archive, as SB3's files are, in which it is the only
member, not compressed. A checksum covers all of its bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from fw_rl.files import write_file

__all__ = ["CheckpointError"]

FORMAT, VERSION = "fw_rl", 2
SUFFIX = ".safetensors"
MEMBER = "checkpoint.safetensors"
"""The only member of a zip archive."""

CHECKSUM = re.compile(rb'"sha256":"([0-9a-f]{64})"')
"""The checksum in the header, where quotation marks inside a text are escaped, so that nothing else looks like it."""

CLASSES: dict[str, type] = {}
"""The classes that a file may name, as for `policy_kwargs=dict(activation_fn=torch.nn.Tanh)`."""

CLASS_NAMES: dict[type, str] = {}

Json = Any
"""What `json.dumps` takes."""


def allow_classes(module: ModuleType) -> None:
    """Let files name the modules and optimizers of a Python module."""
    for name, value in vars(module).items():
        if isinstance(value, type) and issubclass(value, nn.Module | torch.optim.Optimizer):
            CLASSES[f"{module.__name__}.{name}"] = value
            CLASS_NAMES[value] = f"{module.__name__}.{name}"


for _module in (torch.nn, torch.optim):
    allow_classes(_module)


class CheckpointError(ValueError):
    """A file that is not a complete checkpoint, or does not fit what it is loaded into."""


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """No file at all, which SB3's users expect to be a FileNotFoundError."""


def pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Json:
    """The value as JSON, with its tensors and arrays put into `tensors`; raises TypeError for anything else."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, Tensor):
        return {"$tensor": _keep(value, name, tensors)}
    if isinstance(value, np.ndarray):
        native = np.array(value, dtype=value.dtype.newbyteorder("="))
        return {"$array": _keep(torch.from_numpy(native), name, tensors)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list):
        return [pack(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"$tuple": pack(list(value), name, tensors)}
    if isinstance(value, dict):
        packed = [[pack(key, name, tensors), pack(item, f"{name}.{key}", tensors)] for key, item in value.items()]
        plain = all(isinstance(key, str) and not key.startswith("$") for key in value)
        return dict(packed) if plain else {"$items": packed}
    if isinstance(value, type) and value in CLASS_NAMES:
        return {"$class": CLASS_NAMES[value]}
    raise TypeError(f"{name} is neither JSON nor an array: {one_line(value)}")


def _keep(tensor: Tensor, name: str, tensors: dict[str, Tensor]) -> str:
    if tensor.is_complex() or tensor.layout is not torch.strided:
        raise TypeError(f"{name} is {tensor.dtype} and {tensor.layout}: a file holds strided tensors of real numbers")
    while name in tensors:
        name += "'"
    tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return name


def pack_if_possible(values: dict[str, Any], prefix: str, tensors: dict[str, Tensor], not_stored: list[str]) -> dict[str, Json]:
    """The values packed, except those that cannot be, whose names go to `not_stored`: a training must not be lost to them."""
    packed = {}
    for name, value in values.items():
        known = len(tensors)
        try:
            packed[name] = pack(value, prefix + name, tensors)
        except (TypeError, ValueError, RecursionError):
            not_stored.append(prefix + name)
            while len(tensors) > known:
                tensors.popitem()
    return packed


def unpack(value: Json, tensors: dict[str, Tensor]) -> Any:
    """What `pack` was given; removes the tensors that it needs from `tensors`."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value)) if len(value) == 1 else ""
    if not tag.startswith("$"):
        return {key: unpack(item, tensors) for key, item in value.items()}
    content = value[tag]
    if tag == "$tensor":
        return _take(content, tensors)
    if tag == "$array":
        return _take(content, tensors).numpy()
    if tag == "$tuple":
        return tuple(unpack(content, tensors))
    if tag == "$items":
        return {unpack(key, tensors): unpack(item, tensors) for key, item in content}
    if tag == "$float" and content in ("inf", "-inf", "nan"):
        return float(content)
    if tag == "$class" and content in CLASSES:
        return CLASSES[content]
    raise ValueError(f"nothing is known as {one_line(repr(content))} ({one_line(tag)})")


def _take(name: Json, tensors: dict[str, Tensor]) -> Tensor:
    if name not in tensors:
        raise ValueError(f"the tensor {one_line(repr(name))} is missing")
    return tensors.pop(name)


def write_document(file: Path | BinaryIO, document: Json, tensors: dict[str, Tensor]) -> None:
    """Write a file, which gets its name only when it is complete; or write into an open one."""
    metadata = dict(format=FORMAT, version=str(VERSION), sha256="0" * 64, json=json.dumps(document, allow_nan=False))
    content = with_checksum(safetensors.torch.save(tensors, metadata))
    if isinstance(file, Path):
        write_file(file, content if file.suffix == SUFFIX else _zipped(content))
    else:
        file.write(_zipped(content))


def read_document(file: Path | BinaryIO) -> Any:
    """The values of a file, as they were packed."""
    name = name_of(file)
    content = _unzipped(_read(file), name)
    metadata = _read_metadata(content, name)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{name} is a safetensors file, but not a checkpoint of {FORMAT}")
    with problems_named(f"{name} is damaged"):
        version = int(metadata["version"])
        if version != VERSION:
            raise CheckpointError(f"{name} is of version {version}: this {FORMAT} reads version {VERSION} only")
        if with_checksum(content) != content:
            raise CheckpointError(f"{name} is damaged: its bytes are not those that were written")
        tensors = safetensors.torch.load(content)
        values = unpack(json.loads(metadata["json"], parse_constant=_refuse_constant), tensors)
        if tensors:
            raise CheckpointError(f"{name} has the tensor {min(tensors)!r}, which its description does not name")
    return values


def name_of(file: Path | BinaryIO) -> str:
    """The name of a file in messages."""
    return str(file if isinstance(file, Path) else getattr(file, "name", "the file"))


def with_checksum(content: bytes) -> bytes:
    """A safetensors file with the SHA-256 of its bytes, the checksum itself taken as zeros; ValueError if it has no place."""
    found = CHECKSUM.search(content, 8, 8 + _header_size(content))
    if found is None:
        raise ValueError("there is no checksum")
    start, end = found.span(1)
    blank = content[:start] + b"0" * (end - start) + content[end:]
    return content[:start] + hashlib.sha256(blank).hexdigest().encode() + content[end:]


def _header_size(content: bytes) -> int:
    return int.from_bytes(content[:8], "little")


def _zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(MEMBER), content)
    return buffer.getvalue()


def _unzipped(content: bytes, name: str) -> bytes:
    """The member of a zip archive; other content is returned unchanged."""
    if not content.startswith(b"PK"):
        return content
    with problems_named(f"{name} is damaged"), zipfile.ZipFile(io.BytesIO(content)) as archive:
        if archive.namelist() != [MEMBER] or archive.getinfo(MEMBER).compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"{name} is a zip file, like those of SB3, but not a checkpoint of {FORMAT}")
        return archive.read(MEMBER)


def _read(file: Path | BinaryIO) -> bytes:
    if not isinstance(file, Path):
        return file.read()
    if not file.exists():
        raise MissingCheckpointError(f"there is no file {file}")
    with problems_named(f"{file} cannot be read"):
        return file.read_bytes()


def _read_metadata(content: bytes, name: str) -> dict[str, str]:
    with problems_named(f"{name} is no whole safetensors file"):
        header = content[8 : 8 + _header_size(content)]
        if len(header) < max(_header_size(content), 2):
            raise ValueError(f"it ends after {len(content)} bytes")
        return dict(json.loads(header).get("__metadata__") or {})


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python's own reader accepts."""
    raise ValueError(f"{name} is not JSON")


@contextmanager
def problems_named(context: str) -> Iterator[None]:
    """Any exception inside becomes a CheckpointError of one line."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{context} ({type(error).__name__}: {one_line(error)})") from error


def one_line(value: object, longest: int = 200) -> str:
    """A text without line breaks, cut off where it is longer than `longest`."""
    text = " ".join(str(value).split())
    return text if len(text) <= longest else f"{text[:longest]}..."
