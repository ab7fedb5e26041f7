"""The play command: what it writes and shows, what fast weights attend to, and what bad input is answered with."""

import shutil
import sys
from itertools import pairwise
from unittest.mock import Mock

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from PIL import Image

from fw_rl.agents import RecurrentPPO
from fw_rl.commands import play
from fw_rl.commands.play import main
from fw_rl.experiments import screen
from fw_rl.experiments.agents import load_trained
from fw_rl.experiments.animation import write_gif
from fw_rl.experiments.attention import AttentionPicture, attention_shares
from fw_rl.experiments.episodes import Episode, open_env, play_episode
from fw_rl.experiments.memory_view import most_read, with_memory
from tests.commands.helpers import other_run


class Walk(gym.Env):
    """Five steps that are drawn in shades of grey; `happens` is called at each of them."""

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.observation_space, self.action_space = spaces.Box(0, 9, (2,)), spaces.Discrete(2)
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_number = 0
        return self._observe(), {}

    def step(self, action):
        self.step_number += 1
        self.happens()
        return self._observe(), 1.0, self.step_number == 5, False, {}

    def render(self):
        return np.full((33, 47, 3), 40 * self.step_number, dtype=np.uint8)

    def _observe(self):
        return self.np_random.random(2, dtype=np.float32)

    def happens(self):
        """Nothing, unless a test says what."""


class WalkWithWindow(Walk):
    """The same, but it shows itself and does not draw."""

    metadata = {"render_modes": ["human"]}  # noqa: RUF012


NO_SCREEN = {"error": OSError, "display.get_driver.return_value": "offscreen", "display.get_surface.return_value": None}
"""What pygame is where there is no screen."""

gym.register("tests/Walk-v0", Walk)
gym.register("tests/WalkWithWindow-v0", WalkWithWindow)
gym.register("tests/Unseen-v0", lambda: Walk())


@pytest.fixture(scope="module")
def walk_run(catch_run, tmp_path_factory):
    """The folder of a run on an environment that draws itself."""
    return other_run(catch_run, tmp_path_factory.mktemp("walk"), "tests/Walk-v0")


def test_episodes_become_an_animation(catch_run, tmp_path, capsys):
    out = tmp_path / "new" / "episodes.gif"
    assert main([str(catch_run), "--episodes", "3", "--gif", str(out)]) == 0
    with Image.open(out) as animation:
        assert animation.n_frames == 3 * 5
        assert animation.info["loop"] == 0
    printed = capsys.readouterr().out
    assert printed.count("in 4 steps") == 3
    assert str(out) in printed


def test_an_animation_keeps_the_colour_of_a_small_thing(tmp_path):
    shades = np.linspace(0, 255, 400)
    frame = np.stack([np.broadcast_to(shades, (400, 400)), np.broadcast_to(shades[:, None], (400, 400))] * 2, -1)[..., :3]
    frame = frame.astype(np.uint8)
    frame[200:203, 200:203] = 255, 176, 64
    write_gif(tmp_path / "shades.gif", [[frame]], fps=10)
    with Image.open(tmp_path / "shades.gif") as animation:
        drawn = np.asarray(animation.convert("RGB"))
    assert np.abs(drawn[201, 201].astype(int) - (255, 176, 64)).max() < 32


def test_the_same_seed_gives_the_same_episodes(catch_run, tmp_path):
    for name, arguments in {"a": [], "b": [], "c": ["--seed", "7"]}.items():
        assert main([str(catch_run), "--gif", str(tmp_path / f"{name}.gif"), "--sample", *arguments]) == 0
    a, b, c = ((tmp_path / f"{name}.gif").read_bytes() for name in "abc")
    assert a == b != c


def test_both_files_are_written(walk_run, tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="needs pip install 'fw-rl[video]'")
    gif, mp4 = tmp_path / "a.gif", tmp_path / "a.mp4"
    assert main([str(walk_run), "--episodes", "1", "--gif", str(gif), "--mp4", str(mp4)]) == 0
    assert gif.read_bytes().startswith(b"GIF")
    assert b"ftyp" in mp4.read_bytes()[:12]


@pytest.mark.parametrize("how, greedy", [([], True), (["--sample"], False)])
def test_every_episode_has_a_seed_of_its_own(how, greedy, walk_run, monkeypatch):
    told = []
    steps = play.play_steps
    monkeypatch.setattr(play, "play_steps", lambda *given: told.append(given[2:4]) or steps(*given))
    monkeypatch.setattr(play, "_open", lambda options, config, model: (open_env(config, None, model), None))
    assert main([str(walk_run), "--episodes", "3", "--seed", "7", *how]) == 0
    assert told == [(7, greedy), (8, greedy), (9, greedy)]


