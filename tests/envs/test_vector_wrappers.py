"""The table of docs/envs.md: which vector wrappers of Gymnasium the adapter takes, in which autoreset mode."""

import functools
import re
from pathlib import Path

import gymnasium.wrappers as single
import gymnasium.wrappers.vector as vector
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from fw_rl.envs import VecEnvAdapter
from tests.envs.helpers import GYMNASIUM_1_4, Image, Noisy, assert_same

pytestmark = GYMNASIUM_1_4  # as the table that is tested

COUNT, STEPS = 3, 40
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
PLANE = spaces.Box(-np.inf, np.inf, (2,), np.float32)


def double(value):
    return 2 * value


noisy, noisy_dict = Noisy, functools.partial(Noisy, as_dict=True)
noisy_box = functools.partial(Noisy, action_space=ACTIONS)
drawn = functools.partial(Noisy, render_mode="rgb_array")

# What to wrap, the arguments around several, and, where the single environment has the wrapper too, the arguments there.
TRIED = {
    "ClipReward": (noisy, dict(min_reward=-1, max_reward=1), dict(min_reward=-1, max_reward=1)),
    "TransformReward": (noisy, dict(func=double), dict(func=double)),
    "VectorizeTransformReward": (
        noisy,
        dict(wrapper=single.TransformReward, func=double),
        ("TransformReward", dict(func=double)),
    ),
    "RescaleAction": (noisy_box, *[dict(min_action=np.float32(0), max_action=np.float32(5))] * 2),
    "TransformAction": (noisy_box, dict(func=double), dict(func=double, action_space=ACTIONS)),
    "VectorizeTransformAction": (
        noisy_box,
        dict(wrapper=single.TransformAction, func=double, action_space=ACTIONS),
        ("TransformAction", dict(func=double, action_space=ACTIONS)),
    ),
    "ClipAction": (noisy_box, {}, None),
    "DtypeObservation": (noisy, dict(dtype=np.float64), dict(dtype=np.float64)),
    "FilterObservation": (noisy_dict, dict(filter_keys=["vector"]), dict(filter_keys=["vector"])),
    "FlattenObservation": (noisy_dict, {}, {}),
    "GrayscaleObservation": (Image, {}, {}),
    "RescaleObservation": (Image, *[dict(min_obs=np.float32(0), max_obs=np.float32(1))] * 2),
    "ReshapeObservation": (noisy, dict(shape=(1, 2)), dict(shape=(1, 2))),
    "ResizeObservation": (Image, dict(shape=(4, 4)), dict(shape=(4, 4))),
    "TransformObservation": (noisy, dict(func=double), dict(func=double, observation_space=PLANE)),
    "VectorizeTransformObservation": (
        noisy,
        dict(wrapper=single.TransformObservation, func=double, observation_space=PLANE),
        ("TransformObservation", dict(func=double, observation_space=PLANE)),
    ),
    "NormalizeObservation": (noisy, {}, None),
    "NormalizeReward": (noisy, {}, None),
    "RecordEpisodeStatistics": (noisy, {}, {}),
    "DictInfoToList": (noisy, {}, None),
    "RecordVideo": (drawn, dict(video_folder="videos", episode_trigger=lambda episode: episode == 1), None),
    "HumanRendering": (drawn, {}, None),
    "NumpyToTorch": (noisy, {}, None),
}
NEEDED = dict(
    ResizeObservation=["cv2"], RecordVideo=["moviepy"], HumanRendering=["cv2", "pygame"], NumpyToTorch=["array_api_compat"]
)
NOT_TRIED = {"ArrayConversion", "JaxToNumpy", "JaxToTorch"}  # they want JAX


@functools.cache
def documented():
    """For each wrapper and mode whether the documentation says that it works."""
    page = (Path(__file__).parents[2] / "docs" / "envs.md").read_text()
    table = page[page.index("| wrapper |") :].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    modes = [AutoresetMode[name.strip("`")] for name in rows[0][1:4]]
    return {
        (name, mode): dict(yes=True, no=False)[word]
        for names, *words, _ in rows[2:]
        for name in re.findall(r"`(\w+)`", names)
        for mode, word in zip(modes, words, strict=True)
    }


def test_every_wrapper_is_in_the_table_and_tried():
    assert {name for name, _ in documented()} - {"JaxToTorch"} == set(TRIED) == set(vector.__all__) - NOT_TRIED


def play(env):
    """What is seen of an environment of SB3's kind: observations, rewards, dones, and how episodes were said to have gone."""
    env.seed(0)
    env.action_space.seed(0)
    seen, ended = [env.reset()], 0
    for _ in range(STEPS):
        observations, rewards, dones, infos = env.step(np.array([env.action_space.sample() for _ in range(COUNT)]))
        episodes = [(info["episode"]["r"], info["episode"]["l"]) for info in infos if "episode" in info]
        last = [info["terminal_observation"] for info in infos if "terminal_observation" in info]
        seen += [observations, rewards.round(4), dones, *last, np.round(episodes, 4)]
        ended += dones.sum()
    assert ended > 10
    return seen


def pairs(that_work):
    chosen = [pair for pair, works in documented().items() if works == that_work and pair[0] in TRIED]
    return pytest.mark.parametrize("name, mode", chosen, ids=str)


@pairs(that_work=True)
def test_a_wrapper_that_works_does_what_it_does_around_one(name, mode, tmp_path, monkeypatch):
    for package in NEEDED.get(name, []):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    make, options, of_one = TRIED[name]
    several = SyncVectorEnv([make] * COUNT, autoreset_mode=mode)
    several.metadata = several.metadata | dict(render_fps=1000)
    env = VecEnvAdapter(getattr(vector, name)(several, **options))
    seen = play(env)
    env.close()
    if of_one is not None:
        its_name, of_one = of_one if isinstance(of_one, tuple) else (name, of_one)
        expected = play(DummyVecEnv([lambda: getattr(single, its_name)(make(), **of_one)] * COUNT))
        for part, expected_part in zip(seen, expected, strict=True):
            assert_same(part, expected_part)
    if name == "RecordVideo":
        assert list(Path("videos").glob("*.mp4"))


@pytest.mark.parametrize(
    "name, mode", [pair for pair, works in documented().items() if not works and pair[0] in TRIED], ids=str
)
def test_a_wrapper_that_does_not_work_is_refused_before_a_step(name, mode):
    for package in NEEDED.get(name, []):
        pytest.importorskip(package)
    make, options, _ = TRIED[name]
    with pytest.raises(ValueError, match="got ") as refusal:
        VecEnvAdapter(getattr(vector, name)(SyncVectorEnv([make] * COUNT, autoreset_mode=mode), **options)).reset()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("wrapper", [vector.NormalizeObservation, vector.NormalizeReward, vector.RecordEpisodeStatistics])
def test_wrappers_of_whole_batches_take_a_single_environment(wrapper):
    env = VecEnvAdapter(wrapper(SyncVectorEnv([Noisy])))
    env.seed(0)
    env.reset()
    assert sum(env.step(np.array([0]))[2][0] for _ in range(30)) > 2
