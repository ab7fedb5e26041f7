"""`--engine ray` as far as it goes without Ray: its settings, and what a user without Ray is told."""

import sys

import pytest

from fw_rl.commands import sweep
from fw_rl.commands.train import main
from fw_rl.experiments.settings import resolve


@pytest.fixture
def no_ray(monkeypatch):
    """As if Ray were not installed."""
    ours = ("fw_rl.agents.rllib", "fw_rl.agents.ray_session", "fw_rl.experiments.search.on_ray")
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray" or name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)


def test_without_ray_one_line_has_the_command_that_installs_it(no_ray, tmp_path, capsys):
    assert main(["--engine", "ray", "--log-dir", str(tmp_path / "runs")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fw-rl train: error: the engine ray needs Ray, which is not installed: pip install 'fw-rl[ray]'")
    assert not (tmp_path / "runs").exists()


def test_a_sweep_without_ray_says_the_same(no_ray, tmp_path, capsys):
    pytest.importorskip("optuna", reason="needs pip install 'fw-rl[sweep]'")
    assert sweep.main(["--engine", "ray", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.endswith("in an environment of its own\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--engine", "spark"], "--engine must be one of local, ray, got 'spark'"),
        (["--ray-address", "auto"], "--ray-address must be left out with --engine local, got 'auto'"),
    ],
)
def test_what_a_sweep_does_not_take(arguments, message, tmp_path, capsys):
    pytest.importorskip("optuna", reason="needs pip install 'fw-rl[sweep]'")
    assert sweep.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_the_engine_has_algorithms_of_its_own():
    config = resolve(engine="ray")
    assert (config.engine, config.algo, config.workers) == ("ray", "impala", 2)
    assert resolve(engine="ray", algo="ppo", workers=4, n_envs=64).workers == 4
    assert resolve().engine == "local"


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(engine="spark"), "--engine must be one of local, ray, got 'spark'"),
        (dict(engine="ray", algo="a3c"), "--algo must be one of impala, ppo with --engine ray, got 'a3c'"),
        (dict(algo="impala"), "--algo must be one of a2c, ppo, a3c with --engine local, got 'impala'"),
        (dict(engine="ray", optimizer="adam"), "--optimizer must be left out with --engine ray, got 'adam'"),
        (dict(engine="ray", previous_step=True), "--previous-step must be False with --engine ray, got True"),
        (dict(engine="ray", bptt_length=3), "--bptt-length must be left out with --engine ray, got 3"),
        (dict(engine="ray", normalize=True), "--normalize must be left out with --engine ray, got True"),
        (dict(engine="ray", n_envs=9), "--n-envs must be a multiple of --workers, 2, got 9"),
    ],
)
def test_what_is_not_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        resolve(**options)
