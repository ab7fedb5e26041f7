"""A saved agent goes on as if nothing had happened, and no file, however broken, does more than raise an error of one line."""

# ruff: noqa: NPY002 (SB3 draws from NumPy's global generator)

import errno
import json
import os
import pickle
import random
import re
import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import safetensors.torch
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from safetensors import safe_open
from safetensors.torch import save_file
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import VecFrameStack, VecMonitor

from fw_rl.agents import CheckpointError, RecurrentA2C, RecurrentActorCriticPolicy, RecurrentPPO, read_checkpoint
from fw_rl.agents.spaces import describe_space, make_space
from fw_rl.cells import LSTMCell, base, register_cell
from fw_rl.document import CHECKSUM, pack, unpack, with_checksum
from fw_rl.envs import CatchVectorEnv
from fw_rl.envs.sb3 import VecEnvAdapter

N_ENVS, N_STEPS = 3, 6
SMALL = dict(hidden_size=5, encoder_arch=(4,))


def catch(num_envs=N_ENVS, n=5, **kwargs):
    """Episodes of n - 1 = 4 steps."""
    return CatchVectorEnv(num_envs, n=n, m=2, **kwargs)


def make_agent(env=None, cell="fast-weights", cell_kwargs=None, policy_kwargs=None, **kwargs):
    kwargs = dict(n_steps=N_STEPS, seed=0, learning_rate=1e-2, optimizer="rmsprop") | kwargs
    policy_kwargs = dict(cell=cell, cell_kwargs=cell_kwargs or {}) | SMALL | (policy_kwargs or {})
    return RecurrentA2C("RecurrentPolicy", catch() if env is None else env, policy_kwargs=policy_kwargs, **kwargs)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An agent amid its episodes, and its file."""
    model = make_agent().learn(5 * N_ENVS * N_STEPS)
    path = tmp_path_factory.mktemp("saved") / "agent.safetensors"
    model.save(path)
    return model, path


@pytest.fixture
def path(saved, tmp_path):
    """A copy of the file to do things to."""
    return shutil.copy(saved[1], tmp_path / "agent.safetensors")


def parts_of(path):
    """Metadata and tensors of a file."""
    with safe_open(path, framework="pt") as file:
        return file.metadata(), {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def write_parts(path, metadata, tensors):
    """Write a file, whose checksum is right if it has one."""
    content = safetensors.torch.save(tensors, metadata)
    path.write_bytes(with_checksum(content) if CHECKSUM.search(content) else content)


def rewrite(path, change):
    """Let `change(document, tensors, metadata)` edit a file."""
    metadata, tensors = parts_of(path)
    document = json.loads(metadata["json"])
    text = change(document, tensors, metadata)
    metadata["json"] = text if isinstance(text, str) else json.dumps(document)
    write_parts(path, metadata, tensors)


def assert_same(one, other):
    """Equal to the last bit, however nested."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other, strict=True)
    else:
        assert one == other or (one != one and other != other)


def all_of(model):
    """What training goes on from."""
    adapter = model.env.unwrapped
    return dict(
        policy=dict(model.policy.state_dict()),
        optimizer=model.policy.optimizer.state_dict(),
        counters=[model.num_timesteps, model._total_timesteps, model._n_updates, model._current_progress_remaining],
        episodes=[(episode["r"], episode["l"]) for episode in model.ep_info_buffer],
        seen=[model._last_obs, model._last_episode_starts, list(model._last_state), model._discounted_returns],
        env=[adapter.env.get_state(), adapter.episode_returns, adapter.episode_lengths],
        random=[torch.get_rng_state(), list(np.random.get_state()), random.getstate()],
    )


def disturb():
    """Use the global generators, as another process would have."""
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)


class SaveAt(BaseCallback):
    """Saves between two rollouts, once so many steps are done."""

    def __init__(self, path, timesteps):
        super().__init__()
        self.path, self.timesteps = path, timesteps

    def _on_rollout_start(self):
        if self.num_timesteps == self.timesteps:
            self.model.save(self.path)

    def _on_step(self):
        return True


# Going on.


@pytest.mark.parametrize("n_steps", [4, 6])  # an episode has 4: rollouts end with it, or inside it
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
@pytest.mark.parametrize(
    ("cell", "cell_kwargs"), [("fast-weights", {}), ("fast-weights", dict(window=1, rule="delta")), ("lstm", {})]
)
def test_training_goes_on_to_the_last_bit(tmp_path, cell, cell_kwargs, optimizer, n_steps):
    half = 7 * N_ENVS * n_steps
    options = dict(cell=cell, cell_kwargs=cell_kwargs, optimizer=optimizer, n_steps=n_steps, anneal=True)
    whole = make_agent(**options).learn(2 * half, callback=SaveAt(tmp_path / "half", half))
    expected = all_of(whole)
    disturb()
    model = RecurrentA2C.load(tmp_path / "half", catch())
    assert model.num_timesteps == half
    model.learn(2 * half - model.num_timesteps, reset_num_timesteps=False)
    assert_same(all_of(model), expected)
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.0


