"""An agent of Catch whose old games are blurred and rehearsed: what is rehearsed, what changes, and what a wait does."""

from pathlib import Path

import pytest
import torch

from fw_rl.experiments.agents import make_model
from fw_rl.experiments.settings import resolve
from fw_rl.fast_slow import fast_weights


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import catch_deblur

    return catch_deblur


@pytest.fixture
def policy(script):
    torch.manual_seed(0)
    return make_model(resolve(env=script.ENV, cell="fast-weights", algo="a2c", seed=0)).policy


def test_every_start_is_played_once(script, policy):
    games, returns = script.play(policy)
    assert len({tuple(start) for start in games.screens[0].tolist()}) == 240
    assert set(returns.tolist()) == {-1.0, 1.0}


def test_the_other_game_lies_on_its_side(script, policy):
    games, _ = script.play(policy)
    other = script.other_game(games)
    screen, turned = (part.screens[0, 7].view(16, 16) for part in (games, other))
    assert torch.equal(turned, screen.T)
    assert torch.equal(script.other_game(other).screens, games.screens)
    assert torch.equal(script.other_game(other).actions, games.actions)


def test_waiting_only_lets_the_fast_weights_fade(script, policy):
    settings = script.Settings()
    change = script.make_change(policy, script.Condition(True, 0.0), settings)
    games, _ = script.play(policy)
    slow = {name: part.clone() for name, part in policy.named_parameters() if not name.endswith("fast")}
    change(script.other_game(games))
    before = {name: part.clone() for name, part in fast_weights(policy).items()}
    assert any(part.abs().max() > 0 for part in before.values())
    for _ in range(40):  # until the momentum of 0.5 is spent
        change(None)
    later = {name: part.clone() for name, part in fast_weights(policy).items()}
    change(None)
    for name, part in fast_weights(policy).items():
        torch.testing.assert_close(part, settings.decay * later[name], rtol=1e-4, atol=1e-9)
    for name, part in policy.named_parameters():
        assert name not in slow or torch.equal(part, slow[name])


def test_rehearsal_raises_what_is_rehearsed(script, policy):
    games, _ = script.play(policy)
    few = script.other_game(games).some(torch.arange(24))
    change = script.make_change(policy, script.Condition(False, 0.02), script.Settings())

    def likelihood():
        with torch.no_grad():
            starts = torch.zeros(few.actions.shape, dtype=torch.bool)
            return policy.evaluate_actions(few.screens, few.actions, policy.initial_state(24), starts)[1].mean()

    before = likelihood()
    for _ in range(20):
        change(few)
    assert likelihood() > before + 0.2
