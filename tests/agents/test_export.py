"""A policy in ONNX acts as it does here: every cell, every space, any number of environments."""

import numpy as np
import pytest
import torch
from gymnasium import Env, spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from fw_rl.agents import RecurrentA2C, export_onnx
from fw_rl.agents import export as export_module
from fw_rl.cells import available_cells
from fw_rl.cells.base import _REGISTRY
from fw_rl.envs import CatchVectorEnv, VecEnvAdapter
from tests.agents.helpers import PLAIN
from tests.agents.test_masks import SPACES as MASKED
from tests.agents.test_masks import random_masks

onnxruntime = pytest.importorskip("onnxruntime", reason="needs pip install 'fw-rl[onnx]'")
pytest.importorskip("onnxscript", reason="needs pip install 'fw-rl[onnx]'")

CELLS = {
    "fast-weights": {},
    "fast-weights, three inner steps": dict(inner_steps=3, eta=0.1),
    "fast-weights, method 2": dict(method=2, eta=0.05, activation="tanh"),
    "fast-weights, delta, learned rates": dict(rule="delta", learn_eta=True, learn_decay=True),
    "fast-weights, oja": dict(rule="oja"),
    "rnn": {},
    "lstm": {},
    "gru": {},
    "associative-lstm": {},
    "lru": {},
    "min-gru": {},
    "ffm": {},
    "shm": {},
    "lru-delta-net": {},
    "delta-net": {},
    "delta-net, gated, keys from the output": dict(heads=2, gated=True, keys="output"),
    "gru, two layers": dict(layers=2),
    "delta-net, two layers": dict(layers=2),
}