@pytest.mark.filterwarnings("ignore:the learning rate has gone down to 0")
@pytest.mark.parametrize("anneal", [True, False])
def test_training_goes_on_after_learn(tmp_path, anneal):
    model = make_agent(anneal=anneal).learn(90)
    model.save(tmp_path / "agent")
    model.learn(90, reset_num_timesteps=False)
    disturb()
    loaded = RecurrentA2C.load(tmp_path / "agent", catch()).learn(90, reset_num_timesteps=False)
    assert_same(all_of(loaded), all_of(model))


def test_a_loaded_agent_saves_what_it_loaded(saved, tmp_path):
    RecurrentA2C.load(saved[1], catch()).save(tmp_path / "again")
    before, after = read_checkpoint(saved[1]), read_checkpoint(tmp_path / "again")
    for name, value in vars(before).items():
        if name != "path":
            assert_same(getattr(after, name), value)


def test_the_monitor_goes_on(tmp_path):
    def env():
        return VecMonitor(VecEnvAdapter(catch()))

    model = make_agent(env()).learn(N_ENVS * 6)
    model.save(tmp_path / "agent")
    loaded = RecurrentA2C.load(tmp_path / "agent", env())
    assert loaded.env.episode_lengths.tolist() == [2] * N_ENVS
    loaded.learn(N_ENVS * 6, reset_num_timesteps=False)
    assert {episode["l"] for episode in loaded.ep_info_buffer} == {4}


def test_a_callback_may_save_amid_a_rollout(tmp_path):
    make_agent().learn(6 * N_ENVS * N_STEPS, callback=CheckpointCallback(7, str(tmp_path), name_prefix="catch"))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == sorted(f"catch_{7 * N_ENVS * i}_steps.zip" for i in range(1, 6))
    for file in files:
        model = RecurrentA2C.load(file, catch())
        env = model.env.unwrapped.env
        (row,) = set(env.get_state()["rows"])
        np.testing.assert_array_equal(model._last_obs, env._observe())
        writes = model._last_state[2].ne(0).sum(dim=1)  # since the last episode began
        assert writes.tolist() == [row or 4] * N_ENVS
        assert (model._last_episode_starts == (row == 0)).all()
        model.learn(6 * N_ENVS * N_STEPS - model.num_timesteps, reset_num_timesteps=False)
        assert model.num_timesteps >= 6 * N_ENVS * N_STEPS


@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
def test_the_best_agent_of_an_eval_callback(tmp_path):
    evaluation = EvalCallback(VecMonitor(VecEnvAdapter(catch(2))), eval_freq=8, best_model_save_path=str(tmp_path), verbose=0)
    trained = make_agent().learn(200, callback=evaluation)
    best = RecurrentA2C.load(tmp_path / "best_model")
    assert 0 < best.num_timesteps <= trained.num_timesteps


def cart_poles(num_envs=2):
    return make_vec_env("CartPole-v1", num_envs)


@pytest.mark.parametrize(
    "make_env",
    [
        cart_poles,
        lambda: "CartPole-v1",
        lambda: gym.make("CartPole-v1"),
        lambda: gym.make_vec("CartPole-v1", 2, vectorization_mode="sync"),
        lambda: VecFrameStack(VecEnvAdapter(catch()), 2),  # it remembers frames that its environments do not tell of
    ],
)
def test_other_environments_begin_new_episodes(tmp_path, make_env):
    model = make_agent(make_env()).learn(60)
    model.save(tmp_path / "agent")
    assert read_checkpoint(tmp_path / "agent").episodes is None
    results = []
    for _ in range(2):
        disturb()
        loaded = RecurrentA2C.load(tmp_path / "agent", make_env())
        assert loaded._last_obs is None
        assert_same(loaded.policy.optimizer.state_dict(), model.policy.optimizer.state_dict())
        before = loaded.num_timesteps
        loaded.learn(60, reset_num_timesteps=False)
        assert loaded.num_timesteps >= before + 60
        results.append(loaded)
    assert_same(*(dict(model.policy.state_dict()) for model in results))


def test_new_episodes_are_not_those_that_training_began_with(tmp_path):
    model = make_agent(cart_poles())
    first = model.env.reset()
    model.learn(24).save(tmp_path / "agent")
    again = RecurrentA2C.load(tmp_path / "agent", cart_poles()).env.reset()
    assert not np.isin(again, first).any()


def test_another_number_of_environments(saved):
    model = RecurrentA2C.load(saved[1], catch(N_ENVS + 2))
    assert model._last_obs is None
    before = model.num_timesteps
    model.learn(1, reset_num_timesteps=False)
    assert model.num_timesteps == before + (N_ENVS + 2) * N_STEPS


