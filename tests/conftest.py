"""What every test can rely on, however pytest was started.

One thread: small products on two threads spend their time waiting for each other. Ctrl-C works: a shell that starts a command
in the background has it ignore the signal, which the processes that tests start would inherit. With several workers the kernels
are compiled before these start: else each would compile all of them.
"""

import signal
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from fw_rl.cells import available_cells, base, make_cell

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def registry_of_its_own(monkeypatch):
    """The cells that a test registers are gone after it, before another test takes every cell that there is."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))


def pytest_configure(config):
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        kernels = {name: set(make_cell(name, 2, 2).kernels(replays=False)) for name in available_cells()}
        names, covered = [], set()
        for name in sorted(kernels, key=lambda name: len(kernels[name])):
            if not kernels[name] <= covered:
                names.append(name)
                covered |= kernels[name]
        with ProcessPoolExecutor(len(names)) as processes:
            list(processes.map(compile_kernels, names))


def compile_kernels(name):
    """Run a cell, a sequence with its gradient and a step, so that Numba's cache has its kernels."""
    for dtype in (torch.float32, torch.float64):
        cell = make_cell(name, 2, 2).to(dtype)
        y, state = cell(torch.ones(3, 2, 2, dtype=dtype), cell.initial_state(2))
        y.sum().backward()
        cell.stepper(state).step(torch.ones(2, 2, dtype=dtype), torch.zeros(2, dtype=torch.bool))
