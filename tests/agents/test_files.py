"""Where an agent is saved and what of it, with SB3's arguments; and no byte of a file can change unseen."""

import io
import os
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors import safe_open

from fw_rl.agents import A3C, CheckpointError, RecurrentA2C, read_checkpoint
from fw_rl.document import MEMBER
from fw_rl.envs import CatchVectorEnv
from tests.agents.helpers import make_model, same_parameters
from tests.agents.test_checkpoint import assert_same


def catch():
    return CatchVectorEnv(2, n=5, m=2)


@pytest.fixture(scope="module")
def model():
    return make_model(catch(), n_steps=4, policy_kwargs=dict(hidden_size=4)).learn(24)


def load(file):
    return RecurrentA2C.load(file, catch())


# Names.

NAMES = {
    "plain": "plain.zip",
    "CartPole-v1": "CartPole-v1.zip",
    "sb3.zip": "sb3.zip",
    "v0.5": "v0.5",
    "ends.safetensors": "ends.safetensors",
    "deep/er/agent": "deep/er/agent.zip",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_where_sb3_would_have_put_it(model, name, tmp_path):
    model.save(str(tmp_path / name))
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert str(file.relative_to(tmp_path)) == NAMES[name]
    for again in (name, NAMES[name]):
        assert same_parameters(load(str(tmp_path / again)), model)
    assert zipfile.is_zipfile(file) == (file.suffix != ".safetensors")


def test_a_folder_of_the_same_name_is_not_in_the_way(model, tmp_path):
    (tmp_path / "agent").mkdir()  # as rl_zoo3 makes one for its settings
    model.save(tmp_path / "agent")
    assert same_parameters(load(tmp_path / "agent"), model)


def test_a_file_may_be_renamed(model, tmp_path):
    model.save(tmp_path / "agent")
    model.save(tmp_path / "other.safetensors")
    (tmp_path / "agent.zip").rename(tmp_path / "zipped.safetensors")
    (tmp_path / "other.safetensors").rename(tmp_path / "bare.zip")
    for name in ("zipped.safetensors", "bare.zip", "bare"):
        assert same_parameters(load(tmp_path / name), model)


def test_what_is_in_the_archive_is_a_safetensors_file(model, tmp_path):
    model.save(tmp_path / "agent")
    zipfile.ZipFile(tmp_path / "agent.zip").extractall(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["agent.zip", MEMBER]
    with safe_open(tmp_path / MEMBER, framework="pt") as file:
        assert torch.equal(file.get_tensor("policy.action_net.weight"), model.policy.action_net.weight)
    assert same_parameters(load(tmp_path / MEMBER), model)


def test_open_files(model, tmp_path):
    buffer = io.BytesIO()
    model.save(buffer)
    assert zipfile.is_zipfile(buffer)
    assert buffer.tell() > 0, "which load does not mind, as in SB3"
    assert same_parameters(load(buffer), model)
    with open(tmp_path / "agent.zip", "wb") as file:
        model.save(file)
    with open(tmp_path / "agent.zip", "rb") as file:
        assert same_parameters(load(file), model)
    with open(tmp_path / "agent.zip", "rb") as file:
        assert read_checkpoint(file).path == str(tmp_path / "agent.zip")
    A3C("RecurrentPolicy", catch, policy_kwargs=dict(hidden_size=4)).save(buffer := io.BytesIO())
    assert isinstance(A3C.load(buffer), A3C)


# Damage.


def refused(content):
    """Whether a file of these bytes is refused in one line."""
    try:
        load(io.BytesIO(content))
    except CheckpointError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
        return True
    return False


@pytest.fixture(scope="module")
def contents(model, tmp_path_factory):
    """The bytes of a safetensors file, and of the zip archive that has it."""
    path = tmp_path_factory.mktemp("contents") / "agent.zip"
    model.save(path)
    return zipfile.ZipFile(path).read(MEMBER), path.read_bytes()


def places(content, count):
    """Positions everywhere in a file: all over, and each of the first and last ones."""
    return sorted({*range(100), *np.linspace(0, len(content) - 1, count, dtype=int), *range(len(content) - 100, len(content))})


def test_every_changed_byte_is_refused(contents):
    content, _ = contents
    rng = np.random.default_rng(0)
    for place in places(content, 1_000):
        damaged = bytearray(content)
        damaged[place] ^= rng.integers(1, 256)
        assert refused(bytes(damaged)), place


def test_every_changed_byte_in_an_archive_is_refused_or_does_nothing(contents, model):
    """The archive has bytes that say nothing, such as its date; all that it holds is under the checksum."""
    content, archive = contents
    start = archive.index(content)
    rng = np.random.default_rng(0)
    for place in {*places(archive, 400), *range(start), *range(start + len(content), len(archive))}:
        damaged = bytearray(archive)
        damaged[place] ^= rng.integers(1, 256)
        if not refused(bytes(damaged)):
            assert not start <= place < start + len(content)
            assert_same(dict(load(io.BytesIO(damaged)).policy.state_dict()), dict(model.policy.state_dict()))


@pytest.mark.parametrize("which", [0, 1], ids=["safetensors", "zip"])
def test_several_kinds_of_damage_are_refused(contents, which):
    content = contents[which]
    middle = len(content) // 2
    zeros = content[:middle] + bytes(64) + content[middle + 64 :]
    swapped = content[:middle] + content[middle + 64 : middle + 128] + content[middle : middle + 64] + content[middle + 128 :]
    shifted = content[:middle] + content[middle + 1 :]
    for damaged in (zeros, swapped, shifted, content[:middle], content[:-1], b"", b"P", b"PK", bytes(len(content))):
        assert refused(damaged)


def test_an_archive_with_more_in_it_or_compressed_is_none_of_ours(contents):
    content, _ = contents
    for members, compression in (
        ([MEMBER, "data.pkl"], zipfile.ZIP_STORED),
        (["../agent.safetensors"], zipfile.ZIP_STORED),
        ([MEMBER], zipfile.ZIP_DEFLATED),
    ):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name in members:
                archive.writestr(name, content)
        with pytest.raises(
            CheckpointError, match=r"^the file is a zip file, like those of SB3, but not a checkpoint of fw_rl$"
        ):
            load(io.BytesIO(buffer.getvalue()))


# What is left out, and what takes its place.


def test_learning_without_an_environment_says_how_to_give_one(tmp_path):
    make_model(catch(), n_steps=4).save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"^env must be given before learn, by set_env\(env\) or load\(path, env\), got None$"):
        RecurrentA2C.load(tmp_path / "agent").learn(8)


def test_arguments_that_are_excluded_have_their_defaults(tmp_path):
    model = make_model(catch(), n_steps=4, gamma=0.5, ent_coef=0.25)
    model.save(tmp_path / "agent", exclude=["gamma", "ent_coef", "env", "nonsense"], include=["ent_coef"])
    loaded = load(tmp_path / "agent")
    assert (loaded.gamma, loaded.ent_coef, loaded.n_steps) == (0.99, 0.25, 4)
    assert same_parameters(loaded, model)


def test_attributes_that_are_excluded_begin_anew(model, tmp_path):
    excluded = ["num_timesteps", "ep_info_buffer", "_last_obs", "optimizer_state", "random_state", "policy", "replay_buffer"]
    model.save(tmp_path / "agent", exclude=excluded)
    loaded = load(tmp_path / "agent")
    assert (loaded.num_timesteps, loaded.ep_info_buffer, loaded._last_obs) == (0, None, None)
    assert loaded._n_updates == model._n_updates > 0
    assert not loaded.policy.optimizer.state
    assert same_parameters(loaded, model)
    assert loaded.learn(8, reset_num_timesteps=False).num_timesteps == 8


def test_what_no_file_holds_is_named(model, tmp_path):
    model.note = "mine"
    with pytest.warns(UserWarning, match=r"^a checkpoint cannot hold env, note, rollout_buffer: "):
        model.save(tmp_path / "agent", include=["env", "rollout_buffer", "gamma", "policy", "note", "nonsense"])
    assert same_parameters(load(tmp_path / "agent"), model)


def test_custom_objects_take_the_place_of_what_is_stored(model, tmp_path):
    model.save(tmp_path / "agent")
    of_sb3 = dict(learning_rate=0.0, lr_schedule=lambda _: 0.0, clip_range=lambda _: 0.0, nonsense=1, gamma=0.5)
    loaded = RecurrentA2C.load(tmp_path / "agent", custom_objects=of_sb3, gamma=0.75)
    assert (loaded.learning_rate, loaded.gamma) == (0.0, 0.75)
    assert same_parameters(loaded, model)


def test_custom_objects_take_the_place_of_what_no_file_holds(tmp_path):
    with pytest.warns(UserWarning, match="cannot hold learning_rate"):
        make_model(catch(), n_steps=4, learning_rate=lambda _: 0.1).save(tmp_path / "agent")
    loaded = RecurrentA2C.load(tmp_path / "agent", catch(), custom_objects=dict(learning_rate=lambda _: 0.2)).learn(8)
    assert loaded.policy.optimizer.param_groups[0]["lr"] == 0.2


def test_spaces_with_other_bounds_are_custom_objects(tmp_path):
    class Bounded(gym.Env):
        action_space = spaces.Discrete(2)

        def __init__(self, bound):
            self.observation_space = spaces.Box(-bound, bound, (3,))

    make_model(Bounded(1.0)).save(tmp_path / "agent")
    wider = Bounded(2.0)
    with pytest.raises(CheckpointError, match="has the observation space"):
        RecurrentA2C.load(tmp_path / "agent", wider)
    loaded = RecurrentA2C.load(tmp_path / "agent", wider, custom_objects=dict(observation_space=wider.observation_space))
    assert loaded.observation_space == wider.observation_space


def test_versions_are_printed_where_asked(model, tmp_path, capsys):
    model.save(tmp_path / "agent")
    load(tmp_path / "agent")
    assert capsys.readouterr().out == ""
    RecurrentA2C.load(tmp_path / "agent", print_system_info=True)
    current, saved = capsys.readouterr().out.split("== SAVED MODEL SYSTEM INFO ==")
    assert current.removeprefix("== CURRENT SYSTEM INFO ==") == saved
    assert f"- torch: {torch.__version__.partition('+')[0]}" in saved