class Space(Env):
    """An environment that has spaces, and nothing else."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space


def make_agent(env, cell, policy_kwargs=None, **options):
    torch.manual_seed(0)
    memory = dict(cell=cell, hidden_size=12, cell_kwargs=options, encoder_arch=[16]) | (policy_kwargs or {})
    agent = RecurrentA2C("RecurrentPolicy", env, policy_kwargs=memory, device="cpu")
    for scaling in agent.policy.observation_scaling.parts:  # as if it had seen something
        scaling.mean.uniform_(-0.3, 0.3)
        scaling.factor.uniform_(0.7, 1.5)
    with torch.no_grad():  # so that the actions are many, and none is a near miss of another
        for part in agent.policy.parameters():
            part.mul_(1.5)
        if cell == "associative-lstm":  # whose outputs are small beside the bias
            agent.policy.action_net.bias.zero_()
    return agent


class Session:
    """Acts by an ONNX file, with the state handed from step to step."""

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(path)
        self.inputs = {part.name: part for part in self.session.get_inputs()}
        self.state = None

    def act(self, observation, starts, masks=None):
        if self.state is None:
            shapes = {name: part.shape for name, part in self.inputs.items() if name.startswith("state_")}
            self.state = {name: np.zeros((len(starts), *shape[1:]), np.float32) for name, shape in shapes.items()}
        seen = {f"observation.{key}": part for key, part in observation.items()} if isinstance(observation, dict) else None
        allowed = {} if masks is None else dict(action_masks=masks)
        inputs = (seen or {"observation": observation}) | dict(episode_start=starts) | allowed | self.state
        action, *state = self.session.run(None, inputs)
        self.state = dict(zip(self.state, state, strict=True))
        return action


def test_every_cell_is_among_those_that_are_tried():
    assert {label.split(",")[0] for label in CELLS} == {name for name in available_cells() if _is_own(name)}


def _is_own(name):
    return _REGISTRY[name].__module__.startswith("fw_rl.")


def test_onnx_gives_the_same_actions_for_a_thousand_steps(tmp_path):
    env = VecEnvAdapter(CatchVectorEnv(3, n=9, m=3))
    env.seed(5)
    agent = make_agent(env, "fast-weights", PLAIN)
    export_onnx(agent, tmp_path / "agent.onnx")
    session = Session(tmp_path / "agent.onnx")
    observation, state, starts = env.reset(), None, np.ones(3, dtype=bool)
    seen = set()
    for _ in range(1_000):
        action, state = agent.predict(observation, state, starts, deterministic=True)
        assert (session.act(observation, starts) == action).all()
        seen |= set(action.tolist())
        observation, _, starts, _ = env.step(action)
    assert len(seen) >= 2


SPACES = {
    "image": (spaces.Box(0, 255, (3, 40, 40), np.uint8), spaces.Discrete(4)),
    "Dict": (spaces.Dict(b=spaces.Box(-1, 1, (2,)), a=spaces.Discrete(3)), spaces.Discrete(2)),
    "Discrete": (spaces.Discrete(7), spaces.Discrete(3)),
    "MultiBinary": (spaces.MultiBinary(4), spaces.MultiBinary(3)),
    "MultiDiscrete": (spaces.MultiDiscrete([3, 4]), spaces.MultiDiscrete([2, 5])),
    "bounded Box": (spaces.Box(-1, 1, (3,)), spaces.Box(-0.01, 0.02, (2, 2))),
    "Box of integers": (spaces.Box(-1, 1, (3,)), spaces.Box(-1, 2, (2,), np.int32)),
    "numbers": (spaces.Box(-1, 1, (5,)), spaces.Discrete(6)),
}

CELLS_AND_SPACES = [
    ("fast-weights", "image"),
    ("fast-weights, three inner steps", "Dict"),
    ("fast-weights, method 2", "Discrete"),
    ("fast-weights", "MultiBinary"),
    ("fast-weights, delta, learned rates", "numbers"),
    ("fast-weights, oja", "numbers"),
    ("rnn", "MultiDiscrete"),
    ("lstm", "bounded Box"),
    ("gru", "Box of integers"),
    ("associative-lstm", "numbers"),
    ("lru", "numbers"),
    ("min-gru", "numbers"),
    ("ffm", "numbers"),
    ("delta-net", "MultiDiscrete"),
    ("delta-net, gated, keys from the output", "numbers"),
    ("shm", "numbers"),
    ("lru-delta-net", "numbers"),
    ("gru, two layers", "numbers"),
    ("delta-net, two layers", "numbers"),
]


def test_all_cells_and_spaces_are_tried():
    cells, kinds = zip(*CELLS_AND_SPACES, strict=True)
    assert set(cells) == set(CELLS)
    assert set(kinds) == set(SPACES)


QUICK = {("fast-weights, delta, learned rates", "numbers"), ("lstm", "bounded Box")}


@pytest.mark.parametrize(
    "label, kind", [pair if pair in QUICK else pytest.param(*pair, marks=pytest.mark.processes) for pair in CELLS_AND_SPACES]
)
def test_every_cell_and_space_with_any_number_of_environments(label, kind, tmp_path):
    observation_space, action_space = SPACES[kind]
    agent = make_agent(Space(observation_space, action_space), label.split(",")[0], **CELLS[label])
    export_onnx(agent, tmp_path / "agent.onnx")
    agent.observation_space.seed(1)
    seen = set()
    for rows in (1, 5):
        session, state = Session(tmp_path / "agent.onnx"), None
        for step in range(100):  # longer than the window of fast weights
            observation = batch([agent.observation_space.sample() for _ in range(rows)])
            starts = np.full(rows, step in (0, 4, 50))
            action, state = agent.predict(observation, state, starts, deterministic=True)
            assert action.shape == (rows, *action_space.shape)
            np.testing.assert_allclose(session.act(observation, starts), action, atol=1e-5)
            seen |= {row.tobytes() for row in action}
    assert len(seen) >= 2 or label == "fast-weights"  # whose actions are many on Catch


@pytest.mark.parametrize("kind", [pytest.param("Box", marks=pytest.mark.processes), "Dict"])
def test_what_a_normalizer_has_learned_is_part_of_the_step(kind, tmp_path):
    box = spaces.Box(-100, 100, (4,), np.float32)
    space = box if kind == "Box" else spaces.Dict(seen=box, word=spaces.Discrete(3))
    keys = dict(norm_obs_keys=["seen"]) if kind == "Dict" else {}
    env = VecNormalize(DummyVecEnv([lambda: Space(space, spaces.Discrete(5))]), clip_obs=1.5, epsilon=0.5, **keys)
    rng = np.random.default_rng(0)

    def observations(count):
        numbers = rng.normal([3, -20, 0, 50], [1, 5, 0.1, 20], (count, 4)).astype(np.float32)
        return numbers if kind == "Box" else dict(seen=numbers, word=rng.integers(3, size=count))

    (env.obs_rms["seen"] if kind == "Dict" else env.obs_rms).update(rng.normal([3, -20, 0, 50], [1, 5, 0.1, 20], (500, 4)))
    agent = make_agent(env, "gru")
    export_onnx(agent, tmp_path / "agent.onnx")
    session, state, taken = Session(tmp_path / "agent.onnx"), None, set()
    for step in range(100):
        observation, starts = observations(6), np.full(6, step % 9 == 0)
        action, state = agent.predict(env.normalize_obs(observation), state, starts, deterministic=True)
        assert (session.act(observation, starts) == action).all()
        taken |= set(action.tolist())
    assert len(taken) >= 2


def test_what_a_normalizer_inside_of_others_does_is_left_to_them(tmp_path):
    inner = VecNormalize(DummyVecEnv([lambda: Space(spaces.Box(-100, 100, (4,), np.float32), spaces.Discrete(5))]))
    inner.obs_rms.update(np.random.default_rng(0).normal(20, 5, (500, 4)))
    agent = make_agent(VecFrameStack(inner, 2), "gru")
    with pytest.warns(UserWarning, match="^the VecNormalize is inside of other wrappers: .* observations that are normalized"):
        export_onnx(agent, tmp_path / "agent.onnx")
    session, rng, state = Session(tmp_path / "agent.onnx"), np.random.default_rng(1), None
    for step in range(30):
        observation, starts = rng.normal(size=(3, 8)).astype(np.float32), np.full(3, step == 0)
        action, state = agent.predict(observation, state, starts, deterministic=True)
        assert (session.act(observation, starts) == action).all()


@pytest.mark.parametrize("share_features_extractor", [pytest.param(True, marks=pytest.mark.processes), False])
def test_of_two_cells_the_actor_s_alone_is_exported(share_features_extractor, tmp_path):
    own = dict(shared_cell=False, share_features_extractor=share_features_extractor)
    env = Space(spaces.Box(0, 255, (1, 36, 36), np.uint8), spaces.Discrete(3))
    agent = make_agent(env, "fast-weights", own)
    export_onnx(agent, tmp_path / "agent.onnx")
    session = Session(tmp_path / "agent.onnx")
    assert [name for name in session.inputs if name.startswith("state_")] == [
        f"state_{i}" for i in range(len(agent.policy.actor_cell.initial_state(1)))
    ]
    weights = sum(part.numel() for part in agent.policy.parameters()) * 4
    assert (tmp_path / "agent.onnx").stat().st_size < 0.7 * weights or share_features_extractor
    rng, state = np.random.default_rng(0), None
    for step in range(30):
        observation, starts = rng.integers(0, 256, (3, 1, 36, 36), np.uint8), np.full(3, step % 6 == 0)
        action, state = agent.predict(observation, state, starts, deterministic=True)
        assert (session.act(observation, starts) == action).all()


@pytest.mark.parametrize(
    "kind", ["MultiBinary", *(pytest.param(kind, marks=pytest.mark.processes) for kind in sorted({*MASKED} - {"MultiBinary"}))]
)
def test_masks_are_an_input(kind, tmp_path):
    agent = make_agent(Space(spaces.Box(-1, 1, (4,)), MASKED[kind]), "gru")
    export_onnx(agent, tmp_path / "agent.onnx", action_masks=True)
    session, rng, state, differences = Session(tmp_path / "agent.onnx"), np.random.default_rng(0), None, 0
    assert list(session.inputs) == ["observation", "episode_start", "action_masks", "state_0"]
    for _ in range(10):
        observation, starts = rng.normal(size=(4, 4)).astype(np.float32), np.full(4, state is None)
        masks = random_masks(kind, rng, 4)
        free, _ = agent.predict(observation, state, starts, deterministic=True)
        action, state = agent.predict(observation, state, starts, deterministic=True, action_masks=masks)
        np.testing.assert_array_equal(session.act(observation, starts, masks), action)
        differences += (free != action).sum()
    assert differences


def test_masks_of_actions_that_have_none(tmp_path):
    agent = make_agent(Space(spaces.Box(-1, 1, (4,)), spaces.Box(-1, 1, (2,))), "gru")
    with pytest.raises(ValueError, match="action_space must be Discrete, MultiDiscrete or MultiBinary for action masks"):
        export_onnx(agent, tmp_path / "agent.onnx", action_masks=True)


def test_squashed_actions_reach_the_environment_s_bounds(tmp_path):
    space = spaces.Box(np.array([-0.5, 0.0], np.float32), np.array([2.0, 0.1], np.float32))
    agent = make_agent(Space(spaces.Box(-1, 1, (3,)), space), "gru", dict(squash_output=True))
    export_onnx(agent, tmp_path / "agent.onnx")
    observation = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    action, _ = agent.predict(observation, deterministic=True)
    np.testing.assert_allclose(Session(tmp_path / "agent.onnx").act(observation, np.ones(50, bool)), action, atol=1e-5)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An agent, what it was before the export, and the file."""
    agent, path = make_agent(CatchVectorEnv(3, n=5, m=2), "fast-weights"), tmp_path_factory.mktemp("onnx") / "agent.onnx"
    before = {name: part.clone() for name, part in agent.policy.state_dict().items()}
    random = torch.get_rng_state()
    export_onnx(agent, path)
    assert torch.equal(torch.get_rng_state(), random)
    return agent, before, path


