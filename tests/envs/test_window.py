"""The window: what is on it, for how long, and that closing it is noticed."""

import sys
import time

import gymnasium as gym
import numpy as np
import pytest

from fw_rl.envs.rendering import Window

pygame = pytest.importorskip("pygame", reason="needs pip install 'fw-rl[human]'")


@pytest.fixture
def window(monkeypatch):
    """A window on a screen that nobody sees."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    window = Window("title", fps=20)
    yield window
    window.close()


def test_a_picture_is_on_the_window(window):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 30, 50, 3), dtype=np.uint8)
    for picture in pictures:
        window.show(picture)
        assert (pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1) == picture).all()
    assert pygame.display.get_caption()[0] == "title"


def test_a_picture_stays_for_its_time(window):
    begin = time.perf_counter()
    for _ in range(3):
        window.show(np.zeros((30, 50, 3), np.uint8))
    assert time.perf_counter() - begin >= 3 / 20
    assert not window.closed


def test_closing_ends_the_wait_and_opening_begins_anew(window):
    window.open(50, 30)
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    begin = time.perf_counter()
    window.stay(30)
    assert time.perf_counter() - begin < 10
    assert window.closed
    window.open(50, 30)
    assert not window.closed


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a screen")
def test_a_window_needs_a_screen(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(gym.error.Error, match=r"^a window cannot be opened: "):
        Window("title", fps=20).open(50, 30)
    assert not pygame.display.get_init()
