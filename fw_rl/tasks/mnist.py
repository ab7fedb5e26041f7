"""The MNIST handwritten digits (LeCun et al. 1998) from idx files, which are downloaded if there are none."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["FILES", "MIRRORS", "default_folder", "load_mnist"]

FILES = {
    "train-images-idx3-ubyte": ((60_000, 28, 28), "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": ((60_000,), "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": ((10_000, 28, 28), "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": ((10_000,), "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
"""The shape of each file, and the sha256 of its uncompressed content."""
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")


def default_folder() -> Path:
    """The folder of downloaded files, beside Torch's other downloads, see `torch.hub.get_dir`."""
    return Path(torch.hub.get_dir()) / "fw_rl" / "mnist"


def load_mnist(folder: Path | None = None) -> tuple[NDArray[np.uint8], ...]:
    """Training images [60000, 28, 28] and labels, test images [10000, 28, 28] and labels, all uint8.

    They come from a folder of the four idx files, gzipped or not; without one they are downloaded once. ValueError, in one
    line, names a file that is missing, cut short or not MNIST's; ConnectionError says why nothing could be downloaded.
    """
    return tuple(_load(name, folder) for name in FILES)


def read_idx(content: bytes) -> NDArray[np.uint8]:
    """An array of bytes in the idx format: two zeros, the type 8, the number of axes, their lengths, the values."""
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError("it does not begin like an idx file of bytes")
    axes = content[3]
    begin = 4 + 4 * axes
    if len(content) < begin:
        raise ValueError("it is cut short")
    shape = tuple(np.frombuffer(content[4:begin], ">u4").tolist())
    size = int(np.prod(shape, dtype=np.int64))
    if len(content) != begin + size:
        raise ValueError(f"it is cut short or too long: {len(content) - begin:,} values, not {size:,}")
    return np.frombuffer(content, np.uint8, offset=begin).reshape(shape).copy()


def _load(name: str, folder: Path | None) -> NDArray[np.uint8]:
    home = default_folder() if folder is None else folder
    for path in (home / f"{name}.gz", home / name):
        if path.is_file():
            return _read(path, name)
    if folder is not None:
        raise ValueError(f"there is no {name} or {name}.gz in {folder}")
    return _download(name, home / f"{name}.gz")


def _read(path: Path, name: str) -> NDArray[np.uint8]:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        array = read_idx(content)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{path} cannot be read as MNIST's {name}: {error}") from error
    shape, sha256 = FILES[name]
    if array.shape != shape:
        raise ValueError(f"{path} is not MNIST's {name}: its shape is {array.shape}, not {shape}")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path} is not MNIST's {name}: its sha256 differs")
    return array


def _download(name: str, path: Path) -> NDArray[np.uint8]:
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for mirror in MIRRORS:
        try:
            torch.hub.download_url_to_file(f"{mirror}{name}.gz", str(path), progress=False)
            return _read(path, name)
        except (OSError, HTTPException, ValueError) as error:
            reasons.append(str(error) or type(error).__name__)
            path.unlink(missing_ok=True)
    files = ", ".join(f"{known}.gz" for known in FILES)
    raise ConnectionError(
        f"MNIST could not be downloaded ({'; '.join(reasons)}): put {files} into {path.parent}, "
        "or name the folder that has them with --data-dir"
    )
