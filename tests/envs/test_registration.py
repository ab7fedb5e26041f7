"""The ids, and that `import fw_rl` is all they need and light."""

import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import pytest

import fw_rl
import fw_rl.agents
import fw_rl.envs
from fw_rl.envs import CatchEnv, CatchVectorEnv, catch_id, register_catch


@pytest.mark.parametrize(
    ("env_id", "kwargs", "n", "m"),
    [
        ("fw_rl/Catch-v0", {}, 16, 3),
        ("fw_rl/Catch-v0", {"n": 7, "m": 7}, 7, 7),
        ("fw_rl/Catch-16-3-v0", {}, 16, 3),
        ("fw_rl/Catch-24-5-v0", {"paddle_start": "center", "dtype": "uint8"}, 24, 5),
    ],
)
def test_make_and_make_vec(env_id, kwargs, n, m):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(env_id, **kwargs)
        envs = gym.make_vec(env_id, num_envs=2, **kwargs)
        same = gym.make_vec(env_id, 2, vectorization_mode="vector_entry_point", **kwargs)
        sync = gym.make_vec(env_id, num_envs=2, vectorization_mode="sync", **kwargs)
    assert isinstance(env.unwrapped, CatchEnv)
    assert isinstance(envs, CatchVectorEnv) and isinstance(same, CatchVectorEnv)
    assert (env.unwrapped.rules.n, env.unwrapped.rules.m) == (n, m)
    assert env.unwrapped.rules == envs.rules == same.rules
    assert sync.observation_space == envs.observation_space
    assert env.spec.max_episode_steps is None


@pytest.mark.parametrize("name", ["Catch-20-4", "fw_rl/Catch-20-4", "Catch-20-4-v0", "fw_rl/Catch-20-4-v0"])
def test_any_pair_has_an_id(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert catch_id(name) == catch_id(name) == "fw_rl/Catch-20-4-v0"
        register_catch()
    rules = gym.make(catch_id(name)).unwrapped.rules
    assert (rules.n, rules.m) == (20, 4)
    assert gym.make_vec(catch_id(name), num_envs=3).rules == rules


def test_a_third_number_is_that_of_the_distractors():
    assert catch_id("Catch-8-2-5") == catch_id("fw_rl/Catch-8-2-5-v0") == "fw_rl/Catch-8-2-5-v0"
    assert gym.make("fw_rl/Catch-8-2-5-v0").unwrapped.rules.distractors == 5
    assert catch_id("Catch-8-2-0") == "fw_rl/Catch-8-2-v0"
    with pytest.raises(ValueError, match="distractors must be an integer from 0"):
        catch_id("Catch-8-2-64")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Catch-16", "env must be Catch-<n>-<m>, such as Catch-16-3, got 'Catch-16'"),
        ("Catch-a-b", "such as Catch-16-3, got 'Catch-a-b'"),
        ("Catch-16-3.5", "such as Catch-16-3, got 'Catch-16-3.5'"),
        ("Catch--16-3", "such as Catch-16-3, got 'Catch--16-3'"),
        ("Catch-16-3-v1", "such as Catch-16-3, got 'Catch-16-3-v1'"),
        ("catch-16-3", "such as Catch-16-3, got 'catch-16-3'"),
        ("CartPole-v1", "such as Catch-16-3, got 'CartPole-v1'"),
        ("", "such as Catch-16-3, got ''"),
        ("Catch-16-3\n", "such as Catch-16-3, got 'Catch-16-3\\n'"),
        ("Catch-2-1", "n must be an integer of at least 3, got 2"),
        ("Catch-16-0", "m must be an integer from 1 to n = 16, got 0"),
        ("Catch-16-17", "m must be an integer from 1 to n = 16, got 17"),
    ],
)
def test_bad_names(name, message):
    registered = set(gym.registry)
    with pytest.raises(ValueError, match=r"^env must be Catch-<n>-<m>, such as Catch-16-3, got") as error:
        catch_id(name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert set(gym.registry) == registered


def test_bad_arguments_reach_the_caller_of_make():
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match="m must be an integer from 1 to n = 4, got 5"):
            make("fw_rl/Catch-v0", n=4, m=5)


def python(code):
    root = Path(fw_rl.__file__).parents[1]
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


@pytest.mark.parametrize("package", ["fw_rl", "fw_rl.agents", "fw_rl.envs"])
def test_import_is_light(package):
    heavy = "{'torch', 'numba', 'stable_baselines3', 'sb3_contrib', 'pygame', 'matplotlib', 'tyro'}"
    assert python(f"import sys, {package}; print(*{heavy} & set(sys.modules))") == []


@pytest.mark.parametrize("package", [fw_rl, fw_rl.agents, fw_rl.envs])
def test_a_package_has_every_name_that_it_exports(package):
    assert {name for name in package.__all__ if hasattr(package, name)} == {*package.__all__} <= {*dir(package)}
    assert not hasattr(package, "CatchAgent")


def test_the_prefix_registers_in_a_fresh_process():
    code = "import gymnasium as gym; env = gym.make{}; print(env.reset(seed=0)[0].shape)"
    assert python(code.format("('fw_rl:fw_rl/Catch-16-3-v0')")) == ["(256,)"]
    vector = "_vec('fw_rl:fw_rl/Catch-v0', num_envs=2, n=5, m=1)"
    assert python(code.format(vector)) == ["(2,", "25)"]
