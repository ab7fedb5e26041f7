"""sb3-contrib's RecurrentPPO takes the cells as if they were its LSTM."""

import doctest

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.testing import assert_close

from fw_rl.agents import CellLstmPolicy, contrib
from fw_rl.cells import Cell, base, make_cell
from tests.agents.helpers import CELLS, scripted_envs

EVERY_CELL = pytest.mark.parametrize("cell, options", CELLS.values(), ids=CELLS)
SCRIPTS = [((3, "terminated"), (6, "truncated")), ((5, "terminated"), (2, "truncated")), ((40, "terminated"),)]


def make_model(policy=CellLstmPolicy, seed=0, action_space=None, **policy_kwargs):
    env = DummyVecEnv(scripted_envs(SCRIPTS, scale=0.3, action_space=action_space))
    return RecurrentPPO(policy, env, n_steps=8, batch_size=8, n_epochs=2, seed=seed, device="cpu", policy_kwargs=policy_kwargs)


def same_lstm(**kwargs):
    """sb3-contrib's own agent, and ours with the same LSTM."""
    theirs = make_model("MlpLstmPolicy", lstm_hidden_size=8, **kwargs)
    ours = make_model(cell="lstm", hidden_size=8, **kwargs)
    names = [name for name, _ in theirs.policy.named_parameters()]
    assert len(names) == len(list(ours.policy.parameters()))
    own = dict(ours.policy.named_parameters())
    with torch.no_grad():
        for name, parameter in theirs.policy.named_parameters():
            head, _, last = name.rpartition(".")
            target = own.get(name)
            if target is None:
                (target,) = (p for n, p in own.items() if n.startswith(f"{head}.cell.") and n.endswith(last))
            target.copy_(parameter)
    return theirs, ours


CRITICS = {
    "own LSTM": {},
    "shared": dict(shared_lstm=True, enable_critic_lstm=False),
    "without": dict(enable_critic_lstm=False),
}


@pytest.mark.parametrize("critic", CRITICS.values(), ids=CRITICS)
def test_with_an_lstm_it_learns_what_sb3_contrib_learns(critic):
    theirs, ours = same_lstm(**critic)
    for model in (theirs, ours):
        model.set_random_seed(3)
        model.learn(96)
    for name in ("values", "log_probs", "advantages"):
        assert_close(getattr(ours.rollout_buffer, name), getattr(theirs.rollout_buffer, name), atol=1e-5, rtol=1e-5)
    mine, other = (sorted(p.double().sum().item() for p in model.policy.parameters()) for model in (ours, theirs))
    assert mine == pytest.approx(other, abs=1e-4)


@EVERY_CELL
def test_a_state_from_the_buffer_is_that_of_the_cell(cell, options):
    plain = make_cell(cell, 3, 8, **options)
    adapter = contrib._CellAsLstm(plain)
    x, starts = torch.randn(9, 2, 3), torch.zeros(9, 2, dtype=torch.bool)
    starts[0] = True
    starts[4, 1] = starts[6] = True
    expected, _ = plain(x, plain.initial_state(2), starts)
    states = (torch.zeros(1, 2, adapter.hidden_size),) * 2
    whole, _ = adapter(x, states, starts)
    assert_close(whole, expected)
    outputs = []
    for t in range(9):
        y, states = adapter(x[t : t + 1], states, starts[t : t + 1])
        assert [part.shape for part in states] == [(1, 2, adapter.hidden_size)] * 2
        outputs.append(y[0])
    assert_close(torch.stack(outputs), expected)


@EVERY_CELL
def test_it_learns_predicts_and_comes_back(cell, options, tmp_path):
    model = make_model(cell=cell, hidden_size=8, cell_kwargs=options)
    before = [parameter.clone() for parameter in model.policy.lstm_actor.parameters()]
    model.learn(48)
    pairs = zip(before, model.policy.lstm_actor.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in pairs)
    model.save(tmp_path / "agent")
    loaded = RecurrentPPO.load(tmp_path / "agent", device="cpu")
    state, starts = None, np.ones(3, dtype=bool)
    for t in range(5):
        observation = np.full((3, 3), 0.1 * t, dtype=np.float32)
        action, new_state = model.predict(observation, state, starts, deterministic=True)
        again, _ = loaded.predict(observation, state, starts, deterministic=True)
        assert np.array_equal(action, again)
        state, starts = new_state, np.zeros(3, dtype=bool)


@pytest.mark.parametrize("critic", CRITICS.values(), ids=CRITICS)
def test_the_policy_alone_comes_back_from_its_file(critic, tmp_path):
    policy = make_model(cell="fast-weights", hidden_size=6, cell_kwargs=dict(eta=0.3), **critic).policy
    policy.save(tmp_path / "policy")
    loaded = CellLstmPolicy.load(tmp_path / "policy", device="cpu")
    observation, starts = np.full((3, 3), 0.4, dtype=np.float32), np.ones(3, dtype=bool)
    for state in (None, (np.full((1, 3, policy.lstm_hidden_state_shape[2]), 0.1, dtype=np.float32),) * 2):
        expected, known = policy.predict(observation, state, starts & (state is None), deterministic=True)
        action, new = loaded.predict(observation, state, starts & (state is None), deterministic=True)
        assert np.array_equal(action, expected)
        assert_close(new, known)


@EVERY_CELL
def test_the_ratio_is_1_before_the_first_update(cell, options):
    model = make_model(cell=cell, hidden_size=8, cell_kwargs=options)
    model.learning_rate, model.lr_schedule = 0.0, lambda progress: 0.0
    model.learn(48)
    for batch in model.rollout_buffer.get(24):
        actions = batch.actions.long().flatten()
        values, log_prob, _ = model.policy.evaluate_actions(
            batch.observations, actions, batch.lstm_states, batch.episode_starts
        )
        real = batch.mask > 1e-8
        assert_close(log_prob[real], batch.old_log_prob[real], atol=1e-5, rtol=1e-4)
        assert_close(values.flatten()[real], batch.old_values[real], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([3, 2])])  # its buffer has no MultiBinary
def test_other_actions(space):
    make_model(action_space=space, hidden_size=8).learn(24)


class NeverBlank(Cell):
    """Begins its episodes at 1."""

    def initial_state(self, batch_size):
        return (torch.ones(batch_size, self.hidden_size),)

    def forward(self, x, state, episode_starts=None):
        return state[0].expand(len(x), -1, -1), state


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(cell="elephant"), "cell must be one of .*, got 'elephant'"),
        (dict(cell="gru", cell_kwargs=dict(eta=1.0)), "an option of cell 'gru' must be one of layers, got 'eta'"),
        (dict(lstm_hidden_size=8), "lstm_hidden_size must be left out, since a cell has hidden_size and cell_kwargs, got 8"),
        (dict(cell="never-blank"), "cell must begin an episode at 0, as sb3-contrib takes it to, got NeverBlank"),
    ],
)
def test_what_cannot_be_plugged_in(kwargs, message, monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", {**base._REGISTRY, "never-blank": NeverBlank})
    with pytest.raises(ValueError, match=message):
        make_model(**kwargs)


def test_the_example_in_the_documentation():
    result = doctest.testmod(contrib)
    assert result.attempted
    assert not result.failed
