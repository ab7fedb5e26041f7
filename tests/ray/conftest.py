"""Ray for the tests: on the loopback interface, in a folder of its own, and gone at the end.

The variables are set before Ray is imported, and the processes that it starts inherit them.
"""

import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

if find_spec("ray") is not None:
    FOLDER = tempfile.mkdtemp(prefix="fw-ray-")
    os.environ |= dict(
        RAY_TMPDIR=FOLDER,
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_worker_niceness="0",  # else runners stand back behind whatever else the machine does
        PYTHONPATH=str(ROOT),
        OMP_NUM_THREADS="1",
    )


def processes():
    """The processes of Ray that these tests have started: they all have inherited the name of the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inherited = f"RAY_TMPDIR={FOLDER}".encode() in (process / "environ").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if inherited and state != "Z" and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def left_of_ray(seconds=60):
    """The command lines of what is left of Ray after so long; it ends here, so that each test answers for its own."""
    end = time.monotonic() + seconds
    while processes() and time.monotonic() < end:
        time.sleep(0.5)
    left = []
    for pid in processes():
        with suppress(OSError):
            left.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
            os.kill(pid, signal.SIGKILL)
    return left


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left():
    yield
    assert not left_of_ray()
    shutil.rmtree(FOLDER, ignore_errors=True)
