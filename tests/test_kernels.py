"""What all kernels share: their files, which several processes may write at once."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError

import numpy as np
import pytest
from numba import config
from numba.core.caching import IndexDataCacheFile

from fw_rl.kernels import _SharedCacheFile, compiled

KEYS = ("one signature", "another", "a third")


def saved_at_once(kind, folder, monkeypatch):
    """What is loaded for each key after all were saved by writers that read the index at once, if they can."""
    read_index, all_have_read = kind._load_index, Barrier(len(KEYS))

    def read_and_wait(self):
        index = read_index(self)
        with suppress(BrokenBarrierError):
            all_have_read.wait(timeout=0.5)
        return index

    with monkeypatch.context() as patch, ThreadPoolExecutor(len(KEYS)) as threads:
        patch.setattr(kind, "_load_index", read_and_wait)
        list(threads.map(lambda key: kind(str(folder), "kernel", "stamp").save(key, key), KEYS))
    return [kind(str(folder), "kernel", "stamp").load(key) for key in KEYS]


def test_processes_that_save_at_once_keep_every_signature(tmp_path, monkeypatch):
    assert saved_at_once(_SharedCacheFile, tmp_path, monkeypatch) == list(KEYS)


def test_numba_alone_would_mix_them_up(tmp_path, monkeypatch):
    """If this fails, Numba has a lock of its own, and ours can go."""
    assert saved_at_once(IndexDataCacheFile, tmp_path, monkeypatch) != list(KEYS)


def test_a_kernel_is_kept_for_later_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    kernels = [compiled(_double) for _ in range(2)]
    for kernel in kernels:
        x = np.ones(3)
        kernel(x)
        assert x.tolist() == [2.0, 2.0, 2.0]
    assert [sum(kernel.stats.cache_hits.values()) for kernel in kernels] == [0, 1]


@pytest.mark.parametrize("method", ["_save_data", "_load_index"])
def test_a_kernel_that_cannot_be_kept_runs(method, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    compiled(_double)(np.ones(3))
    monkeypatch.setattr(_SharedCacheFile, method, fail)
    x = np.ones(3, np.float32)
    compiled(_double)(x)
    assert x.tolist() == [2.0, 2.0, 2.0]


def _double(x):
    for i in range(len(x)):
        x[i] *= 2