def test_the_state_is_named_and_reset_by_episode_starts(exported):
    agent, _, path = exported
    session = onnxruntime.InferenceSession(path)
    blank = {f"state_{i}": part.numpy() for i, part in enumerate(agent.policy.actor_cell.initial_state(2))}
    assert [(part.name, part.shape) for part in session.get_inputs()] == [
        ("observation", ["batch", 25]),
        ("episode_start", ["batch"]),
        *((name, ["batch", *part.shape[1:]]) for name, part in blank.items()),
    ]
    assert [part.name for part in session.get_outputs()] == ["action", *(f"next_{name}" for name in blank)]

    rng, state = np.random.default_rng(0), None
    for _ in range(3):
        _, state = agent.predict(rng.random((2, 25), np.float32), state, np.full(2, state is None))
    used = dict(zip(blank, state, strict=False))  # the critic's comes after the actor's
    step = dict(observation=rng.random((2, 25), np.float32), episode_start=np.array([True, False]))
    after_used, after_blank = (session.run(None, step | state) for state in (used, blank))
    for one, other in zip(after_used[1:], after_blank[1:], strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    assert not all(np.allclose(one[1], other[1]) for one, other in zip(after_used[1:], after_blank[1:], strict=True))


def batch(samples):
    if isinstance(samples[0], dict):
        return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}
    return np.stack(samples)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    agent = make_agent(CatchVectorEnv(1, n=5, m=2), "rnn")
    monkeypatch.setattr(export_module, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="onnx and onnxscript: pip install"):
        export_onnx(agent, tmp_path / "agent.onnx")


def test_a_file_does_not_tell_where_it_was_made(exported):
    assert b"forward" not in exported[2].read_bytes()


def test_an_export_leaves_the_agent_as_it_was(exported):
    agent, before, _ = exported
    after = agent.policy.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], part) for name, part in before.items())
    agent.learn(60)