def test_environments_that_refuse_the_state_begin_new_episodes(saved):
    class Picky(CatchVectorEnv):
        def set_state(self, state):
            raise KeyError("whatever")

    with pytest.warns(UserWarning, match=r"^new episodes begin, .*\(KeyError: 'whatever'\)$"):
        model = RecurrentA2C.load(saved[1], Picky(N_ENVS, 5, 2))
    assert model._last_obs is None
    model.learn(1, reset_num_timesteps=False)


def test_saving_works_where_get_state_fails(tmp_path):
    class Shy(CatchVectorEnv):
        def get_state(self):
            raise RuntimeError("not\nnow")

    model = make_agent(Shy(N_ENVS, 5, 2)).learn(1)
    with pytest.warns(UserWarning, match=r"^the checkpoint is without the state of the environment: not now$"):
        model.save(tmp_path / "agent")
    assert RecurrentA2C.load(tmp_path / "agent", catch())._last_obs is None


@pytest.mark.parametrize("state", [object(), np.zeros(2, complex), np.array(["text"]), {"deep": [np.zeros(1), {1, 2}]}])
def test_states_that_a_file_cannot_hold_do_not_hinder_saving(tmp_path, state):
    class Odd(CatchVectorEnv):
        def get_state(self):
            return state

    model = make_agent(Odd(N_ENVS, 5, 2)).learn(1)
    with pytest.warns(UserWarning, match=r"^a checkpoint cannot hold episodes: .*$"):
        model.save(tmp_path / "agent")
    assert RecurrentA2C.load(tmp_path / "agent", catch())._last_obs is None


# What is in a file.


@pytest.mark.parametrize("make_env", [catch, cart_poles])
def test_predictions_are_the_same(tmp_path, make_env):
    model = make_agent(make_env()).learn(60)
    model.save(tmp_path / "agent")
    observations = [model.observation_space.sample()[None] for _ in range(5)]
    for loaded in (RecurrentA2C.load(tmp_path / "agent"), RecurrentA2C.load(tmp_path / "agent", make_env())):
        for deterministic in (True, False):
            results = []
            for agent in (model, loaded):
                torch.manual_seed(1)
                state, actions = None, []
                for observation in observations:
                    action, state = agent.predict(observation, state, state is None, deterministic=deterministic)
                    actions.append(action)
                results.append([actions, list(state)])
            assert_same(*results)


def test_without_an_environment_the_random_numbers_of_the_process_stay(saved):
    random.seed(3)
    np.random.seed(3)
    expected = random.getstate(), np.random.get_state()[1].tolist()
    assert RecurrentA2C.load(saved[1]).env is None
    assert (random.getstate(), np.random.get_state()[1].tolist()) == expected


def test_an_agent_that_has_not_learned(tmp_path):
    make_agent().save(tmp_path / "new")
    model = RecurrentA2C.load(tmp_path / "new", catch()).learn(30)
    assert model.num_timesteps >= 30


def test_another_epsilon_keeps_the_other_options_of_the_optimizer(tmp_path):
    decay = dict(optimizer_kwargs=dict(weight_decay=0.5))
    make_agent(optimizer_eps=0.1, policy_kwargs=decay).learn(27).save(tmp_path / "agent")
    for given, expected in ((dict(), 0.1), (dict(optimizer_eps=0.2), 0.2)):
        options = RecurrentA2C.load(tmp_path / "agent", catch(), **given).policy.optimizer.param_groups[0]
        assert (options["eps"], options["weight_decay"]) == (expected, 0.5)


def test_all_arguments_come_back(tmp_path):
    arguments = dict(
        learning_rate=0.5,
        n_steps=9,
        gamma=0.8,
        gae_lambda=0.7,
        ent_coef=0.3,
        vf_coef=0.2,
        max_grad_norm=7.0,
        bptt_length=4,
        optimizer="adam",
        optimizer_eps=0.1,
        anneal=False,
        anneal_entropy=True,
        matmul_precision="high",
        normalize_advantage=True,
        norm_reward=False,
        stats_window_size=11,
        tensorboard_log=str(tmp_path / "board"),
        monitor_wrapper=False,
        seed=5,
    )
    policy_kwargs = dict(
        cell_kwargs=dict(rule="oja", eta=0.25),
        net_arch=dict(pi=[3], vf=[2]),
        norm_obs=False,
        activation_fn=torch.nn.Tanh,
        features_extractor_class=FlattenExtractor,
        optimizer_class=torch.optim.AdamW,
        optimizer_kwargs=dict(betas=(0.5, 0.75)),
    )
    model = make_agent(policy_kwargs=policy_kwargs, **arguments).learn(27)
    model.save(tmp_path / "agent")
    stored = read_checkpoint(tmp_path / "agent")
    assert stored.arguments == arguments | dict(policy="RecurrentPolicy", verbose=0)
    assert stored.policy_kwargs == model.policy_kwargs
    loaded = RecurrentA2C.load(tmp_path / "agent", catch())
    names = arguments.keys() - {"stats_window_size"}
    assert {name: getattr(loaded, name) for name in names} == {name: arguments[name] for name in names}
    assert loaded.ep_info_buffer.maxlen == 11
    assert loaded.policy_kwargs == model.policy_kwargs
    assert not loaded.env.unwrapped.monitor
    assert str(loaded.policy) == str(model.policy)
    assert_same(loaded.policy.optimizer.state_dict(), model.policy.optimizer.state_dict())


