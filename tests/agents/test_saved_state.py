"""What the memory holds is saved where it was asked for, and goes on where the episodes do."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.testing import assert_close

from fw_rl.agents import CheckpointError, RecurrentA2C, read_checkpoint
from fw_rl.envs import CatchVectorEnv
from tests.agents.helpers import CELLS, make_model, same_parameters, scripted_envs
from tests.agents.test_checkpoint import disturb, rewrite

EVERY_CELL = pytest.mark.parametrize("cell, options", CELLS.values(), ids=CELLS)
SCRIPTS = [((30, "terminated"),), ((7, "truncated"), (5, "terminated"))]


def scripted():
    return DummyVecEnv(scripted_envs(SCRIPTS, scale=0.1))


@EVERY_CELL
def test_training_goes_on_amid_the_episodes_of_any_environment(cell, options, tmp_path):
    envs = [scripted() for _ in range(2)]
    models = [make_model(env, cell, cell_kwargs=options, n_steps=4).learn(40) for env in envs]
    models[1].save(tmp_path / "agent", include_state=True)
    state = [part.clone() for part in models[1]._last_state]
    models[0].learn(40, reset_num_timesteps=False)
    disturb()
    loaded = RecurrentA2C.load(tmp_path / "agent", envs[1], force_reset=False)
    assert_close(list(loaded._last_state), state, rtol=0, atol=0)
    loaded.learn(40, reset_num_timesteps=False)
    assert envs[1].get_attr("t") == envs[0].get_attr("t")
    assert same_parameters(loaded, models[0])


def test_environments_that_were_just_made_are_reset(tmp_path):
    model = make_model(make_vec_env("CartPole-v1", n_envs=2), n_steps=4).learn(40)
    model.save(tmp_path / "agent", include_state=True)
    loaded = RecurrentA2C.load(tmp_path / "agent", make_vec_env("CartPole-v1", n_envs=2))
    assert loaded._last_obs is None
    loaded.learn(8, reset_num_timesteps=False)
    assert loaded.num_timesteps == 48


def test_without_the_state_the_same_environment_begins_anew(tmp_path):
    env = scripted()
    make_model(env, n_steps=4).learn(40).save(tmp_path / "agent")
    loaded = RecurrentA2C.load(tmp_path / "agent", env, force_reset=False)
    assert loaded._last_obs is None
    loaded.learn(8, reset_num_timesteps=False)
    assert env.get_attr("t") == [4, 4]


def test_what_is_remembered_can_be_handed_to_predict(tmp_path):
    model = make_model(scripted(), "lstm", n_steps=4).learn(40)
    model.save(tmp_path / "agent", include_state=True)
    episodes, loaded = read_checkpoint(tmp_path / "agent").episodes, RecurrentA2C.load(tmp_path / "agent")
    results = []
    for agent, memory in ((model, model._last_state), (loaded, episodes["memory"])):
        state = tuple(part.numpy() for part in memory)
        results.append(agent.predict(episodes["observation"], state, episodes["starts"], deterministic=True))
    for one, other in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(one, other)
    blank = loaded.predict(episodes["observation"])[1]
    assert any(not np.allclose(one, other) for one, other in zip(results[0][1], blank, strict=True))


def test_a_file_without_the_state_is_smaller(tmp_path):
    model = make_model(CatchVectorEnv(8, n=5, m=2), "fast-weights", cell_kwargs=dict(window=0), n_steps=4).learn(32)
    sizes = {}
    for include_state in (None, True, False):
        path = tmp_path / f"{include_state}.safetensors"
        model.save(path, include_state=include_state)
        sizes[include_state] = path.stat().st_size
        assert (read_checkpoint(path).episodes is None) == (include_state is False)
    assert sizes[None] == sizes[True] > sizes[False] + 8 * 8 * 8 * 4
    loaded = RecurrentA2C.load(tmp_path / "False.safetensors", CatchVectorEnv(8, n=5, m=2))
    assert loaded._last_obs is None
    loaded.learn(32, reset_num_timesteps=False)


@pytest.mark.parametrize("n_envs", [1, 3])
def test_another_number_of_environments_begins_new_episodes(n_envs, tmp_path):
    make_model(scripted(), n_steps=4).learn(8).save(tmp_path / "agent", include_state=True)
    env = DummyVecEnv(scripted_envs([SCRIPTS[0]] * n_envs))
    loaded = RecurrentA2C.load(tmp_path / "agent", env, force_reset=False)
    assert loaded._last_obs is None
    loaded.learn(8, reset_num_timesteps=False)


def test_force_reset_false_needs_an_environment_without_a_state(tmp_path):
    class Shy(CatchVectorEnv):
        def get_state(self):
            raise RuntimeError("not now")

    model = make_model(Shy(2, n=5, m=2), n_steps=3).learn(6)
    with pytest.warns(UserWarning, match=r"^the checkpoint is without the state of the environment: not now$"):
        model.save(tmp_path / "agent", include_state=True)
    assert read_checkpoint(tmp_path / "agent").episodes["env"] is None
    assert RecurrentA2C.load(tmp_path / "agent", CatchVectorEnv(2, n=5, m=2), force_reset=False)._last_obs is None


@pytest.mark.parametrize("force_reset", [True, False])
def test_episodes_that_lack_a_part_are_refused_or_begun_anew(force_reset, tmp_path):
    make_model(scripted(), n_steps=4).learn(8).save(tmp_path / "agent.safetensors", include_state=True)

    def change(document, tensors, metadata):
        del document["episodes"]["env"]

    rewrite(tmp_path / "agent.safetensors", change)
    if force_reset:
        assert RecurrentA2C.load(tmp_path / "agent.safetensors", scripted())._last_obs is None
    else:
        with pytest.raises(CheckpointError, match=r"^.*its agent cannot be restored .*$"):
            RecurrentA2C.load(tmp_path / "agent.safetensors", scripted(), force_reset=False)


def test_an_agent_that_has_not_begun_has_no_state(tmp_path):
    make_model(scripted()).save(tmp_path / "agent", include_state=True)
    assert read_checkpoint(tmp_path / "agent").episodes is None
    assert torch.is_tensor(RecurrentA2C.load(tmp_path / "agent", scripted()).policy.action_net.weight)
