"""A short run that the commands on trained agents share."""

import pytest

from fw_rl.commands.train import main


@pytest.fixture(scope="session")
def catch_run(tmp_path_factory):
    """The folder of a run with fast weights on Catch-5-2; to be read only."""
    log_dir = tmp_path_factory.mktemp("runs")
    small = ["--n-envs", "4", "--n-steps", "6", "--hidden-size", "8", "--timesteps", "480", "--eval-episodes", "20", "--quiet"]
    assert main(["--env", "Catch-5-2", *small, "--log-dir", str(log_dir)]) == 0
    (run,) = log_dir.iterdir()
    return run