def test_arguments_can_be_overridden(saved):
    model, path = saved
    assert RecurrentA2C.load(path, catch(), gamma=0.5)._last_obs is not None
    changed = dict(cell_kwargs=dict(eta=0.125, rule="delta"))
    loaded = RecurrentA2C.load(path, catch(), gamma=0.5, n_steps=3, policy_kwargs=changed)
    assert loaded._last_obs is None
    assert (loaded.gamma, loaded.n_steps, loaded.rollout_buffer.n_steps, loaded.policy.actor_cell.eta) == (0.5, 3, 3, 0.125)
    assert loaded.policy.hidden_size == SMALL["hidden_size"]
    assert_same(loaded.policy.optimizer.state_dict(), model.policy.optimizer.state_dict())
    loaded.learn(30, reset_num_timesteps=False)


@pytest.mark.parametrize("overrides", [dict(optimizer="adam"), dict(policy_kwargs=dict(optimizer_class=torch.optim.Adam))])
def test_another_optimizer_begins_anew(saved, overrides):
    loaded = RecurrentA2C.load(saved[1], catch(), **overrides)
    assert isinstance(loaded.policy.optimizer, torch.optim.Adam)
    assert not loaded.policy.optimizer.state
    loaded.learn(30, reset_num_timesteps=False)


def test_another_seed_begins_new_episodes(saved):
    firsts = []
    for seed in (4, 4, 5):
        loaded = RecurrentA2C.load(saved[1], catch(), seed=seed)
        assert loaded.seed == seed
        assert loaded._last_obs is None
        firsts.append((loaded.env.reset().tobytes(), torch.rand(1).item()))
    assert firsts[0] == firsts[1]
    assert firsts[0] != firsts[2]


class OwnOptimizer(torch.optim.Adam):
    pass


def test_an_optimizer_of_one_s_own_goes_on(tmp_path):
    own = dict(optimizer_class=OwnOptimizer, optimizer_kwargs={})
    model = make_agent(policy_kwargs=own).learn(60)
    with pytest.warns(UserWarning, match=r"^a checkpoint cannot hold policy_kwargs.optimizer_class: .*$"):
        model.save(tmp_path / "agent")
    loaded = RecurrentA2C.load(tmp_path / "agent", catch(), policy_kwargs=dict(optimizer_class=OwnOptimizer))
    assert_same(all_of(loaded), all_of(model))
    other = RecurrentA2C.load(tmp_path / "agent", catch(), optimizer="rmsprop")
    assert type(other.policy.optimizer) is torch.optim.RMSprop
    assert not other.policy.optimizer.state


class OwnPolicy(RecurrentActorCriticPolicy):
    pass


class OwnExtractor(FlattenExtractor):
    def __init__(self, space, marks):
        super().__init__(space)


def test_to_predict_needs_nothing_that_only_learning_needs(tmp_path):
    model = RecurrentPPO("RecurrentPolicy", catch(), clip_range=lambda progress: 0.1, tensorboard_log=tmp_path / "logs")
    with pytest.warns(UserWarning, match="cannot hold clip_range:"):
        model.save(tmp_path / "agent")
    loaded = RecurrentPPO.load(tmp_path / "agent")
    assert loaded.tensorboard_log == str(tmp_path / "logs")
    observation = model.get_env().reset()
    actions = [agent.predict(observation, deterministic=True)[0] for agent in (model, loaded)]
    np.testing.assert_array_equal(*actions)


def test_what_a_file_cannot_hold_is_given_again(tmp_path):
    own = dict(features_extractor_class=OwnExtractor, features_extractor_kwargs=dict(marks=[np.zeros(3), object()]))
    model = RecurrentA2C(OwnPolicy, catch(), learning_rate=lambda progress: 0.25, policy_kwargs=SMALL | own).learn(1)
    names = "policy, learning_rate, policy_kwargs.features_extractor_class, policy_kwargs.features_extractor_kwargs"
    with pytest.warns(UserWarning, match=f"^a checkpoint cannot hold {names}: .*$"):
        model.save(tmp_path / "agent")
    of_policy = names.replace("learning_rate, ", "")
    with pytest.raises(CheckpointError, match=f"^.*agent.zip could not hold {of_policy}: give it to load again$"):
        RecurrentA2C.load(tmp_path / "agent", catch())

    again = dict(policy=OwnPolicy, policy_kwargs=own)
    with pytest.raises(CheckpointError, match=r"^.*agent.zip could not hold learning_rate: give it to load again to learn$"):
        RecurrentA2C.load(tmp_path / "agent", catch(), **again).learn(1)
    loaded = RecurrentA2C.load(tmp_path / "agent", catch(), learning_rate=lambda progress: 0.25, **again)
    assert type(loaded.policy) is OwnPolicy
    assert type(loaded.policy.features_extractor) is OwnExtractor
    loaded.learn(1, reset_num_timesteps=False)
    assert loaded.policy.optimizer.param_groups[0]["lr"] == 0.25


