"""The net is in training mode where it learns, and in evaluation mode where it acts, is judged or exported."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from stable_baselines3.common.torch_layers import FlattenExtractor

from fw_rl.agents import Player, RecurrentA2C, RecurrentPPO, export_onnx


class Watched(FlattenExtractor):
    """Notes in which mode it is, and whether a gradient is wanted, whenever it sees observations."""

    seen: ClassVar[set] = set()

    def forward(self, observations):
        self.seen.add((self.training, torch.is_grad_enabled()))
        return super().forward(observations)


class Dropping(FlattenExtractor):
    """Forgets most of what it sees, in training mode."""

    def forward(self, observations):
        return torch.nn.functional.dropout(super().forward(observations), 0.9, self.training)


def make_model(agent, extractor):
    policy = dict(features_extractor_class=extractor, cell="gru", hidden_size=8)
    return agent("RecurrentPolicy", "CartPole-v1", n_steps=8, seed=0, device="cpu", policy_kwargs=policy)


@pytest.mark.parametrize("agent", [RecurrentA2C, RecurrentPPO])
def test_it_learns_in_training_mode_alone(agent):
    Watched.seen.clear()
    make_model(agent, Watched).learn(24)
    assert Watched.seen == {(True, True), (False, False)}


def test_a_player_acts_in_evaluation_mode():
    model = make_model(RecurrentA2C, Watched)
    model.policy.set_training_mode(True)
    Watched.seen.clear()
    Player(model).act(np.zeros((1, 4), dtype=np.float32))
    assert Watched.seen == {(False, False)}


def test_an_exported_net_forgets_nothing(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs pip install 'fw-rl[onnx]'")
    pytest.importorskip("onnxscript", reason="needs pip install 'fw-rl[onnx]'")
    model = make_model(RecurrentA2C, Dropping)
    paths = [tmp_path / "evaluation.onnx", tmp_path / "training.onnx"]
    for path, mode in zip(paths, (False, True), strict=True):
        model.policy.set_training_mode(mode)
        export_onnx(model, path)
    evaluation, training = (onnxruntime.InferenceSession(path) for path in paths)
    types = {"tensor(float)": np.float32, "tensor(bool)": bool}
    given = {part.name: np.ones([3, *part.shape[1:]], types[part.type]) for part in evaluation.get_inputs()}
    for told, expected in zip(training.run(None, given), evaluation.run(None, given), strict=True):
        np.testing.assert_array_equal(told, expected)
