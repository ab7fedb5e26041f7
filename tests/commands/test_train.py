"""The train command as a user meets it: what a run leaves, how it goes on after a kill, and what bad input is answered with."""

import csv
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import safetensors.torch
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from PIL import Image

from fw_rl.agents import RecurrentA2C
from fw_rl.agents.scaling import ObservationScaling
from fw_rl.cells import base
from fw_rl.cells.fast_weights_numba import NumbaFastWeights
from fw_rl.commands.play import main as play
from fw_rl.commands.train import main
from fw_rl.experiments.agents import evaluate, load_trained
from fw_rl.experiments.episodes import open_env, play_episode
from fw_rl.experiments.run_folder import RunFolder
from fw_rl.kernels import are_cached
from tests.agents.test_finite import Faulty
from tests.commands.helpers import A3C, SMALL, train

ROOT = Path(__file__).parents[2]


def start(*arguments):
    """Run the command as a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_checkpoints(log_dir, count, process):
    for _ in range(600):
        found = sorted(log_dir.glob("*/checkpoints/*.safetensors"))
        if found and int(found[-1].stem) >= count:
            return found
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    raise AssertionError("no checkpoint")


def weights(run):
    """The tensors of the last checkpoint."""
    return safetensors.torch.load_file(sorted((run / "checkpoints").iterdir())[-1])


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    code, run = train(tmp_path_factory.mktemp("runs"))
    assert code == 0
    return run


def test_a_run_leaves_its_settings_with_versions(finished_run):
    record = json.loads((finished_run / "config.json").read_text())
    assert record["settings"]["env"] == "fw_rl/Catch-5-2-v0"
    assert record["settings"]["cell"] == "fast-weights"
    assert record["settings"]["n_steps"] == 6
    assert record["versions"]["torch"] == torch.__version__
    assert "git_commit" in record


@pytest.mark.parametrize(
    ("cell", "cached", "said"), [("fast-weights", False, 1), ("fast-weights", True, 0), ("lru", False, 1), ("rnn", False, 0)]
)
def test_only_what_must_be_compiled_is_said_to_be(cell, cached, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fw_rl.cells.gated_numba.NumbaRNN.kernels", lambda *_: ())
    monkeypatch.setattr("fw_rl.kernels.are_cached", lambda *kernels: cached or not kernels)
    assert train(tmp_path, "--cell", cell, timesteps=24)[0] == 0
    assert capsys.readouterr().out.count(f"Compiling the kernels of {cell}") == said


def test_what_numba_does_not_tell_counts_as_compiled(finished_run):
    assert are_cached() and are_cached(object()) and are_cached(*NumbaFastWeights().kernels(replays=True))


@pytest.mark.processes
def test_kernels_are_compiled_by_the_first_run_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    arguments = [*SMALL, "--timesteps", "48", "--quiet", "--log-dir", str(tmp_path / "runs"), "--algo"]
    algorithms = ("a2c", "a2c", "a3c", "ppo", "ppo")  # the first does without the way forward of the last
    said = [start(*arguments, algo).communicate()[0].count("Compiling the kernels") for algo in algorithms]
    assert said == [1, 0, 0, 1, 0]


def test_a_run_leaves_its_log_under_the_names_of_sb3(finished_run):
    with (finished_run / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["time/total_timesteps"]) == 480
    expected = {"rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "train/entropy_loss", "train/policy_loss"}
    assert expected | {
        "train/value_loss",
        "train/learning_rate",
        "rollout/memory/recall_strength",
        "rollout/memory/attention_age",
    } <= set(rows[0])
    assert list(finished_run.glob("events.out.tfevents.*"))


def test_a_run_leaves_its_evaluation(finished_run):
    record = json.loads((finished_run / "eval.json").read_text())
    assert (record["episodes"], record["timesteps"], record["greedy"], record["cut_off"]) == (20, 480, True, 0)
    config, agent = load_trained(finished_run)
    for found, greedy in ((record, True), (record["sampled"], False)):
        returns = evaluate(config, agent, 20, greedy)
        low, high = found["interval_95"]
        assert low < found["mean"] < high
        assert (found["mean"], found["std"]) == (returns.mean(), returns.std())


class Alternating(gym.Env):
    """The reward of a step is 1 if its action is not that of the step before: by chance in one of two, else never."""

    observation_space, action_space = spaces.Box(0, 1, (1,)), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.last = 0, None
        return np.ones(1, dtype=np.float32), {}

    def step(self, action):
        self.t += 1
        reward, self.last = float(self.last not in (None, action)), action
        return np.ones(1, dtype=np.float32), reward, False, self.t == 101, {}


def test_sampled_returns_are_reported_beside_greedy_ones(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(gym.registry, "Alternating-v0", EnvSpec("Alternating-v0", Alternating, disable_env_checker=True))
    still = "--learning-rate", "1e-9", "--cell", "gru"
    _, run = train(tmp_path, "--env", "Alternating-v0", *still, "--eval-episodes", "50", timesteps=24)
    record = json.loads((run / "eval.json").read_text())
    assert record["mean"] < 10
    assert record["sampled"]["mean"] == pytest.approx(50, abs=5)
    lines = capsys.readouterr().out.splitlines()
    low, high = record["sampled"]["interval_95"]
    spread = f"(95 % interval {low:.3f} to {high:.3f})"
    assert f"Sampled return over 50 episodes: {record['sampled']['mean']:.3f} {spread}" in lines
    assert any(line.startswith(f"Greedy return over 50 episodes: {record['mean']:.3f}") for line in lines)


def test_the_best_checkpoint_is_named(tmp_path, capsys):
    _, run = train(tmp_path)
    best, frames = RunFolder(run).best_so_far()
    assert f"best.safetensors, with a mean return of {best:.3f} in training, at {frames:,} frames" in capsys.readouterr().out
    assert 0 < frames <= 480
    assert play([str(run), "--checkpoint", str(run / "best.safetensors"), "--gif", str(tmp_path / "episodes.gif")]) == 0


class Endless(Alternating):
    """One that ends only where it is cut off."""

    def step(self, action):
        return np.ones(1, dtype=np.float32), 1.0, False, False, {}


def test_episodes_without_an_end_are_said_to_be_cut_off(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(gym.registry, "Endless-v0", EnvSpec("Endless-v0", Endless, disable_env_checker=True))
    for module in ("experiments.environments", "commands.train"):
        monkeypatch.setattr(f"fw_rl.{module}.EVALUATION_STEPS", 7)
    _, run = train(tmp_path, "--env", "Endless-v0", "--cell", "gru", "--eval-episodes", "3", timesteps=24)
    record = json.loads((run / "eval.json").read_text())
    assert (record["mean"], record["cut_off"], record["sampled"]["cut_off"]) == (7, 3, 3)
    assert "; 3 of them were cut off after 7 steps" in capsys.readouterr().out
    with Image.open(run / "learning_curve.png") as curve:  # of no episode of the training
        assert curve.size[0] >= 1000


def test_a_run_leaves_pictures(finished_run):
    with Image.open(finished_run / "learning_curve.png") as curve, Image.open(finished_run / "episodes.gif") as animation:
        assert curve.size[0] >= 1000
        assert animation.n_frames == 6 * 5


def test_a_run_leaves_its_last_checkpoint(finished_run):
    assert (finished_run / "checkpoints" / "000000000480.safetensors").is_file()
    assert not list(finished_run.rglob("*.tmp"))


def test_the_last_lines_say_where_everything_is(tmp_path, capsys):
    _, run = train(tmp_path)
    printed = capsys.readouterr().out
    assert str(run) in printed
    assert f"tensorboard --logdir {tmp_path}" in printed


def test_another_environment_can_be_chosen(tmp_path, capsys):
    code, run = train(tmp_path, "--env", "CartPole-v1", "--eval-episodes", "2")
    assert code == 0
    assert "CartPole-v1" in run.name
    assert json.loads((run / "eval.json").read_text())["mean"] >= 8


MODULE = """
import gymnasium as gym
import numpy as np
from gymnasium import spaces

