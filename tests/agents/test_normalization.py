"""The statistics of a VecNormalize are in the agent's file, and whoever loads it sees the world as the agent learned to."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize

from fw_rl.agents import A3C, CheckpointError, Player, RecurrentA2C, evaluate_policy, read_checkpoint
from fw_rl.envs import CatchVectorEnv, VecEnvAdapter
from tests.agents.helpers import make_model, same_parameters, scramble, scripted_envs
from tests.agents.test_checkpoint import SaveAt, disturb, rewrite

SCRIPTS = [((3, "terminated"), (5, "truncated")), ((2, "terminated"),)]


class Sensors(gym.Env):
    """Readings of very different scales and a mark, in episodes of five steps."""

    observation_space = spaces.Dict(
        near=spaces.Box(-np.inf, np.inf, (2,), np.float32),
        far=spaces.Box(-np.inf, np.inf, (1,), np.float32),
        mark=spaces.Discrete(3),
    )
    action_space = spaces.Discrete(3)

    def _see(self):
        normal = self.np_random.normal
        near, far = normal(5, 0.01, 2).astype(np.float32), normal(-300, 100, 1).astype(np.float32)
        return dict(near=near, far=far, mark=self.np_random.integers(3))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._see(), {}

    def step(self, action):
        self.t += 1
        return self._see(), float(action), False, self.t == 5, {}


ENVS = {
    "Box": lambda: DummyVecEnv(scripted_envs(SCRIPTS)),
    "Dict": lambda: DummyVecEnv([Sensors] * 2),
    "VectorEnv": lambda: VecEnvAdapter(CatchVectorEnv(2, n=5, m=2)),
}
OPTIONS = {"Dict": dict(norm_obs_keys=["near", "far"])}
EVERY_ENV = pytest.mark.parametrize("kind", ENVS)


def taught(kind, path, **kwargs):
    """An agent that has learned with a VecNormalize, saved."""
    model = make_model(VecNormalize(ENVS[kind](), gamma=0.9, clip_obs=5.0, **OPTIONS.get(kind, {}), **kwargs), n_steps=5)
    scramble(model.policy)
    model.learn(60)
    model.save(path)
    return model


def raw_observations(kind, count=6):
    """What the plain environments show."""
    env = ENVS[kind]()
    env.seed(3)
    seen = [env.reset()]
    return seen + [env.step(np.zeros(2, dtype=int))[0] for _ in range(count)]


def predictions(model, normalizer, observations):
    """What an agent does and remembers on raw observations."""
    state, told = None, []
    for observation in observations:
        action, state = model.predict(normalizer.normalize_obs(observation), state, state is None, deterministic=True)
        told += [action, *state]
    return told


def assert_same_predictions(one, other):
    for part, expected in zip(one, other, strict=True):
        np.testing.assert_array_equal(part, expected)


@EVERY_ENV
def test_a_loaded_agent_predicts_the_same_on_raw_observations(kind, tmp_path):
    model = taught(kind, tmp_path / "agent")
    observations = raw_observations(kind)
    expected = predictions(model, model.get_vec_normalize_env(), observations)
    untaught = VecNormalize(ENVS[kind](), **OPTIONS.get(kind, {}))
    with pytest.raises(AssertionError):
        assert_same_predictions(predictions(model, untaught, observations), expected)
    for env in (VecNormalize(ENVS[kind](), clip_obs=5.0, **OPTIONS.get(kind, {})), ENVS[kind](), None):
        loaded = RecurrentA2C.load(tmp_path / "agent", env)
        normalizer = loaded.get_vec_normalize_env()
        assert_same_predictions(predictions(loaded, normalizer, observations), expected)
        assert normalizer.clip_obs == 5.0
        assert normalizer.ret_rms.var == model.get_vec_normalize_env().ret_rms.var != 1


@EVERY_ENV
def test_what_was_loaded_is_saved_again(kind, tmp_path):
    taught(kind, tmp_path / "agent")
    before = read_checkpoint(tmp_path / "agent").normalization
    for env in (None, ENVS[kind]()):
        RecurrentA2C.load(tmp_path / "agent", env).save(tmp_path / "again")
        after = read_checkpoint(tmp_path / "again").normalization
        assert before.keys() == after.keys()
        for name, value in before.items():
            np.testing.assert_equal(after[name], value)


@pytest.mark.parametrize("own", [True, False], ids=["in its own", "in one that load makes"])
def test_training_goes_on_to_the_last_bit(own, tmp_path):
    env = VecNormalize(VecEnvAdapter(CatchVectorEnv(2, n=5, m=2)), gamma=0.9)
    whole = make_model(env, n_steps=6).learn(144, callback=SaveAt(tmp_path / "amid", 60))  # 30 steps: half an episode
    disturb()
    plain = VecEnvAdapter(CatchVectorEnv(2, n=5, m=2))
    model = RecurrentA2C.load(tmp_path / "amid", VecNormalize(plain, gamma=0.9) if own else plain)
    model.learn(84, reset_num_timesteps=False)
    assert same_parameters(model, whole)
    normalizers = [agent.get_vec_normalize_env() for agent in (model, whole)]
    for name in ("mean", "var", "count"):
        np.testing.assert_array_equal(*(getattr(normalizer.obs_rms, name) for normalizer in normalizers))
        np.testing.assert_array_equal(*(getattr(normalizer.ret_rms, name) for normalizer in normalizers))
    np.testing.assert_array_equal(*(normalizer.returns for normalizer in normalizers))


def test_every_setting_comes_back(tmp_path):
    settings = dict(training=False, norm_reward=False, clip_obs=2.0, clip_reward=3.0, gamma=0.5, epsilon=0.25)
    make_model(VecNormalize(DummyVecEnv([Sensors] * 2), norm_obs=False, **settings), n_steps=5).save(tmp_path / "agent")
    loaded = RecurrentA2C.load(tmp_path / "agent", DummyVecEnv([Sensors] * 2)).get_vec_normalize_env()
    assert {name: getattr(loaded, name) for name in settings} == settings


def test_settings_of_the_environment_that_is_given_stay(tmp_path):
    taught("Box", tmp_path / "agent")
    env = VecNormalize(ENVS["Box"](), training=False, norm_reward=False, clip_obs=2.0)
    loaded = RecurrentA2C.load(tmp_path / "agent", env)
    assert loaded.get_env() is env
    assert (env.training, env.norm_reward, env.clip_obs) == (False, False, 2.0)


def test_rewards_alone_may_be_normalized(tmp_path):
    env = VecNormalize(DummyVecEnv([Sensors] * 2), norm_obs=False)
    model = make_model(env, n_steps=5).learn(20)
    model.save(tmp_path / "agent")
    loaded = RecurrentA2C.load(tmp_path / "agent", DummyVecEnv([Sensors] * 2))
    assert not loaded.get_vec_normalize_env().norm_obs
    assert loaded.get_vec_normalize_env().ret_rms.count == env.ret_rms.count
    loaded.learn(20)


def test_an_evaluation_sees_through_the_same_statistics(tmp_path):
    model = taught("Box", tmp_path / "agent")
    evaluation_env = VecNormalize(ENVS["Box"](), training=False, norm_reward=False)
    evaluation = EvalCallback(
        evaluation_env, n_eval_episodes=2, eval_freq=5, best_model_save_path=str(tmp_path), verbose=0, warn=False
    )
    model.learn(30, callback=evaluation)
    np.testing.assert_array_equal(evaluation_env.obs_rms.mean, model.get_vec_normalize_env().obs_rms.mean)
    best = RecurrentA2C.load(tmp_path / "best_model")
    assert best.get_vec_normalize_env().obs_rms.count > 1


def test_an_environment_without_the_normalizer_of_the_training_is_warned_of(tmp_path):
    taught("Box", tmp_path / "agent").save(tmp_path / "agent")
    agent = RecurrentA2C.load(tmp_path / "agent")
    for play in (lambda env: Player(agent).play(env, 2), lambda env: evaluate_policy(agent, env, 2, warn=False)):
        with pytest.warns(UserWarning, match="trained with a VecNormalize, which this environment does not have"):
            play(ENVS["Box"]())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            play(RecurrentA2C.load(tmp_path / "agent", ENVS["Box"]()).get_env())


def test_an_agent_without_a_normalizer_has_none_in_its_file(tmp_path):
    make_model(ENVS["Box"](), n_steps=5).save(tmp_path / "agent")
    assert read_checkpoint(tmp_path / "agent").normalization is None
    assert RecurrentA2C.load(tmp_path / "agent").get_vec_normalize_env() is None


def test_statistics_that_do_not_fit_are_refused_in_one_line(tmp_path):
    taught("Box", tmp_path / "agent.safetensors")
    taught("Dict", tmp_path / "other.safetensors")

    def mix(document, tensors, metadata):
        document["normalization"]["observations"] = document["normalization"]["rewards"]
        del tensors["normalization.observations.0"], tensors["normalization.observations.1"]

    def swap(document, tensors, metadata):
        document["normalization"]["norm_obs_keys"] = ["near"]

    for name, change in (("agent", mix), ("other", swap)):
        path = tmp_path / f"{name}.safetensors"
        rewrite(path, change)
        with pytest.raises(CheckpointError, match=rf"^.*{name}.safetensors.*$"):
            RecurrentA2C.load(path, ENVS["Box" if name == "agent" else "Dict"]())


def make_normalized():
    return VecNormalize(DummyVecEnv(scripted_envs(SCRIPTS)))


def make_plain():
    return DummyVecEnv(scripted_envs(SCRIPTS))


# Inside of other wrappers.


def stacked(venv):
    return VecFrameStack(venv, 2)


def layers(env):
    names = [type(env).__name__]
    while hasattr(env, "venv"):
        env = env.venv
        names.append(type(env).__name__)
    return names


def taught_inside(path):
    """An agent that has learned with a VecNormalize inside of a VecFrameStack, saved."""
    model = make_model(stacked(VecNormalize(VecMonitor(make_plain()), gamma=0.9, clip_obs=5.0)), n_steps=5)
    scramble(model.policy)
    model.learn(60)
    model.save(path)
    return model


def seen_and_done(model, steps=8):
    """What an agent sees of its environment from the beginning, and does."""
    env, model.get_vec_normalize_env().training = model.get_env(), False
    observation, told, state = env.reset(), [], None
    for _ in range(steps):
        action, state = model.predict(observation, state, np.full(2, state is None), deterministic=True)
        told += [observation, action]
        observation, *_ = env.step(action)
    return told


INSIDE = {
    "with one where it was": lambda: stacked(VecNormalize(make_plain(), clip_obs=5.0)),
    "without one": lambda: stacked(make_plain()),
    "with another layer": lambda: stacked(VecMonitor(make_plain())),
}


@pytest.mark.parametrize("make_env", INSIDE.values(), ids=INSIDE)
@pytest.mark.parametrize("by", ["load", "set_env"])
def test_inside_of_others_it_takes_its_place_again(make_env, by, tmp_path):
    model = taught_inside(tmp_path / "agent")
    if by == "load":
        loaded = RecurrentA2C.load(tmp_path / "agent", make_env())
    else:
        loaded = RecurrentA2C.load(tmp_path / "agent")
        loaded.set_env(make_env())
    assert layers(loaded.get_env())[:2] == ["VecFrameStack", "VecNormalize"]
    assert loaded.get_vec_normalize_env().ret_rms.var == model.get_vec_normalize_env().ret_rms.var != 1
    model.set_env(INSIDE["with one where it was"]())
    normalizer, learned = model.get_vec_normalize_env(), loaded.get_vec_normalize_env()
    normalizer.obs_rms, normalizer.ret_rms = learned.obs_rms, learned.ret_rms
    assert_same_predictions(seen_and_done(loaded), seen_and_done(model))
    loaded.learn(20)


def test_inside_of_others_it_normalizes_without_an_environment(tmp_path):
    model = taught_inside(tmp_path / "agent")
    loaded = RecurrentA2C.load(tmp_path / "agent")
    for observation in raw_observations("Box"):
        expected = model.get_vec_normalize_env().normalize_obs(observation)
        np.testing.assert_array_equal(loaded.get_vec_normalize_env().normalize_obs(observation), expected)
    loaded.save(tmp_path / "again")
    before, after = (read_checkpoint(tmp_path / name).normalization for name in ("agent", "again"))
    np.testing.assert_equal(after, before)


def test_environments_that_show_nothing_of_the_kind_are_left_alone(tmp_path):
    taught_inside(tmp_path / "agent")
    env = stacked(ENVS["VectorEnv"]())
    with pytest.raises(CheckpointError, match=r"^.* cannot be normalized \(ValueError: no layer of it shows .*\)$"):
        RecurrentA2C.load(tmp_path / "agent", env)
    assert layers(env) == ["VecFrameStack", "VecEnvAdapter"]


@EVERY_ENV
def test_an_environment_set_later_is_normalized(kind, tmp_path):
    model = taught(kind, tmp_path / "agent")
    loaded = RecurrentA2C.load(tmp_path / "agent")
    loaded.set_env(ENVS[kind]())
    observations = raw_observations(kind)
    expected = predictions(model, model.get_vec_normalize_env(), observations)
    assert_same_predictions(predictions(loaded, loaded.get_vec_normalize_env(), observations), expected)
    loaded.learn(20)
    loaded.set_env(other := VecNormalize(ENVS[kind](), **OPTIONS.get(kind, {})))  # as in SB3, from then on
    assert loaded.get_vec_normalize_env() is other
    loaded.set_env(ENVS[kind]())
    assert loaded.get_vec_normalize_env().ret_rms.var == other.ret_rms.var


def test_two_of_them_are_more_than_a_file_holds(tmp_path):
    model = make_model(VecNormalize(make_normalized()), n_steps=5)
    with pytest.warns(UserWarning, match=r"^a checkpoint cannot hold the inner VecNormalize: "):
        model.save(tmp_path / "agent")


def test_workers_cannot_share_one(tmp_path):
    with pytest.raises(ValueError, match=r"^env must be without VecNormalize, .*$"):
        A3C("RecurrentPolicy", make_normalized)
    taught("Box", tmp_path / "agent")
    with pytest.raises(CheckpointError, match=r"^.* goes with a VecNormalize, .*$"):
        A3C.load(tmp_path / "agent", make_plain)