def test_long_episodes_are_cut_off(walk_run, capsys, tmp_path):
    assert main([str(walk_run), "--episodes", "1", "--max-steps", "2", "--gif", str(tmp_path / "a.gif")]) == 0
    assert "Episode 1: return 2 in 2 steps" in capsys.readouterr().out


def test_episodes_become_a_video_of_even_size(walk_run, tmp_path):
    imageio = pytest.importorskip("imageio.v3", reason="needs pip install 'fw-rl[video]'")
    pytest.importorskip("imageio_ffmpeg", reason="needs pip install 'fw-rl[video]'")
    assert main([str(walk_run), "--episodes", "2", "--no-show-memory", "--mp4", str(tmp_path / "episodes.mp4")]) == 0
    frames = imageio.imread(tmp_path / "episodes.mp4")
    assert frames.shape == (2 * (6 + 5), 32, 46, 3)  # six frames and a second's rest
    assert abs(int(frames[3].mean()) - 120) < 10
    assert list(tmp_path.iterdir()) == [tmp_path / "episodes.mp4"]


@pytest.fixture
def pygame(monkeypatch):
    """The module, with a screen that nobody sees, on which nothing waits."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(screen, "REST", 0.0)
    monkeypatch.setitem(Walk.metadata, "render_fps", 1000)
    yield pytest.importorskip("pygame", reason="needs pip install 'fw-rl[human]'")
    sys.modules["pygame"].display.quit()


@pytest.mark.parametrize(("extra", "size"), [([], (640, 320)), (["--no-show-memory"], (47, 33))])
def test_without_a_file_episodes_are_shown_in_a_window(extra, size, walk_run, capsys, pygame, monkeypatch):
    sizes = []
    monkeypatch.setattr(Walk, "happens", lambda env: sizes.append(pygame.display.get_surface().get_size()))
    assert main([str(walk_run), "--episodes", "2", *extra]) == 0
    assert sizes == [size] * 10
    assert capsys.readouterr().out.splitlines() == [f"Episode {number}: return 5 in 5 steps" for number in (1, 2)]
    assert pygame.display.get_surface() is None


def test_closing_the_window_ends_the_play(walk_run, capsys, pygame, monkeypatch):
    def close_at_step_2(env):
        if env.step_number == 2:
            pygame.event.post(pygame.event.Event(pygame.QUIT))

    monkeypatch.setattr(Walk, "happens", close_at_step_2)
    assert main([str(walk_run), "--episodes", "3"]) == 0
    assert capsys.readouterr().out == "Episode 1: return 2 in 2 steps, cut off\n"


def test_an_interrupt_closes_the_window(walk_run, capsys, pygame, monkeypatch):
    def interrupt_at_step_3(env):
        if env.step_number == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Walk, "happens", interrupt_at_step_3)
    with pytest.raises(KeyboardInterrupt):
        main([str(walk_run), "--episodes", "3"])
    assert capsys.readouterr().out == "Episode 1: return 2 in 2 steps, cut off\n"
    assert pygame.display.get_surface() is None


@pytest.mark.filterwarnings("ignore:.*render_mode='rgb_array' that is not")  # an agent asks for it
def test_an_environment_may_show_itself(catch_run, tmp_path, capsys):
    run = other_run(catch_run, tmp_path / "run", "tests/WalkWithWindow-v0")
    assert main([str(run), "--episodes", "1"]) == 0
    line = "tests/WalkWithWindow-v0 draws only in a window of its own: the memory is not shown"
    assert capsys.readouterr().out.splitlines() == [line, "Episode 1: return 5 in 5 steps"]


@pytest.mark.parametrize(
    ("module", "problem"), [(None, "needs pygame: pip install"), (Mock(**NO_SCREEN), "there is no screen")]
)
def test_without_a_window_episodes_are_played_all_the_same(module, problem, walk_run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", module)
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    assert main([str(walk_run), "--episodes", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("No window: ")
    assert problem in lines[0]
    assert lines[1:] == ["Episode 1: return 5 in 5 steps"]


@pytest.fixture(scope="module")
def played(catch_run):
    """An agent, and an episode that it has played."""
    config, agent = load_trained(catch_run)
    return agent, play_episode(agent, open_env(config, "rgb_array"), seed=3)


def test_an_episode_has_what_its_pictures_need(played):
    _, episode = played
    assert len(episode) == len(episode.observations) == len(episode.rewards) == 4
    assert len(episode.frames) == 5
    assert episode.ended


def test_an_episode_that_is_cut_off_has_not_ended(played, catch_run):
    config, agent = load_trained(catch_run)
    assert not play_episode(agent, open_env(config, None), seed=3, max_steps=2).ended


def test_shares_of_attention_are_those_of_the_cell(played):
    agent, episode = played
    shares = attention_shares(agent, episode)
    observations = torch.tensor(np.stack(episode.observations))[:, None]
    weights = agent.policy.cell.attention(agent.policy.encode(observations), agent.policy.initial_state(1))[:, 0]
    assert shares.shape == (4, 4)
    assert shares.sum(axis=1) == pytest.approx([0, 1, 1, 1])
    assert shares[3] * weights[3].sum().item() == pytest.approx(weights[3].numpy())
    assert shares[3, 2] != pytest.approx(shares[3, 1])


def test_a_picture_shows_a_row_for_each_step(played):
    agent, episode = played
    shares = attention_shares(agent, episode)
    whole = AttentionPicture(episode, shares, "title").pixels()
    blank = AttentionPicture(episode, np.zeros_like(shares), "title").pixels()
    assert whole.dtype == np.uint8
    assert min(whole.shape[:2]) >= 800
    assert (whole != blank).any()


@pytest.mark.parametrize(
    ("steps", "ended", "side", "shown", "left_out"),
    [
        (8, True, 6.4, 8, ""),
        (15, True, 3.2, 15, "one frame of 3 is shown"),
        (15, False, 6.4, 15, "the first 15 steps; the episode goes on; one frame of 2 is shown"),
        (500, True, 6.4, 480, "the first 480 of 500 steps; one frame of 42 is shown"),
    ],
)
def test_a_picture_says_what_it_leaves_out(steps, ended, side, shown, left_out):
    frames = [np.zeros((20, 30, 3), dtype=np.uint8)] * (steps + 1)
    episode = Episode([np.zeros(2, np.float32)] * steps, [0.0] * steps, frames, ended=ended)
    picture = AttentionPicture(episode, np.zeros((steps, steps)), "title", side)
    assert picture.image.get_array().shape == (shown, shown)
    assert picture.left_out == left_out
    assert left_out in [text.get_text() for text in picture.figure.texts]


def test_what_is_read_most_is_shown_in_order():
    assert most_read(np.array([0.3, 0.02, 0.4, 0.0, 0.28])) == [0, 2, 4]
    assert most_read(np.array([0.04, 0.92, 0.04])) == [1]
    assert most_read(np.zeros(5)) == []


@pytest.mark.parametrize("cell", ["fast-weights", "lstm"])
@pytest.mark.parametrize("shape", [(33, 47, 3), (700, 500, 3)])
def test_frames_with_memory_have_one_size_and_change(cell, shape):
    agent = RecurrentPPO(
        "RecurrentPolicy", "tests/Walk-v0", n_steps=4, batch_size=4, policy_kwargs=dict(cell=cell), device="cpu"
    )
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, shape, dtype=np.uint8)] * 6
    episode = Episode([rng.random(2, dtype=np.float32) for _ in range(5)], [0.0] * 5, frames)
    pictures = with_memory(agent, episode)
    assert [picture.shape for picture in pictures] == [(320, 640, 3)] * 6
    memories = [picture[:, 320:] for picture in pictures]
    assert all((left[:, :320] == pictures[0][:, :320]).all() for left in pictures)
    assert all((one != other).any() for one, other in pairwise(memories[:5]))
    assert (memories[4] == memories[5]).all()  # nothing is decided at the end


def test_an_animation_has_the_memory_beside_the_frames(catch_run, tmp_path):
    for name, arguments in {"both": [], "frames": ["--no-show-memory"]}.items():
        assert main([str(catch_run), "--episodes", "1", "--gif", str(tmp_path / f"{name}.gif"), *arguments]) == 0
    with Image.open(tmp_path / "both.gif") as both, Image.open(tmp_path / "frames.gif") as frames:
        assert both.size == (640, 320)
        assert (both.n_frames, frames.size[0]) == (frames.n_frames, frames.size[1])


@pytest.mark.parametrize("steps", [1, 2, 40])
def test_a_picture_needs_no_frames_and_takes_any_length(steps):
    episode = Episode([0] * steps, [0.0] * steps)
    assert AttentionPicture(episode, np.tril(np.ones((steps, steps)), -1), "title").pixels().ndim == 3
    episode.frames = [np.zeros((20, 30, 3), dtype=np.uint8)] * (steps + 1)
    assert AttentionPicture(episode, np.tril(np.ones((steps, steps)), -1), "title").pixels().ndim == 3


def test_the_command_writes_what_is_attended_to(catch_run, tmp_path):
    assert main([str(catch_run), "--episodes", "2", "--show-attention", str(tmp_path / "attention.png")]) == 0
    with Image.open(tmp_path / "attention.png") as picture:
        assert min(picture.size) >= 800


def test_attention_needs_no_frames(catch_run, tmp_path, capsys):
    run, path = other_run(catch_run, tmp_path / "run", "fw_rl/RepeatFirstEasy-v0"), tmp_path / "attention.png"
    assert main([str(run), "--episodes", "1", "--show-attention", str(path)]) == 0
    assert path.is_file()
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("No frames: fw_rl/RepeatFirstEasy-v0 cannot draw itself")
    assert said.endswith("the game has no pictures, got 'rgb_array'")


def test_a_step_is_called_by_what_was_observed():
    pairs = [np.array([5, 2]), np.array([9, 7]), np.array([9, 0]), np.array([5, 0])]
    for observations, called in ((pairs, ["5 2", "9 7", "9 0", "5 0"]), ([{"observation": 3}] * 4, ["3"] * 4)):
        axes = AttentionPicture(Episode(observations, [0.0] * 4), np.zeros((4, 4)), "title").matrix
        assert [[label.get_text() for label in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis)] == [called] * 2
    axes = AttentionPicture(Episode([np.zeros(2, np.float32)] * 4, [0.0] * 4), np.zeros((4, 4)), "title").matrix
    assert "observation" not in axes.get_xlabel()


BAD_INPUT = {
    "no run": "RUN must be the folder of a run",
    "no checkpoint": "must have a checkpoint, got none",
    "no episodes": "--episodes must be at least 1, got 0",
    "no steps": "--max-steps must be at least 1, got 0",
    "a negative seed": "--seed must be from 0 to 2147483647, got -1",
    "no GIF": "--gif must be a file whose name ends in .gif",
    "no picture": "--show-attention must be a file whose name ends in .png",
    "unknown environment": "got 'tests/Gone-v0'",
    "another environment": "its spaces are not those of",
    "another cell": "--show-attention must be left out with the cell lstm, which does not attend to past steps",
    "nothing to see": "cannot draw itself",
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_line_and_exit_code_2(case, catch_run, tmp_path, capsys):
    run, out, extra = catch_run, ["--gif", str(tmp_path / "out.gif")], []
    if case == "no run":
        run = tmp_path
    elif case == "no checkpoint":
        run = shutil.copytree(catch_run, tmp_path / "run")
        shutil.rmtree(run / "checkpoints")
    elif case == "unknown environment":
        run = shutil.copytree(catch_run, tmp_path / "run")
        (run / "config.json").write_text((run / "config.json").read_text().replace("fw_rl/Catch-5-2-v0", "tests/Gone-v0"))
    elif case == "another environment":
        other = other_run(catch_run, tmp_path / "run", "tests/Walk-v0")
        extra = ["--checkpoint", str(next((other / "checkpoints").iterdir()))]
    elif case == "another cell":
        run, extra = (
            other_run(catch_run, tmp_path / "run", "tests/Walk-v0", "lstm"),
            ["--show-attention", str(tmp_path / "a.png")],
        )
    elif case == "nothing to see":
        run = other_run(catch_run, tmp_path / "run", "tests/Unseen-v0")
    else:
        extra = {
            "no episodes": ["--episodes", "0"],
            "no steps": ["--max-steps", "0"],
            "a negative seed": ["--seed", "-1"],
            "no GIF": ["--gif", str(tmp_path / "out.avi")],
            "no picture": ["--show-attention", str(tmp_path / "out.jpg")],
        }[case]
    assert main([str(run), *out, *extra]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("fw-rl play: error: ")
    assert BAD_INPUT[case] in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out.gif").exists()


def test_a_video_without_its_package_gets_one_line(catch_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert main([str(catch_run), "--mp4", str(tmp_path / "a.mp4")]) == 2
    assert "pip install 'fw-rl[video]'" in capsys.readouterr().err