class Camera(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}

    def __init__(self, as_dict=False, render_mode=None):
        image = spaces.Box(0, 255, (7, 7, 3) if as_dict else (40, 40, 3), np.uint8)
        self.observation_space = spaces.Dict(image=image, text=spaces.Discrete(3)) if as_dict else image
        self.action_space, self.render_mode = spaces.Discrete(2), render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), float(action), self.steps == 5, False, {}

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)

gym.register("camera/Image-v0", Camera)
gym.register("camera/Dict-v0", Camera, kwargs=dict(as_dict=True))
"""


@pytest.mark.parametrize(
    ("algo", "workers"),
    [("a2c", 1), *(pytest.param(algo, 2, marks=pytest.mark.processes) for algo in ("a2c", "a3c"))],
)
@pytest.mark.parametrize("kind", ["Image", "Dict"])
def test_an_environment_of_a_module_of_ones_own(kind, algo, workers, tmp_path, monkeypatch):
    (tmp_path / "camera.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    chosen = ["--env", f"camera:camera/{kind}-v0", "--algo", algo, "--workers", str(workers)]
    code, run = train(tmp_path / "runs", *chosen, timesteps=96)
    assert code == 0
    assert run.name.startswith(f"camera-{kind}_fast-weights")
    assert play([str(run), "--gif", str(tmp_path / "episodes.gif")]) == 0
    assert (run / "episodes.gif").exists() and (tmp_path / "episodes.gif").exists()


CELL = """
from fw_rl.cells import LSTMCell, register_cell