class Subclass(RecurrentA2C):
    def __init__(self, *args, extra=1, **kwargs):
        self.extra = extra
        super().__init__(*args, **kwargs)


def test_a_subclass_with_an_argument_of_its_own(tmp_path):
    Subclass("RecurrentPolicy", catch(), extra=2, gamma=0.5, policy_kwargs=SMALL).save(tmp_path / "agent")
    model = Subclass.load(tmp_path / "agent", catch())
    assert (type(model), model.extra, model.gamma) == (Subclass, 2, 0.5)
    with pytest.raises(CheckpointError, match=r"^.* has the argument 'extra', which RecurrentA2C does not take$"):
        RecurrentA2C.load(tmp_path / "agent")


class Settled(RecurrentA2C):
    def __init__(self, policy, env, device="auto", _init_setup_model=True):
        super().__init__(policy, env, policy_kwargs=SMALL, device=device, _init_setup_model=_init_setup_model)


def test_a_subclass_that_settles_most_arguments(tmp_path):
    model = Settled("RecurrentPolicy", catch()).learn(30)
    model.save(tmp_path / "agent")
    assert read_checkpoint(tmp_path / "agent").arguments == dict(policy="RecurrentPolicy")
    assert_same(all_of(Settled.load(tmp_path / "agent", catch())), all_of(model))


class Dictionaries(gym.Env):
    observation_space = spaces.Dict(
        image=spaces.Box(0, 255, (36, 36, 1), np.uint8),
        number=spaces.Discrete(3),
        vector=spaces.Box(np.array([-1, -np.inf]), np.array([2, np.inf]), dtype=np.float64),
    )
    action_space = spaces.MultiDiscrete([2, 3])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


class Resumable(VecEnvAdapter):
    def get_state(self):
        return {"array": np.arange(3), 5: (True, float("inf"), None), "$odd": np.float32(0.5)}

    def set_state(self, state):
        assert_same(state, {"array": np.arange(3), 5: (True, float("inf"), None), "$odd": 0.5})


def test_dictionaries_of_images_and_shared_layers(tmp_path):
    def env():
        return Resumable(gym.vector.SyncVectorEnv([Dictionaries] * 2, autoreset_mode="SameStep"))

    model = make_agent(env(), policy_kwargs=dict(features_extractor_class=CombinedExtractor)).learn(24)
    model.save(tmp_path / "agent")
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 3 * 4 * sum(p.numel() for p in model.policy.parameters())
    for loaded in (RecurrentA2C.load(tmp_path / "agent"), RecurrentA2C.load(tmp_path / "agent", env())):
        assert loaded.observation_space == model.observation_space
        assert loaded.action_space == model.action_space
        assert_same(dict(loaded.policy.state_dict()), dict(model.policy.state_dict()))
    assert_same(loaded._last_obs, model._last_obs)
    loaded.learn(24, reset_num_timesteps=False)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 1, (4, 5), np.float32),
        spaces.Box(-np.inf, np.inf, (), np.float64),
        spaces.Box(np.float32([[-1.0, 0.1]]), np.float32([[np.inf, 0.2]])),
        spaces.Box(0, 255, (3, 8, 8), np.uint8),
        spaces.Box(-(2**62), 2**62, (2,), np.int64),
        spaces.Discrete(7),
        spaces.Discrete(7, start=-3, dtype=np.int32),
        spaces.MultiDiscrete([3, 4], start=[1, -1]),
        spaces.MultiDiscrete([[3, 4], [5, 6]], dtype=np.int32),
        spaces.MultiBinary(4),
        spaces.MultiBinary((2, 3)),
        spaces.Dict(OrderedDict(b=spaces.Discrete(2), a=spaces.Box(0, 1, (2,)))),
    ],
)
def test_spaces_come_back(space):
    tensors = {}
    text = json.dumps(pack(describe_space(space), "space", tensors), allow_nan=False)
    again = make_space(unpack(json.loads(text), tensors))
    assert again == space
    assert repr(again) == repr(space)
    assert again.dtype == space.dtype
    assert not tensors
    if isinstance(space, spaces.Dict):
        assert list(again.spaces) == list(space.spaces)
    if isinstance(space, spaces.Box):
        np.testing.assert_array_equal([again.low, again.high], [space.low, space.high], strict=True)


