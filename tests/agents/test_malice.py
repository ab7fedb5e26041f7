"""Files that were made to run code when they are loaded: with a pickle wherever a checkpoint has anything, they run nothing."""

import base64
import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from fw_rl.agents import A3C, CheckpointError, RecurrentA2C, read_checkpoint
from fw_rl.envs import CatchVectorEnv
from tests.agents.helpers import make_model
from tests.agents.test_checkpoint import nodes, parts_of, write_parts


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Metadata and tensors of a checkpoint that has all that one can have."""
    model = make_model(CatchVectorEnv(2, n=5, m=2), "lstm", n_steps=4).learn(24)
    path = tmp_path_factory.mktemp("whole") / "agent.safetensors"
    model.save(path)
    return parts_of(path)


@pytest.fixture
def mark(tmp_path):
    """Where the payload would leave its file; it does, wherever it is unpickled."""
    mark = tmp_path / "run"
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()
    mark.unlink()
    yield mark
    assert not mark.exists()


def load(path):
    """True if the file was loaded, with all that it has; False if it was refused."""
    try:
        RecurrentA2C.load(path, CatchVectorEnv(2, n=5, m=2))
    except CheckpointError as error:
        assert "\n" not in str(error)
        return False
    return True


@pytest.mark.filterwarnings("ignore:new episodes begin")
def test_in_every_tensor(whole, mark, tmp_path):
    metadata, tensors = whole
    payload = torch.frombuffer(bytearray(pickle.dumps(Payload(mark))), dtype=torch.uint8)
    for name, tensor in tensors.items():
        room = tensor.numel() * tensor.element_size()
        disguised = payload.repeat(room // len(payload) + 1)[:room].clone().view(tensor.dtype).view(tensor.shape)
        for given in (payload, disguised):
            write_parts(tmp_path / "agent.safetensors", metadata, tensors | {name: given})
            load(tmp_path / "agent.safetensors")


def test_in_a_tensor_more(whole, mark, tmp_path):
    metadata, tensors = whole
    payload = torch.frombuffer(bytearray(pickle.dumps(Payload(mark))), dtype=torch.uint8)
    for name in ("data.pkl", "__reduce__", "policy"):
        write_parts(tmp_path / "agent.safetensors", metadata, tensors | {name: payload})
        assert not load(tmp_path / "agent.safetensors")


def texts(mark):
    """A pickle as text in the forms that readers have been found to unpickle."""
    plain = pickle.dumps(Payload(mark), protocol=0).decode("ascii")
    return plain, base64.b64encode(pickle.dumps(Payload(mark))).decode("ascii")


@pytest.mark.parametrize("form", [0, 1], ids=["plain", "base64"])
def test_in_all_metadata(whole, mark, tmp_path, form):
    metadata, tensors = whole
    text = texts(mark)[form]
    for name in metadata:
        write_parts(tmp_path / "agent.safetensors", metadata | {name: text}, tensors)
        assert not load(tmp_path / "agent.safetensors")
    for name in ("pickle", "__class__", ":serialized:"):
        write_parts(tmp_path / "agent.safetensors", metadata | {name: text}, tensors)
        assert load(tmp_path / "agent.safetensors")


@pytest.mark.filterwarnings("ignore:new episodes begin")
def test_in_every_part_of_the_description(whole, mark, tmp_path):
    metadata, tensors = whole
    plain, coded = texts(mark)
    values = (plain, {"$pickle": plain}, {":type:": "<class 'function'>", ":serialized:": coded}, {"$class": plain})
    places = [place for place in nodes(json.loads(metadata["json"])) if place and len(place) < 3]
    assert len(places) > 50
    for i, place in enumerate(places):
        document = json.loads(metadata["json"])
        inner = document
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = values[i % len(values)]
        write_parts(tmp_path / "agent.safetensors", metadata | {"json": json.dumps(document)}, tensors)
        load(tmp_path / "agent.safetensors")


def test_files_that_are_pickles(mark, tmp_path):
    payload = pickle.dumps(Payload(mark))
    buffer = io.BytesIO()
    torch.save({"policy": Payload(mark)}, buffer)
    (tmp_path / "pickle.safetensors").write_bytes(payload)
    (tmp_path / "header.safetensors").write_bytes(len(payload).to_bytes(8, "little") + payload)
    (tmp_path / "torch.safetensors").write_bytes(buffer.getvalue())
    serialized = json.dumps({"policy_class": {":type:": "<class 'abc.ABCMeta'>", ":serialized:": texts(mark)[1]}})
    with zipfile.ZipFile(tmp_path / "sb3.zip", "w") as archive:
        for name in ("data", "policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"):
            archive.writestr(name, serialized if name == "data" else buffer.getvalue())
    for name in ("pickle.safetensors", "header.safetensors", "torch.safetensors", "sb3.zip"):
        path = tmp_path / name
        for call in (read_checkpoint, RecurrentA2C.load, A3C.load):
            with pytest.raises(CheckpointError, match=r"^.* is (no whole safetensors|a zip) file.*$"):
                call(path)
