"""The peer in JAX: it plays our Catch by our cells, so that a ratio compares the same work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fw_rl.cells import make_cell
from fw_rl.envs import CatchRules

jax = pytest.importorskip("jax", reason="needs pip install 'fw-rl[bench]'")
pytest.importorskip("optax", reason="needs pip install 'fw-rl[bench]'")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.processes


@pytest.fixture
def peer(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import jax_agent

    return jax_agent


def test_it_plays_our_game(peer):
    rules = CatchRules(peer.N, peer.M, peer.PADDLE)
    game = peer.start(jax.random.key(0), 200)
    ball, paddle = np.array(game.ball), np.array(game.paddle)
    assert set(ball) == set(range(16)) and set(paddle) == set(range(15))
    rng = np.random.default_rng(0)
    for t in range(peer.STEPS):
        row = np.full(200, t)
        screen = rules.screen(row, ball, paddle, row, np.float32)
        assert np.array_equal(peer.screen(game, t).reshape(-1, 16, 16), screen)
        actions = rng.integers(3, size=200)
        game, paddle = peer.move(game, actions), rules.move(paddle, actions)
        assert np.array_equal(peer.reward(game, t + 1), rules.reward(row + 1, ball, paddle))


def jax_outputs(peer, name, parameters, x):
    """[T, B, H] of the peer's cell from an empty state."""
    cell = peer.CELLS[name]
    state, outputs = tuple(jax.numpy.zeros((x.shape[1], *shape)) for shape in cell.state), []
    for t, now in enumerate(x):
        state, output = cell.step(parameters, state, peer.apply(parameters["x"], now), t)
        outputs.append(np.array(output))
    return np.stack(outputs)


OPTIONS = {"lstm": {}, "gru": {}, "fast-weights": dict(eta=0.1, decay=0.1, activation="relu")}


@pytest.mark.parametrize("name", OPTIONS)
def test_its_cells_are_ours(peer, name):
    torch.manual_seed(0)
    cell = make_cell(name, peer.UNITS, peer.UNITS, **OPTIONS[name])
    x = np.random.default_rng(0).normal(size=(peer.STEPS, 3, peer.UNITS)).astype(np.float32)
    with torch.no_grad():
        ours, _ = cell(torch.as_tensor(x), cell.initial_state(3), None)
    found = {key: value.detach().numpy() for key, value in cell.named_parameters()}
    if name == "fast-weights":
        parameters = dict(
            x=dict(w=found["input_map.weight"].T, b=found["input_map.bias"]),
            h=dict(w=found["recurrent_map.weight"].T),
            gain=found["norm.weight"],
            bias=found["norm.bias"],
        )
    else:
        biases = found["core.bias_ih_l0"], found["core.bias_hh_l0"]
        several = biases if name == "gru" else (sum(biases), 0)
        parameters = dict(
            x=dict(w=found["core.weight_ih_l0"].T, b=several[0]), h=dict(w=found["core.weight_hh_l0"].T, b=several[1])
        )
    assert np.allclose(jax_outputs(peer, name, parameters, x), ours.numpy(), atol=2e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_whole_sequence_has_the_values_of_its_steps(peer, name):
    settings = peer.Settings(algo="ppo", cell=name, ent_coef=0.0)
    params = peer.parameters(jax.random.key(0), peer.CELLS[name])
    played = peer.play(peer.CELLS[name], params, jax.random.key(1), 8)
    nothing = jax.numpy.zeros_like(played.value)
    assert float(peer.ppo_loss(params, played, nothing, peer.CELLS[name], settings)) < 1e-10
    off = played._replace(value=played.value + 0.1)
    assert float(peer.ppo_loss(params, off, nothing, peer.CELLS[name], settings)) == pytest.approx(0.005, rel=1e-3)


@pytest.mark.parametrize("algo", ["a2c", "ppo"])
def test_it_learns_to_catch_more(peer, algo):
    settings = peer.Settings(
        algo=algo, cell="fast-weights", learning_rate=3e-3, ent_coef=0.005, normalize_advantage=True, frames=400_000
    )
    *_, end = peer.train(settings)
    assert peer.greedy_return(end.params, "fast-weights") > -0.5  # chance is -0.75; how far it comes differs by processor


def test_the_benchmark_measures_both_sides(tmp_path):
    out = tmp_path / "record.json"
    command = [sys.executable, str(BENCHMARKS / "jax_speed.py"), "--cells", "lstm", "--n-envs", "16", "--repeats", "1"]
    command += ["--seconds", "0.1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)})
    assert done.returncode == 0, done.stderr
    assert {name.split(",")[0] for name in json.loads(out.read_text())["frames_per_second"]} == {"JAX", "ours"}