@register_cell("own")
class Own(LSTMCell): ...
"""


@pytest.mark.parametrize("algo", ["a2c", A3C])
def test_a_cell_of_a_module_of_ones_own(algo, tmp_path, monkeypatch):
    (tmp_path / "own_cells.py").write_text(CELL)
    monkeypatch.syspath_prepend(tmp_path)
    code, run = train(tmp_path / "runs", "--cell", "own_cells:own", "--algo", algo, timesteps=96)
    assert code == 0
    assert run.name.startswith("Catch-5-2_own_seed0")
    del base._REGISTRY["own"], sys.modules["own_cells"]
    assert main(["--resume", str(run), "--timesteps", "192", "--eval-episodes", "20", "--quiet"]) == 0
    del base._REGISTRY["own"], sys.modules["own_cells"]
    assert play([str(run), "--gif", str(tmp_path / "episodes.gif")]) == 0
    del sys.modules["own_cells"]


@pytest.mark.parametrize("algo", ["ppo", A3C])
@pytest.mark.parametrize("previous_step", ["False", "True"])
def test_observations_are_scaled_in_training_evaluation_and_play(previous_step, algo, tmp_path, capsys):
    scaled = ["--env", "CartPole-v1", "--algo", algo, "--previous-step", previous_step]
    code, run = train(tmp_path / "runs", *scaled, timesteps=480 if algo == "ppo" else 4800)  # so that both workers go on
    assert code == 0
    mean = json.loads((run / "eval.json").read_text())["mean"]
    config, agent = load_trained(run)
    assert evaluate(config, agent, 20).mean() == mean  # by the statistics in the file
    taken, frames = agent.policy.reward_scaling.count, agent.num_timesteps
    assert taken == frames if algo == "ppo" else frames / 2 < taken <= frames  # of two that write at once, one may count
    raw, _ = open_env(config, None).reset(seed=0)
    seen = play_episode(agent, open_env(config, None), seed=0).observations[0]
    pairs = [(seen[key], raw[key]) for key in raw] if previous_step == "True" else [(seen, raw)]
    assert all((one == other).all() for one, other in pairs)
    assert (memory_after(agent, raw) != memory_after(unscaled(agent), raw)).any()
    assert main(["--resume", str(run), "--quiet", "--eval-episodes", "20"]) == 0
    assert json.loads((run / "eval.json").read_text())["mean"] == mean


def memory_after(agent, observation):
    return agent.predict(observation)[1][0]


def unscaled(agent):
    agent.policy.observation_scaling = ObservationScaling(spaces.Dict())
    return agent


def test_nothing_is_scaled_if_so_chosen(tmp_path):
    _, run = train(tmp_path, "--env", "CartPole-v1", "--normalize", "False", timesteps=96)
    policy = load_trained(run)[1].policy
    assert not policy.observation_scaling.keys
    assert policy.reward_scaling.count == 0


def test_a_run_interrupted_in_its_evaluation_can_be_evaluated(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fw_rl.experiments.agents.Player.episodes", interrupted)
        code, run = train(tmp_path)
    assert code == 130
    assert f"--resume {run}" in capsys.readouterr().out.splitlines()[-1]
    assert main(["--resume", str(run), "--quiet", "--eval-episodes", "1"]) == 0
    record = json.loads((run / "eval.json").read_text())
    assert (record["episodes"], record["interval_95"]) == (1, None)


def test_ctrl_c_in_the_last_rollout_counts(tmp_path, monkeypatch, capsys):
    def train_and_ask(model):
        update(model)
        if model.num_timesteps >= 480:
            signal.raise_signal(signal.SIGINT)

    update = RecurrentA2C.train
    with monkeypatch.context() as patched:
        patched.setattr(RecurrentA2C, "train", train_and_ask)
        code, run = train(tmp_path)
    assert code == 130 and not (run / "eval.json").exists()
    assert f"Interrupted at 480 frames. Go on with: fw-rl train --resume {run}" in capsys.readouterr().out
    assert main(["--resume", str(run), "--quiet", "--eval-episodes", "1"]) == 0


class NothingIsAllowed(gym.Wrapper):
    """CartPole that allows no action from its third step on."""

    def __init__(self, **options):
        super().__init__(gym.make("CartPole-v1", **options))

    def action_masks(self):
        return np.full(2, self.unwrapped.steps_beyond_terminated is None and self.get_wrapper_attr("_elapsed_steps") < 3)


gym.register("tests/NothingIsAllowed-v0", NothingIsAllowed)


def test_an_environment_that_errs_amid_a_training_gets_one_line(tmp_path, capsys):
    code, _ = train(tmp_path, "--env", "tests/NothingIsAllowed-v0", "--algo", "a2c")
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fw-rl train: error: action_masks must allow an action")


class Failing(gym.Wrapper):
    """CartPole that fails after some steps of all of its environments."""

    error: BaseException = RuntimeError("the socket is closed")
    left = 0

    def __init__(self, **options):
        super().__init__(gym.make("CartPole-v1", **options))

    def step(self, action):
        Failing.left -= 1
        if Failing.left == 0:
            raise Failing.error
        return super().step(action)


gym.register("tests/Failing-v0", Failing)


@pytest.mark.parametrize(
    "error", [RuntimeError("gone"), ValueError("gone"), SystemExit("gone")], ids=lambda one: type(one).__name__
)
def test_an_environment_that_fails_amid_a_training_costs_no_frames(error, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Failing, "error", error)
    monkeypatch.setattr(Failing, "left", 300)
    code, run = train(tmp_path, "--env", "tests/Failing-v0", "--algo", "a2c")
    *traceback, line = capsys.readouterr().err.splitlines()
    assert code == 1 and "step" in "".join(traceback)
    assert line == f"fw-rl train: error: {type(error).__name__}: gone; go on with: fw-rl train --resume {run}"
    assert int(RunFolder(run).last_checkpoint().stem) >= 280
    assert main(["--resume", str(run), "--quiet", "--eval-episodes", "1"]) == 0


def test_a_run_is_trained_by_one_process(finished_run, tmp_path, capsys):
    run = shutil.copytree(finished_run, tmp_path / "run")
    with RunFolder(run).locked():
        assert main(["--resume", str(run), "--timesteps", "960", "--quiet"]) == 2
    assert capsys.readouterr().err.endswith(f"RUN must not be in training, got {run}, which another process trains\n")
    assert json.loads((run / "config.json").read_text())["settings"]["timesteps"] == 480
    assert main(["--resume", str(run), "--timesteps", "960", "--quiet", "--eval-episodes", "1"]) == 0


class WrongShape(gym.Wrapper):
    def __init__(self, **options):
        super().__init__(gym.make("CartPole-v1", disable_env_checker=True, **options))

    def reset(self, **options):
        return np.zeros(3, np.float32), {}

    def close(self):
        raise OSError("closed already")


gym.register("tests/WrongShape-v0", WrongShape, disable_env_checker=True)


def test_observations_of_another_shape_are_said_before_a_folder_is_made(tmp_path, capsys):
    assert main(["--env", "tests/WrongShape-v0", "--log-dir", str(tmp_path / "runs"), "--quiet"]) == 2
    assert "ValueError: observations must have the shape (4,), got (3,)" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_damaged_line_of_the_log_is_left_out(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    rows = RunFolder(run).read_progress()
    with (run / "progress.csv").open("a") as file:
        file.write("abc,def\n")
    assert RunFolder(run).read_progress() == rows


def test_the_same_seed_gives_the_same_run(tmp_path):
    runs = [weights(train(tmp_path / name, "--seed", seed)[1]) for name, seed in (("a", "3"), ("b", "3"), ("c", "4"))]
    policies = [{name: part for name, part in run.items() if name.startswith("policy")} for run in runs]
    assert policies[0]
    assert all(torch.equal(policies[0][name], policies[1][name]) for name in policies[0])
    assert not all(torch.equal(policies[0][name], policies[2][name]) for name in policies[0])


@pytest.mark.parametrize(("algo", "reward"), [("a2c", 1), pytest.param("a3c", 1, marks=pytest.mark.processes), ("ppo", 0)])
def test_an_agent_that_sees_its_previous_step_can_be_played(algo, reward, tmp_path, capsys):
    code, run = train(tmp_path, "--previous-step", "True", "--previous-reward", str(reward == 1), "--algo", algo)
    assert code == 0
    assert {path.name for path in run.iterdir()} >= {"eval.json", "learning_curve.png", "episodes.gif"}
    pixels, actions = 25, 3
    (encoder,) = (part for name, part in weights(run).items() if name.endswith("encoder.0.weight"))
    assert encoder.shape[1] == pixels + actions + reward
    assert play([str(run), "--episodes", "1", "--gif", str(tmp_path / "episode.gif")]) == 0
    assert "Episode 1: return" in capsys.readouterr().out


@pytest.mark.processes
def test_workers_that_step_the_environments_change_nothing(tmp_path):
    settings = ["--env", "CartPole-v1", "--eval-episodes", "2"]
    one, two = (weights(train(tmp_path / workers, *settings, "--workers", workers)[1]) for workers in "12")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert multiprocessing.active_children() == []


@pytest.mark.processes
def test_a_run_goes_on_after_a_worker_was_killed(tmp_path, capsys):
    def kill():
        while not list(tmp_path.rglob("*.safetensors")):
            time.sleep(0.05)
        multiprocessing.active_children()[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    code, run = train(tmp_path, "--env", "CartPole-v1", "--workers", "2", timesteps=10**7)
    killer.join()
    assert code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"worker \d was killed by signal 9; go on with: .* --resume {run}$", line)
    assert multiprocessing.active_children() == []

    config = json.loads((run / "config.json").read_text())
    config["settings"]["timesteps"] = int(max((run / "checkpoints").iterdir()).stem) + 480
    (run / "config.json").write_text(json.dumps(config))
    assert main(["--resume", str(run), "--quiet", "--eval-episodes", "2", "--workers", "4"]) == 0
    assert json.loads((run / "eval.json").read_text())["timesteps"] >= config["settings"]["timesteps"]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.processes
def test_a_stopped_run_goes_on_as_if_it_never_stopped(tmp_path, number):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    arguments = [*SMALL, "--timesteps", "24000", "--quiet", "--log-dir"]
    assert main([*arguments, str(whole)]) == 0
    process = start(*arguments, str(stopped))
    wait_for_checkpoints(stopped, 1200, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    (run,) = stopped.iterdir()
    assert int(max((run / "checkpoints").iterdir()).stem) < 24000
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert f"--resume {run}" in output

    assert main(["--resume", str(run), "--quiet", "--eval-episodes", "20"]) == 0
    expected, resumed = weights(next(whole.iterdir())), weights(run)
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    steps = [float(row["time/total_timesteps"]) for row in csv.DictReader((run / "progress.csv").open())]
    assert steps == sorted(set(steps))
    assert steps[-1] == 24000


def test_a_finished_run_can_be_resumed_and_is_evaluated_again(finished_run, tmp_path, capsys):
    run = shutil.copytree(finished_run, tmp_path / "run")
    assert main(["--resume", str(run), "--quiet", "--eval-episodes", "10"]) == 0
    assert json.loads((run / "eval.json").read_text())["episodes"] == 10


@pytest.mark.parametrize("algo", ["a2c", pytest.param("ppo", marks=pytest.mark.processes)])
def test_a_finished_run_can_be_made_longer(algo, tmp_path, capsys):
    _, run = train(tmp_path, "--algo", algo)
    assert main(["--resume", str(run), "--quiet", "--eval-episodes", "10", "--timesteps", "960"]) == 0
    assert json.loads((run / "eval.json").read_text())["timesteps"] == 960
    assert json.loads((run / "config.json").read_text())["settings"]["timesteps"] == 960
    assert (run / "checkpoints" / "000000000960.safetensors").is_file()
    steps = [float(row["time/total_timesteps"]) for row in csv.DictReader((run / "progress.csv").open())]
    assert steps == sorted(set(steps)) and steps[-1] == 960
    capsys.readouterr()
    assert main(["--resume", str(run), "--quiet", "--workers", "0"]) == 2
    assert "--workers must be at least 1, got 0" in capsys.readouterr().err
    assert main(["--resume", str(run), "--quiet", "--timesteps", "480"]) == 2
    assert capsys.readouterr().err.endswith("--timesteps must be at least 960, the frames that the run has, got 480\n")


def test_a_net_that_diverges_gets_one_line(tmp_path, capsys):
    wild = ["--learning-rate", "1e30", "--cell-options", "layer_norm=false"]
    assert train(tmp_path, *wild)[0] == 1
    printed = capsys.readouterr().err
    assert "not finite" in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("where, at", [("reward", 5), ("observation", 52)], ids=["training", "evaluation"])
def test_a_number_that_is_not_finite_gets_one_line(where, at, tmp_path, capsys, monkeypatch):
    settings = dict(number=1, where=where, at=at, value=float("nan"), action_space=spaces.Discrete(2))
    entry_point = partial(Faulty, **settings)
    monkeypatch.setitem(gym.registry, "Faulty-v0", EnvSpec("Faulty-v0", entry_point, disable_env_checker=True))
    longer = "--eval-episodes", "1000"  # 60 steps of each environment, after 24 in training
    assert train(tmp_path, "--env", "Faulty-v0", "--cell", "gru", *longer, timesteps=96)[0] == 1
    printed = capsys.readouterr().err
    assert f"error: {where} must be finite, got nan from environment 0" in printed
    assert printed.count("\n") == 1


def test_a_resumed_run_keeps_its_settings(finished_run, capsys):
    assert main(["--resume", str(finished_run), "--cell", "lstm"]) == 2
    assert "--cell must be left out with --resume, got 'lstm'" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "foreign", "none", "settings", "newer"])
def test_a_damaged_run_gets_one_line(damage, tmp_path, capsys):
    _, run = train(tmp_path)
    checkpoints = sorted((run / "checkpoints").iterdir())
    if damage == "cut":
        checkpoints[-1].write_bytes(checkpoints[-1].read_bytes()[:-100])
    elif damage == "foreign":
        safetensors.torch.save_file({"x": torch.zeros(1)}, checkpoints[-1])
    elif damage == "none":
        for checkpoint in checkpoints:
            checkpoint.unlink()
    elif damage == "newer":
        config = json.loads((run / "config.json").read_text())
        config["settings"]["novel"] = 1
        (run / "config.json").write_text(json.dumps(config))
    else:
        (run / "config.json").write_text('{"settings": {}}')
    assert main(["--resume", str(run), "--quiet"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert run.name in printed
    assert damage != "newer" or "is of another version of fw_rl, with novel" in printed


@pytest.mark.processes
def test_a_checkpoint_of_another_net_gets_one_line(tmp_path, capsys):
    _, run = train(tmp_path / "a")
    _, other = train(tmp_path / "b", "--hidden-size", "9")
    os.replace(sorted((other / "checkpoints").iterdir())[-1], sorted((run / "checkpoints").iterdir())[-1])
    assert main(["--resume", str(run), "--quiet"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