NESTED = [
    None,
    True,
    -(2**200),
    0.1,
    float("-inf"),
    float("nan"),
    "é\ud800\n",
    [1, [2.5, ()], {}],
    (1, (2,), []),
    {"a": 1, "$b": 2, "": None},
    {"$tensor": "a"},
    {0: "a", (1, 2): {None: 1.5}},
    torch.nn.Tanh,
    torch.optim.Adam,
    NatureCNN,
    torch.zeros(2, 0, 3),
    torch.tensor(3),
    torch.eye(3).T[1:],
    torch.ones(2, dtype=torch.bfloat16),
    np.array(2.5),
    np.arange(6, dtype=np.uint32).reshape(2, 3).T,
    np.array([True, False]),
    {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}},
]


@pytest.mark.parametrize("value", NESTED, ids=str)
def test_nested_values_come_back(value):
    tensors = {}
    text = json.dumps(pack([value, value], "value", tensors), allow_nan=False)
    tensors = safetensors.torch.load(safetensors.torch.save(tensors))
    assert_same(unpack(json.loads(text), tensors), [value, value])
    assert not tensors


# What is not in a file: code.


def test_nothing_is_pickled(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("pickled")

    model = make_agent().learn(60)  # first, for Numba's files of compiled kernels are pickles
    for module, names in {
        pickle: ("Pickler", "Unpickler", "dump", "dumps", "load", "loads"),
        cloudpickle: ("Pickler", "dump", "dumps", "load", "loads"),
        torch: ("save", "load"),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, refuse)
    model.save(tmp_path / "agent")
    loaded = RecurrentA2C.load(tmp_path / "agent", catch())
    loaded.set_parameters(model.get_parameters())
    loaded.set_parameters(tmp_path / "agent")
    loaded.learn(60, reset_num_timesteps=False)


def test_what_was_compiled_is_saved_as_it_was(saved, path):
    model = RecurrentA2C.load(path)
    model.policy = torch.compile(model.policy)
    model.save(path)
    assert_same(RecurrentA2C.load(path).get_parameters(), saved[0].get_parameters())


def test_parameters_come_from_a_file_as_from_a_dictionary(saved, path):
    from_file, from_dictionary = make_agent(seed=1), make_agent(seed=1)
    from_file.set_parameters(path)
    from_dictionary.set_parameters(saved[0].get_parameters())
    assert_same(from_file.get_parameters(), from_dictionary.get_parameters())
    assert from_file.num_timesteps == 0


@pytest.mark.parametrize(
    "name",
    ["os.system", "builtins.eval", "torch.load", "torch.nn.functional.relu", "torch.hub.load", "", None, 3, ["torch.nn.Tanh"]],
)
def test_only_known_classes_are_looked_up(path, monkeypatch, name):
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("run"))

    def change(document, tensors, metadata):
        document["policy_kwargs"]["activation_fn"] = {"$class": name}

    rewrite(path, change)
    with pytest.raises(CheckpointError, match=r"^.*agent.safetensors is damaged .*$"):
        RecurrentA2C.load(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "null",
        "[]",
        "{}",
        "NaN",
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 900 + "1" + "}" * 900,
        '{"n_envs": Infinity}',
        '{"n_envs": ' + "1" * 5000 + "}",
        '{"$pickle": "gASVHAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjARlY2hvlIWUUpQu"}',
    ],
    ids=lambda text: text[:20],
)
def test_a_description_that_is_none(path, text):
    rewrite(path, lambda document, tensors, metadata: text)
    with pytest.raises(CheckpointError, match=r"^.*agent.safetensors (is damaged|has the tensor) .*$"):
        read_checkpoint(path)


def nodes(tree, trail=()):
    """Every place in a document."""
    yield trail
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from nodes(value, (*trail, key))


@pytest.mark.filterwarnings("ignore:new episodes begin")
def test_a_changed_description_is_loaded_or_refused(path):
    values = [
        None,
        True,
        -1,
        0,
        3,
        1.5,
        "x",
        [],
        [[]],
        {},
        {"x": 1},
        {"$class": "torch.nn.Tanh"},
        {"$float": "nan"},
        {"$tuple": [2]},
    ]
    metadata, tensors = parts_of(path)
    text = metadata["json"]
    places = [place for place in nodes(json.loads(text)) if place and place[:2] != ("random_state", "python")]
    rng = random.Random(0)
    loaded = refused = 0
    for place in rng.sample(places, 150):
        document = json.loads(text)
        inner = document
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = rng.choice(values)
        write_parts(path, metadata | {"json": json.dumps(document)}, tensors)
        try:
            RecurrentA2C.load(path, catch())
            loaded += 1
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
    assert loaded > 10
    assert refused > 50


# What goes wrong.


def refusal(call):
    """The one line that it raises."""
    with pytest.raises(CheckpointError) as error:
        call()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700
    return str(error.value)


def test_a_missing_file(tmp_path):
    assert refusal(lambda: RecurrentA2C.load(tmp_path / "none")) == f"there is no file {tmp_path / 'none'}"


