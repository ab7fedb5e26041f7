"""A Ray of our own, and those of others: who listens, what is left at the end, and what is said where there is none."""

import pytest

pytest.importorskip("ray", reason="needs pip install 'fw-rl[ray]'")

import os
import subprocess
import time
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import gymnasium as gym
import psutil
import ray
from gymnasium import spaces
from ray.cluster_utils import Cluster

from fw_rl.agents import WorkerError
from fw_rl.agents.ray_session import ray_session
from tests.ray.conftest import left_of_ray, processes
from tests.ray.helpers import Visitor, make_agent

pytestmark = pytest.mark.timeout(900)


def test_an_own_ray_listens_on_loopback_only_and_ends():
    listening = []

    def look(report, algorithm):
        listening.extend(listeners(processes()))
        return True

    make_agent(n_workers=1).learn(10**7, callback=Visitor(look))
    assert listening
    assert {address for address in listening if not address.is_loopback} == set()
    assert not left_of_ray()


def listeners(pids):
    """The addresses at which processes listen."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):  # closed meanwhile
                sockets.add(os.readlink(descriptor))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, _, state, *_, inode = line.split()[1:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                packed = bytes.fromhex(local.partition(":")[0])
                words = [packed[i : i + 4][::-1] for i in range(0, len(packed), 4)]
                address = ip_address(b"".join(words))
                yield getattr(address, "ipv4_mapped", None) or address


def test_nothing_outlives_a_ray_that_could_not_end_it(monkeypatch):
    monkeypatch.setattr("fw_rl.agents.ray_session.PATIENCE", 1.0)

    @ray.remote
    def start():
        return os.getpid(), subprocess.Popen(["sleep", "600"], start_new_session=True).pid

    with ray_session(None, 1):
        worker, started = (psutil.Process(pid) for pid in ray.get(start.remote()))
        raylet = worker.parent()
        worker.suspend()
        raylet.kill()  # as Ray does where its workers take more than a second to end
        assert started.is_running()
    assert not left_of_ray(5)


def test_a_node_that_is_lost_and_one_that_comes():
    cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1, include_dashboard=False))
    nodes = [cluster.add_node(num_cpus=1)]
    frames = dict(both=[], one=[], again=[])

    def lose_and_add(report, algorithm):
        frames["both" if report <= 3 else "one" if report <= 8 else "again"].append(model.num_timesteps)
        if report == 3:
            cluster.remove_node(nodes.pop())
        elif report == 8:
            nodes.append(cluster.add_node(num_cpus=1))
        return report == 14

    try:
        model = make_agent(ray_address=cluster.address)
        model.learn(10**7, callback=Visitor(lose_and_add))
    finally:
        ray.shutdown()
        cluster.shutdown()
        left_of_ray()
    assert [len(told) for told in frames.values()] == [3, 5, 6]
    told = [count for part in frames.values() for count in part]
    assert told == sorted(set(told))


class Broken(gym.Env):
    """Fails at the first step."""

    observation_space, action_space = spaces.Discrete(2), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        raise RuntimeError("broken")


def test_environments_that_fail_are_given_up():
    begin = time.monotonic()
    with pytest.raises(WorkerError, match="no frame has come for 5 seconds"):
        make_agent(Broken, n_workers=1, timeout=5.0).learn(100)
    assert time.monotonic() - begin < 600
    assert not left_of_ray()


def test_a_cluster_that_is_not_there():
    with pytest.raises(WorkerError, match=r"no Ray at 127\.0\.0\.1:1"):
        make_agent(n_workers=1, ray_address="127.0.0.1:1").learn(100)
