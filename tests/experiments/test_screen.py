"""Episodes on the screen: the frame at the left, and at the right the memory as it is at that step."""

from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from fw_rl.agents import RecurrentPPO
from fw_rl.experiments import memory_view, screen
from fw_rl.experiments.attention import attention_shares, encode
from fw_rl.experiments.episodes import play_episode, play_steps
from fw_rl.experiments.memory_view import MemoryView, with_memory
from fw_rl.experiments.screen import EpisodeWindow


class Brighter(gym.Env):
    """Eight steps, the frame of each brighter than the last."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1000}  # noqa: RUF012
    observation_space, action_space, render_mode = spaces.Box(0, 1, (2,)), spaces.Discrete(2), "rgb_array"

    def __init__(self, shape=(33, 47)):
        self.shape = shape

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        return self._observe(), 1.0, self.steps == 8, False, {}

    def render(self):
        return np.full((*self.shape, 3), 30 * self.steps, dtype=np.uint8)

    def _observe(self):
        return self.np_random.random(2, dtype=np.float32)


@pytest.fixture
def pygame(monkeypatch):
    """The module, with a screen that nobody sees, on which an episode does not rest."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(screen, "REST", 0.0)
    pygame = pytest.importorskip("pygame", reason="needs pip install 'fw-rl[human]'")
    yield pygame
    pygame.display.quit()


def agent_with(cell):
    return RecurrentPPO(
        "RecurrentPolicy",
        Brighter(),
        n_steps=4,
        batch_size=4,
        policy_kwargs=dict(cell=cell, hidden_size=8),
        device="cpu",
        seed=0,
    )


def watched(pygame, agent, env, **options):
    """What is on the window at each step of an episode."""
    env.reset(seed=0)
    window = EpisodeWindow("title", agent, env, **options)
    steps = window.watch(play_steps(agent, env, seed=0))
    pictures = [pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1) for _ in steps]
    assert not window.closed
    window.close()
    return pictures


@pytest.mark.parametrize("cell", ["fast-weights", "lstm"])
@pytest.mark.parametrize("shape", [(3, 4), (33, 47), (900, 700)])
def test_frame_and_memory_are_side_by_side(cell, shape, pygame):
    pictures = watched(pygame, agent_with(cell), Brighter(shape))
    assert [picture.shape for picture in pictures] == [(320, 640, 3)] * 9
    assert [picture[160, 160].tolist() for picture in pictures] == [[30 * step] * 3 for step in range(9)]
    framed = [(picture[:, :320] == picture[160, 160]).all(axis=2) for picture in pictures[1:]]
    assert all(part.any(axis=axis).sum() > 190 for part in framed for axis in (0, 1))  # small ones are scaled up
    memories = [picture[:, 320:] for picture in pictures]
    assert all((one != other).any() for one, other in pairwise(memories[:8]))
    assert (memories[7] == memories[8]).all()  # nothing is decided at the end


def test_without_memory_the_frame_is_alone(pygame):
    pictures = watched(pygame, agent_with("lstm"), Brighter(), show_memory=False)
    assert [picture.shape for picture in pictures] == [(33, 47, 3)] * 9
    assert (
        [picture.min() for picture in pictures] == [picture.max() for picture in pictures] == [30 * step for step in range(9)]
    )


@pytest.mark.parametrize("cell", ["fast-weights", "delta-net"])
def test_the_window_shows_what_files_show(cell):
    agent = agent_with(cell)
    view = MemoryView(agent)
    shown = [view.picture(episode) for episode in play_steps(agent, Brighter(), seed=0)]
    assert (np.stack(shown) == with_memory(agent, play_episode(agent, Brighter(), seed=0))).all()


@pytest.mark.parametrize("cell", ["fast-weights", "delta-net", "lstm"])
def test_only_the_last_steps_are_looked_at(cell, monkeypatch):
    monkeypatch.setattr(memory_view, "LOOK_BACK", 3)
    agent = agent_with(cell)
    view, looked_at = MemoryView(agent), []
    monkeypatch.setattr(memory_view, "_draw", lambda cell, memory, frames, first, room: looked_at.append((memory, first)))
    monkeypatch.setattr(memory_view, "_beside", lambda frame, panel: None)
    for episode in play_steps(agent, Brighter(), seed=0):
        view.picture(episode)
    memory, first = looked_at[-1]
    assert (first, len(memory)) == (5, 3)
    own_cell = agent.policy.actor_cell
    if own_cell.attends:
        shares = attention_shares(agent, episode)[-1, 5:]
        assert memory[-1] == pytest.approx(shares / shares.sum(), rel=1e-4)
    else:
        with torch.no_grad():
            outputs, _ = own_cell(encode(agent, episode.observations), own_cell.initial_state(1))
        last = outputs[5:, 0].numpy()
        assert memory == pytest.approx(last / np.abs(last).max(), rel=1e-4)


def test_closing_the_window_ends_the_episode(pygame):
    agent, env = agent_with("fast-weights"), Brighter()
    env.reset(seed=0)
    window = EpisodeWindow("title", agent, env)
    for episode in window.watch(play_steps(agent, env, seed=0)):
        if len(episode) == 2:
            pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert window.closed
    assert (len(episode), episode.ended) == (3, False)
    window.close()
    assert pygame.display.get_surface() is None


def test_an_environment_may_have_taken_the_window(pygame):
    env = Brighter()
    env.reset(seed=0)
    pygame.display.set_mode((30, 30))
    with pytest.raises(gym.error.Error, match="--gif FILE shows it"):
        EpisodeWindow("title", agent_with("lstm"), env)