def test_a_file_that_was_cut_short(path):
    content = path.read_bytes()
    lengths = {*range(20), *range(20, len(content), 511), len(content) - 1}
    for length in lengths:
        path.write_bytes(content[:length])
        assert re.match(r".*agent.safetensors is (no whole safetensors file|damaged)", refusal(lambda: RecurrentA2C.load(path)))


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(tmp_path, seed):
    path = tmp_path / "agent.safetensors"
    path.write_bytes(np.random.default_rng(seed).bytes(3000))
    assert f"{path} is no whole safetensors file" in refusal(lambda: RecurrentA2C.load(path))


def test_files_of_other_kinds(tmp_path):
    def load(name):
        return refusal(lambda: RecurrentA2C.load(tmp_path / name))

    (tmp_path / "pickled").write_bytes(pickle.dumps({"policy": 1}))
    torch.save({"policy": torch.zeros(2)}, tmp_path / "torch.pt")
    A2C("MlpPolicy", "CartPole-v1").save(tmp_path / "sb3.zip")
    (tmp_path / "text").write_text("Dear diary")
    (tmp_path / "folder.safetensors").mkdir()
    assert "pickled is no whole safetensors file (" in load("pickled")
    assert "text is no whole safetensors file (" in load("text")
    assert "folder.safetensors cannot be read (IsADirectoryError" in load("folder.safetensors")
    for name in ("torch.pt", "sb3.zip"):
        assert f"{name} is a zip file, like those of SB3, but not a checkpoint of fw_rl" in load(name)
    for metadata in (None, {"format": "pt"}):
        save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors", metadata)
        assert "is a safetensors file, but not a checkpoint of fw_rl" in load("foreign.safetensors")


def test_a_file_that_cannot_be_opened(path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "Permission denied" in refusal(lambda: RecurrentA2C.load(path))


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1", " is of version 1: this fw_rl reads version 2 only"),
        ("x", " is damaged (ValueError: "),
        ("", " is damaged ("),
    ],
)
def test_another_version(path, version, message):
    rewrite(path, lambda document, tensors, metadata: metadata.update(version=version) or "something else")
    assert f"{path}{message}" in refusal(lambda: RecurrentA2C.load(path))


@pytest.mark.parametrize("env", [lambda: catch(n=6), lambda: catch(dtype=np.uint8), cart_poles])
def test_an_environment_with_other_observations(saved, env):
    message = refusal(lambda: RecurrentA2C.load(saved[1], env()))
    assert "agent.safetensors has the observation space Box(0.0, 1.0, (25,), float32), but the environment's is Box" in message


def test_an_environment_with_other_actions(saved):
    class Other(CartPoleEnv):
        observation_space = catch().single_observation_space

        def __init__(self):
            super().__init__()
            self.observation_space = Other.observation_space

    assert "has the action space Discrete(3), but the environment's is Discrete(2)" in refusal(
        lambda: RecurrentA2C.load(saved[1], Other())
    )


NAME = "cell.first.norm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, t, m: d["policy"].pop(NAME) and t.pop(f"policy.{NAME}") is None, f"lacks the parameter '{NAME}'"),
        (lambda d, t, m: t.pop(f"policy.{NAME}") is None, f"the tensor 'policy.{NAME}' is missing"),
        (lambda d, t, m: t.update(more=torch.zeros(1)), "has the tensor 'more', which its description does not name"),
        (
            lambda d, t, m: t.update(more=torch.zeros(1)) or d["policy"].update(more={"$tensor": "more"}),
            "has the parameter 'more', which the policy does not have",
        ),
        (
            lambda d, t, m: t.update({f"policy.{NAME}": torch.zeros(1, 5)}),
            f"has the parameter '{NAME}' as float32 [1, 5], not float32 [5]",
        ),
        (lambda d, t, m: t.update({f"policy.{NAME}": torch.zeros(5, dtype=torch.int64)}), "as int64 [5], not float32 [5]"),
        (
            lambda d, t, m: t.update({"optimizer_state.state.0.square_avg": torch.zeros(2, 2)}),
            "has the optimizer's 'square_avg' with shape [2, 2], which does not fit [4, 25]",
        ),
        (lambda d, t, m: d["optimizer_state"]["param_groups"][0]["params"].pop() < 0, "cannot be restored"),
        (lambda d, t, m: t.update({"episodes.observation": torch.zeros(N_ENVS, 4)}), "cannot be restored"),
        (lambda d, t, m: t.update({"episodes.starts": torch.zeros(N_ENVS + 1)}), f"the running episodes are not {N_ENVS}"),
        (
            lambda d, t, m: t.update({"episodes.discounted_returns": torch.zeros(N_ENVS, 2)}),
            f"the running episodes are not {N_ENVS}",
        ),
        (lambda d, t, m: d["random_state"]["numpy"]["$tuple"].__setitem__(2, 10**6), "is at 1000000 of 624"),
        (
            lambda d, t, m: d["arguments"].update(optimizer="sgd"),
            "cannot be built (ValueError: optimizer must be one of rmsprop, adam, got 'sgd'",
        ),
        (lambda d, t, m: d["arguments"].update(cheese=1), "has the argument 'cheese', which RecurrentA2C does not take"),
        (
            lambda d, t, m: d["policy_kwargs"].update(cheese=1),
            "cannot be built (ValueError: policy_kwargs must have known names, got 'cheese': ",
        ),
        (lambda d, t, m: d["policy_kwargs"].update(hidden_size=6), "as float32 [5, 4], not float32 [6, 4]"),
        (lambda d, t, m: d.update(n_envs="many"), "is damaged (TypeError: 'n_envs' is 'many')"),
        (lambda d, t, m: d["observation_space"].update(type="Sphere"), "is damaged (ValueError: there is no space 'Sphere')"),
    ],
)
def test_what_does_not_fit(path, change, message):
    rewrite(path, change)
    error = refusal(lambda: RecurrentA2C.load(path, catch()))
    assert str(path) in error
    assert message in error


