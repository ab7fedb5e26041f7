"""The idx loader: what it reads, and what it says about files that are not what they should be."""

import gzip
import hashlib
import struct
from http.client import BadStatusLine

import numpy as np
import pytest
import torch

from fw_rl.tasks import mnist
from fw_rl.tasks.mnist import FILES, load_mnist, read_idx

SHAPES = {"train-images-idx3-ubyte": (6, 28, 28), "train-labels-idx1-ubyte": (6,)}
SHAPES |= {"t10k-images-idx3-ubyte": (3, 28, 28), "t10k-labels-idx1-ubyte": (3,)}


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def contents(monkeypatch):
    """Small files in place of MNIST's, which the loader takes for the true ones."""
    arrays = {name: np.arange(np.prod(shape)).reshape(shape) % 10 for name, shape in SHAPES.items()}
    contents = {name: idx(array) for name, array in arrays.items()}
    small = {name: (SHAPES[name], hashlib.sha256(content).hexdigest()) for name, content in contents.items()}
    monkeypatch.setattr(mnist, "FILES", small)
    return contents


@pytest.fixture
def folder(contents, tmp_path):
    for name, content in contents.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    return tmp_path


def test_the_four_files_are_read(folder):
    images, labels, test_images, test_labels = load_mnist(folder)
    assert [array.shape for array in (images, labels, test_images, test_labels)] == list(SHAPES.values())
    assert images[0, 0, :12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert labels.tolist() == [0, 1, 2, 3, 4, 5]
    torch.from_numpy(images).add_(1)


def test_files_may_be_uncompressed(contents, tmp_path):
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert load_mnist(tmp_path)[3].tolist() == [0, 1, 2]


DAMAGE = {
    "cut gzip": (lambda content: gzip.compress(content)[:-20], "cannot be read"),
    "no gzip": (lambda content: content, "cannot be read"),
    "empty": (lambda content: b"", "cannot be read"),
    "cut idx": (lambda content: gzip.compress(content[:-1]), "cut short"),
    "cut header": (lambda content: gzip.compress(content[:6]), "cut short"),
    "too long": (lambda content: gzip.compress(content + b"\0"), "too long"),
    "other type": (lambda content: gzip.compress(b"\0\0\x0d" + content[3:]), "begin like an idx file"),
    "text": (lambda content: gzip.compress(b"<html>not found</html>"), "begin like an idx file"),
    "other shape": (lambda content: gzip.compress(idx(np.zeros((6, 32, 32)))), "its shape is (6, 32, 32), not (6, 28, 28)"),
    "other images": (lambda content: gzip.compress(content[:-1] + b"\xff"), "its sha256 differs"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_file_that_is_not_mnists_gets_one_line(case, folder, contents):
    change, expected = DAMAGE[case]
    name = "train-images-idx3-ubyte"
    (folder / f"{name}.gz").write_bytes(change(contents[name]))
    with pytest.raises(ValueError) as error:
        load_mnist(folder)
    assert str(folder / f"{name}.gz") in str(error.value)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match=r"there is no t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte\.gz in "):
        load_mnist(folder)


def test_without_a_folder_the_files_are_downloaded_once(contents, tmp_path, monkeypatch):
    urls = []

    def download(url, path, progress):
        urls.append(url)
        if len(urls) == 1:
            raise OSError("the first mirror is away")
        name = url.rsplit("/", 1)[1]
        with open(path, "wb") as file:
            file.write(gzip.compress(contents[name.removesuffix(".gz")]))

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    first = load_mnist()
    assert urls[:2] == [f"{mirror}train-images-idx3-ubyte.gz" for mirror in mnist.MIRRORS]
    assert len(urls) == 5
    assert all((a == b).all() for a, b in zip(first, load_mnist(), strict=True))
    assert len(urls) == 5


@pytest.mark.parametrize("mirrors", [1, 2])
def test_a_download_that_is_not_mnist_is_not_kept(mirrors, contents, tmp_path, monkeypatch):
    def download(url, path, progress):
        name = url.rsplit("/", 1)[1]
        wrong = any(url.startswith(mirror) for mirror in mnist.MIRRORS[:mirrors])
        content = contents[name.removesuffix(".gz")]
        with open(path, "wb") as file:
            file.write(gzip.compress(content[:-1] + b"\xff" if wrong else content))

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    if mirrors == 1:  # the other one is right
        assert len(load_mnist()) == 4
        return
    with pytest.raises(ConnectionError, match=r"sha256 differs; .*sha256 differs"):
        load_mnist()
    assert not list(tmp_path.glob("**/*.gz"))


@pytest.mark.parametrize("error", [OSError, BadStatusLine])
def test_without_a_network_one_line_says_what_to_do(error, tmp_path, monkeypatch):
    def download(url, path, progress):
        raise error("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(ConnectionError) as caught:
        load_mnist()
    message = str(caught.value)
    assert all(f"{name}.gz" in message for name in FILES)
    assert str(mnist.default_folder()) in message and str(tmp_path) in message
    assert "--data-dir" in message and "no route to host" in message and "\n" not in message


def test_an_idx_file_says_its_shape():
    assert read_idx(idx(np.arange(6).reshape(2, 3))).tolist() == [[0, 1, 2], [3, 4, 5]]
