"""Every cell goes all the way on the command line: trained, resumed, played, and exported with equal actions."""

import numpy as np
import pytest

from fw_rl.cells import available_cells
from fw_rl.commands import export, play
from fw_rl.commands.train import main
from fw_rl.envs import VecEnvAdapter, VecPreviousStep
from fw_rl.experiments.agents import load_trained
from fw_rl.experiments.environments import make_vector_env
from tests.agents.test_export import Session, _is_own
from tests.commands.helpers import train

GAME = "RepeatPreviousEasy"


@pytest.mark.processes
@pytest.mark.parametrize("cell", [name for name in available_cells() if _is_own(name)])
def test_a_cell_is_trained_resumed_played_and_exported(cell, tmp_path, capsys):
    code, run = train(tmp_path / "runs", "--env", GAME, "--cell", cell, timesteps=96)
    assert code == 0
    assert main(["--resume", str(run), "--timesteps", "192", "--quiet", "--eval-episodes", "2"]) == 0
    assert play.main([str(run), "--episodes", "1"]) == 0
    assert "Episode 1: return " in capsys.readouterr().out
    assert export.main([str(run), "--onnx", str(tmp_path / "agent.onnx")]) == 0

    config, agent = load_trained(run)
    assert agent.num_timesteps == 192
    env = VecPreviousStep(VecEnvAdapter(make_vector_env(GAME, 3)), reward=config.previous_reward)
    env.seed(5)
    session, observation, state, starts = Session(tmp_path / "agent.onnx"), env.reset(), None, np.ones(3, dtype=bool)
    for _ in range(1_000):
        action, state = agent.predict(observation, state, starts, deterministic=True)
        np.testing.assert_array_equal(session.act(observation, starts), action)
        for ours, exported in zip(state, session.state.values(), strict=False):  # the critic's is not exported
            np.testing.assert_allclose(exported, ours, atol=1e-4)
        observation, _, starts, _ = env.step(action)