@pytest.mark.parametrize("part", [torch.zeros(N_ENVS, 4), torch.zeros(N_ENVS, 5, dtype=torch.float64)])
def test_a_memory_of_another_form_begins_new_episodes(path, part):
    """As one of an earlier version of a cell; none of it comes into a cell, whose kernels trust in shapes."""
    rewrite(path, lambda document, tensors, metadata: tensors.update({"episodes.memory.0": part}))
    with pytest.warns(UserWarning, match=r"^new episodes begin, since the memory's state in the file is of another form$"):
        loaded = RecurrentA2C.load(path, catch())
    assert loaded._last_obs is None
    assert loaded.num_timesteps == read_checkpoint(path).counters["num_timesteps"] > 0


def test_a_cell_that_is_not_registered(tmp_path):
    @register_cell("own")
    class Own(LSTMCell):
        pass

    make_agent(cell="own").save(tmp_path / "agent")
    assert isinstance(RecurrentA2C.load(tmp_path / "agent").policy.actor_cell, Own)
    del base._REGISTRY["own"]
    message = refusal(lambda: RecurrentA2C.load(tmp_path / "agent"))
    assert message.startswith(f"{tmp_path / 'agent.zip'} needs the cell 'own', which is not registered: first import")


def test_a_module_that_a_file_names_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    lines = ["from fw_rl.cells import LSTMCell, register_cell", "@register_cell('own')", "class Own(LSTMCell): ..."]
    (tmp_path / "own_cells.py").write_text("\n".join(lines))
    make_agent(cell="own_cells:own").save(tmp_path / "agent")
    assert type(RecurrentA2C.load(tmp_path / "agent").policy.actor_cell).__name__ == "Own"
    del sys.modules["own_cells"]
    message = refusal(lambda: RecurrentA2C.load(tmp_path / "agent"))
    assert "needs the cell 'own_cells:own', which is not registered: first import" in message
    assert "own_cells" not in sys.modules


def test_unknown_overrides(saved):
    with pytest.raises(
        ValueError, match=r"^an argument of load must be one of env, device, policy, learning_rate, .*, got 'gama'$"
    ):
        RecurrentA2C.load(saved[1], gama=0.9)


@pytest.mark.parametrize("culprit", ["fsync", "replace"])
def test_a_crash_while_saving_leaves_the_old_file(path, monkeypatch, culprit):
    before = path.read_bytes()

    def crash(*args):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, culprit, crash)
    for target in (path, path.with_name("new.safetensors")):
        with pytest.raises(OSError, match="no space left"):
            make_agent().save(target)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["agent.safetensors"]


@pytest.mark.filterwarnings("ignore:the learning rate has gone down to 0")
def test_saving_replaces_the_file_of_a_loaded_agent(path):
    model = RecurrentA2C.load(path, catch())
    for _ in range(2):
        model.learn(30, reset_num_timesteps=False).save(path)
        loaded = RecurrentA2C.load(path, catch())
        assert_same(dict(loaded.policy.state_dict()), dict(model.policy.state_dict()))
    assert os.stat(path).st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_file_goes_from_device_to_device(tmp_path):
    model = make_agent(device="cuda").learn(90)
    model.save(tmp_path / "agent")
    on_cpu = RecurrentA2C.load(tmp_path / "agent", catch(), device="cpu").learn(90, reset_num_timesteps=False)
    assert {parameter.device.type for parameter in on_cpu.policy.parameters()} == {"cpu"}
    on_cpu.save(tmp_path / "agent")
    back = RecurrentA2C.load(tmp_path / "agent", catch(), device="cuda").learn(90, reset_num_timesteps=False)
    assert {parameter.device.type for parameter in back.policy.parameters()} == {"cuda"}


def test_another_memory_begins_new_episodes(saved):
    """Its state has the same form, but was made by other rules."""
    loaded = RecurrentA2C.load(saved[1], catch(), policy_kwargs=dict(cell_kwargs=dict(eta=0.125)))
    assert loaded._last_obs is None
