"""The export command: the file that it leaves, and what bad input is answered with."""

import shutil

import gymnasium as gym
import numpy as np
import pytest

from fw_rl.commands.export import main
from tests.commands.helpers import other_run

pytest.importorskip("onnxscript", reason="needs pip install 'fw-rl[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs pip install 'fw-rl[onnx]'")


def test_a_run_becomes_one_file(catch_run, tmp_path, capsys):
    out = tmp_path / "new" / "agent.onnx"
    assert main([str(catch_run), "--onnx", str(out)]) == 0
    assert list(out.parent.iterdir()) == [out]
    names = [part.name for part in onnxruntime.InferenceSession(out).get_inputs()]
    assert names == ["observation", "episode_start", "state_0", "state_1", "state_2"]
    assert str(out) in capsys.readouterr().out


@pytest.mark.processes
def test_another_checkpoint_gives_another_agent(catch_run, tmp_path):
    first, *_, last = sorted((catch_run / "checkpoints").iterdir())
    for name, checkpoint in (("first", ["--checkpoint", str(first)]), ("last", ["--checkpoint", str(last)]), ("default", [])):
        assert main([str(catch_run), "--onnx", str(tmp_path / f"{name}.onnx"), *checkpoint]) == 0
    content = {path.stem: path.read_bytes() for path in tmp_path.iterdir()}
    assert content["default"] == content["last"] != content["first"]


class OneWay(gym.Wrapper):
    """CartPole in which pushing to the left is forbidden."""

    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))

    def action_masks(self):
        return np.array([False, True])


gym.register("tests/OneWay-v0", OneWay)


@pytest.mark.processes
def test_what_the_environment_forbids_the_exported_agent_can_be_told(catch_run, tmp_path):
    run = other_run(catch_run, tmp_path / "run", "tests/OneWay-v0")
    assert main([str(run), "--onnx", str(tmp_path / "agent.onnx")]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "agent.onnx")
    blank = {part.name: np.zeros([8, *part.shape[1:]], np.float32) for part in session.get_inputs()}
    told = dict(episode_start=np.ones(8, bool), action_masks=np.tile([False, True], (8, 1)))
    observation = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    (actions, *_) = session.run(None, blank | told | dict(observation=observation))
    assert (actions == 1).all()


def without_checkpoints(run, to):
    shutil.copytree(run, to)
    shutil.rmtree(to / "checkpoints")
    return to


@pytest.mark.parametrize("case", ["no run", "no checkpoint", "no file", "damaged", "no onnx"])
def test_bad_input_gets_one_line_and_exit_code_2(case, catch_run, tmp_path, capsys):
    out, extra, run, expected = tmp_path / "agent.onnx", [], catch_run, ""
    if case == "no run":
        run, expected = tmp_path, "RUN must be the folder of a run"
    elif case == "no checkpoint":
        run, expected = without_checkpoints(catch_run, tmp_path / "copy"), "must have a checkpoint, got none"
    elif case == "no file":
        extra, expected = ["--checkpoint", str(tmp_path / "nothing.safetensors")], "nothing.safetensors"
    elif case == "damaged":
        (tmp_path / "damaged.safetensors").write_bytes(b"\x00" * 100)
        extra, expected = ["--checkpoint", str(tmp_path / "damaged.safetensors")], "damaged.safetensors"
    else:
        out, expected = tmp_path / "agent.pt", "--onnx must be a file whose name ends in .onnx"
    assert main([str(run), "--onnx", str(out), *extra]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("fw-rl export: error: ")
    assert expected in printed
    assert printed.count("\n") == 1
    assert not out.exists()
