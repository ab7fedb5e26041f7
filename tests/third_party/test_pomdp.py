"""The suite of tasks that need a memory: every contender can be made for every task, and the peer as rl-zoo sets it."""

from pathlib import Path

import pytest

for package in ("Box2D", "mujoco", "minigrid", "popgym", "memory_gym"):
    pytest.importorskip(package, reason="needs pip install 'fw-rl[envs]' and memory-gym")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TASKS = [
    "CartPole", "Pendulum", "LunarLander", "Hopper", "HalfCheetah", "MiniGrid-MemoryS7", "RepeatPreviousEasy",
    "CountRecallEasy", "NoisyPositionOnlyPendulumEasy", "MortarMayhem-Grid",
]  # fmt: skip


@pytest.fixture
def suite(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import pomdp

    return pomdp


@pytest.mark.parametrize("task", TASKS)
def test_every_contender_can_be_made(task, suite):
    assert set(suite.TASKS) == set(TASKS)
    for contender in (suite.ZOO, suite.DEFAULTS, "ours, fast-weights", "ours, A2C, lstm"):
        model = suite.make_model(suite.TASKS[task], contender, seed=0)
        assert isinstance(model, suite.PeerPPO) == (contender in (suite.ZOO, suite.DEFAULTS))
        model.get_env().close()
