"""RecurrentA2C as an SB3 algorithm: the environments it takes, its habits, and that it learns what needs a memory."""

import doctest
import re
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TransformReward
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from torch.testing import assert_close

from fw_rl.agents import RecurrentA2C, RecurrentActorCriticPolicy, RecurrentPPO, a2c
from fw_rl.envs import CatchEnv, CatchVectorEnv
from fw_rl.envs.sb3 import VecEnvAdapter
from tests.agents.helpers import (
    VECTORIZATIONS,
    Recall,
    Scripted,
    make_model,
    register_for_a_test,
    rollouts_of,
    same_parameters,
    scripted_envs,
)

MODES = list(AutoresetMode)
SCRIPTS = [((3, "terminated"), (5, "truncated")), ((2, "terminated"),)]


def catch_functions(count=3):
    return [lambda: CatchEnv(5, 2)] * count


def catch(count=3, mode=AutoresetMode.SAME_STEP):
    return CatchVectorEnv(count, 5, 2, autoreset_mode=mode)


ENVS = {
    "VecEnv": (lambda: DummyVecEnv(catch_functions()), 3),
    **{f"CatchVectorEnv {mode.value}": (lambda mode=mode: catch(mode=mode), 3) for mode in MODES},
    **{
        f"SyncVectorEnv {mode.value}": (lambda mode=mode: SyncVectorEnv(catch_functions(), autoreset_mode=mode), 3)
        for mode in MODES
    },
    "Env": (lambda: CatchEnv(5, 2), 1),
    "id": (lambda: "fw_rl/Catch-v0", 1),
}


class Written(KVWriter):
    """Keeps what is logged."""

    def __init__(self):
        self.rows = []

    def write(self, key_values, key_excluded, step=0):
        self.rows.append(dict(key_values))

    def close(self):
        pass


def logged(model, steps, **kwargs):
    """What an agent logs after each rollout."""
    written = Written()
    model.set_logger(Logger(None, [written]))
    model.learn(steps, log_interval=1, **kwargs)
    return written.rows


class Calls(BaseCallback):
    """Counts what happens, and stops at a step."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.stop_at = stop_at
        self.events = []

    def _on_training_start(self):
        self.events.append("training start")

    def _on_rollout_start(self):
        self.events.append("rollout start")

    def _on_step(self):
        self.events.append("step")
        assert {"new_obs", "rewards", "dones", "infos", "actions"} <= self.locals.keys()
        return self.n_calls != self.stop_at

    def _on_rollout_end(self):
        self.events.append("rollout end")

    def _on_training_end(self):
        self.events.append("training end")


@pytest.mark.parametrize("make_env, n_envs", ENVS.values(), ids=ENVS)
def test_it_takes_any_kind_of_environment(make_env, n_envs):
    model = make_model(make_env(), n_steps=8)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(20 * n_envs)
    assert isinstance(model.get_env(), VecEnv)
    assert model.n_envs == n_envs
    assert model.num_timesteps == 24 * n_envs
    assert any(not torch.equal(old, new) for old, new in zip(before, model.policy.parameters(), strict=True))
    actions, state = model.predict(model.get_env().reset(), state=None, deterministic=True)
    assert actions.shape == (n_envs,)
    assert len(state[0]) == n_envs


@pytest.mark.parametrize("make_env", [make_env for make_env, _ in list(ENVS.values())[1:-1]], ids=list(ENVS)[1:-1])
def test_episodes_are_monitored(make_env):
    model = make_model(make_env(), n_steps=8).learn(200)
    assert model.ep_info_buffer
    assert {info["l"] for info in model.ep_info_buffer} == {4}
    assert {info["r"] for info in model.ep_info_buffer} == {-1, 1}


def test_an_evaluation_does_not_ask_for_a_monitor():
    model = make_model(catch(), n_steps=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_policy(model, model.get_env(), n_eval_episodes=4)


def test_without_a_monitor_no_episode_is_reported():
    for env in (catch(), CatchEnv(5, 2)):
        assert not make_model(env, n_steps=8, monitor_wrapper=False).learn(100).ep_info_buffer


def test_the_way_an_environment_resets_itself_does_not_matter():
    models = [make_model(catch(mode=mode), n_steps=7).learn(200) for mode in MODES]
    assert all(same_parameters(models[0], model) for model in models[1:])


def test_sb3_and_gymnasium_vectors_teach_the_same():
    models = [make_model(vectorize(catch_functions()), n_steps=7).learn(200) for vectorize in VECTORIZATIONS.values()]
    assert all(same_parameters(models[0], model) for model in models[1:])


@pytest.mark.parametrize(
    "action_space",
    [
        spaces.Box(-0.5, 0.5, (2,), np.float32),
        spaces.Box(np.array([0.0, -1.0]), np.array([0.1, 3.0]), dtype=np.float64),
        spaces.Box(-1, 1, (2, 2), np.float32),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
    ],
    ids=["Box", "Box of float64", "Box of two dimensions", "MultiDiscrete", "MultiBinary"],
)
def test_it_plays_with_actions_of_any_space(action_space):
    model = make_model(DummyVecEnv(scripted_envs(SCRIPTS, action_space=action_space)), n_steps=5)
    first, second = rollouts_of(model, 2)
    assert first.actions.shape[:2] == (5, 2)
    assert not torch.equal(first.actions, second.actions)


class Pictures(gym.ObservationWrapper):
    """What a Scripted shows, as a picture and as a dictionary."""

    def __init__(self, env, as_dict):
        super().__init__(env)
        self.as_dict = as_dict
        picture = spaces.Box(0, 255, (36, 36, 3), np.uint8)
        self.observation_space = spaces.Dict(dict(picture=picture, step=spaces.Discrete(9))) if as_dict else picture

    def observation(self, observation):
        picture = np.zeros((36, 36, 3), np.uint8)
        picture[int(observation[2])] = 255
        return dict(picture=picture, step=int(observation[2])) if self.as_dict else picture


@pytest.mark.parametrize("vectorize", VECTORIZATIONS.values(), ids=VECTORIZATIONS)
@pytest.mark.parametrize("as_dict", [False, True], ids=["picture", "dictionary"])
def test_it_plays_with_pictures_and_dictionaries(as_dict, vectorize):
    extractor = CombinedExtractor if as_dict else NatureCNN
    env = vectorize([lambda script=script: Pictures(Scripted(script), as_dict) for script in SCRIPTS])
    model = make_model(env, n_steps=4, policy_kwargs=dict(features_extractor_class=extractor))
    model.learn(16)
    actions, _ = model.predict(model.get_env().reset())
    assert actions.shape == (2,)
    observation, _ = Pictures(Scripted(), as_dict).reset()
    assert np.shape(model.predict(observation)[0]) == ()


def test_it_plays_with_normalized_observations_and_rewards():
    model = make_model(VecNormalize(DummyVecEnv(scripted_envs(SCRIPTS))), n_steps=5)
    rollouts = rollouts_of(model, 6)
    assert rollouts[-1].observations.abs().max() < 10
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())


def test_callbacks_see_every_step():
    calls = Calls()
    make_model(catch(), n_steps=4).learn(20, callback=calls)
    rollout = ["rollout start", *["step"] * 4, "rollout end"]
    assert calls.events == ["training start", *rollout, *rollout, "training end"]
    assert calls.num_timesteps == 24


@pytest.mark.parametrize("stop_at", [1, 4, 6])
def test_a_callback_stops_the_training(stop_at):
    calls, model = Calls(stop_at), make_model(catch(), n_steps=4)
    model.learn(1000, callback=calls)
    assert model.num_timesteps == 3 * stop_at
    assert model._n_updates == (stop_at - 1) // 4
    assert calls.events.count("step") == stop_at
    assert calls.events[-1] == "training end"


def test_callbacks_of_sb3():
    model = make_model(catch(), n_steps=4)
    model.learn(10_000, callback=StopTrainingOnMaxEpisodes(2))
    assert model.num_timesteps == 3 * 4 * 2
    evaluation = EvalCallback(VecEnvAdapter(catch(2)), n_eval_episodes=4, eval_freq=5, verbose=0, warn=False)
    make_model(catch(), n_steps=4).learn(60, callback=[evaluation, Calls()])
    assert evaluation.n_calls == 20
    assert -1 <= evaluation.best_mean_reward <= 1


def test_it_logs_under_the_names_of_sb3():
    theirs = logged(A2C("MlpPolicy", CatchEnv(5, 2), n_steps=5), 25)
    ours = logged(make_model(CatchEnv(5, 2), n_steps=5), 25)
    assert len(theirs) == len(ours) == 5
    assert theirs[-1].keys() <= ours[-1].keys()
    for row in ours[1:]:
        assert all(np.isfinite(row[name]) for name in row)
    assert [row["time/total_timesteps"] for row in ours] == [5, 10, 15, 20, 25]
    assert [row.get("train/n_updates") for row in ours] == [None, 1, 2, 3, 4]


def test_what_it_logs_is_what_happened():
    model = make_model(catch(), n_steps=8, learning_rate=0.0)
    logged(model, 200)
    values = model.logger.name_to_value
    assert -np.log(3) <= values["train/entropy_loss"] <= 0
    _, returns, predicted = (part.flatten() for part in model.rollout_buffer.targets[:3])
    unexplained = (returns - predicted).var() / returns.var()
    assert values["train/explained_variance"] == pytest.approx(1 - unexplained.item(), abs=1e-4)
    assert values["train/value_loss"] >= 0
    assert values["train/grad_norm"] > 0


def test_it_logs_what_the_memory_did_on_the_rollout():
    model = make_model(DummyVecEnv(scripted_envs(SCRIPTS)), "fast-weights", n_steps=6)
    (row,) = logged(model, 12)
    rollout = model.rollout_buffer
    fresh = make_model(DummyVecEnv(scripted_envs(SCRIPTS)), "fast-weights", n_steps=6).policy
    with torch.no_grad():
        expected = fresh.cell.diagnostics(fresh.encode(rollout.observations), rollout.states[0], rollout.episode_starts)
    assert {name: value for name, value in row.items() if name.startswith("rollout/memory/")} == pytest.approx(
        {f"rollout/memory/{name}": value for name, value in expected.items()}
    )
    (row,) = logged(make_model(catch(), "gru", n_steps=6), 18)
    assert not any(name.startswith("rollout/memory/") for name in row)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_net_that_has_diverged_is_reported_in_one_line(number):
    model = make_model(catch(), n_steps=4)
    with torch.no_grad():
        model.policy.actor_cell.core.weight_hh_l0.fill_(number)
    with pytest.raises(FloatingPointError, match=r"^the memory's output is not finite after 12 frames: .*$"):
        model.learn(100)


@pytest.mark.parametrize(
    "kwargs, expected",
    [
        (dict(learning_rate=0.5), [0.5] * 5),
        (dict(learning_rate=0.5, anneal=True), [0.5 * (1 - done / 5) for done in range(1, 6)]),
        (dict(learning_rate=lambda left: 0.1 + left**2), [0.1 + (1 - done / 5) ** 2 for done in range(1, 6)]),
        (dict(learning_rate=lambda left: 0.1 + left**2, anneal=True), [0.1 + (1 - done / 5) ** 2 for done in range(1, 6)]),
    ],
    ids=["constant", "annealed", "schedule", "schedule, annealed"],
)
def test_learning_rates(kwargs, expected):
    model = make_model(catch(2), n_steps=4, **kwargs)
    used, step = [], model.policy.optimizer.step

    def spy():
        used.append(model.policy.optimizer.param_groups[0]["lr"])
        model.policy.optimizer.param_groups[0]["lr"] = 0.0
        step()

    model.policy.optimizer.step = spy
    model.learn(40)
    np.testing.assert_allclose(used, expected, rtol=1e-6, atol=1e-9)


def test_an_annealed_learning_rate_never_turns_negative():
    model = make_model(catch(2), n_steps=16, learning_rate=0.5, anneal=True)
    model.learn(33)
    assert model.num_timesteps == 64
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.0


def test_a_seed_fixes_everything():
    def trained(seed):
        return make_model(catch(), n_steps=5, seed=seed).learn(60)

    assert same_parameters(trained(3), trained(3))
    assert not same_parameters(trained(3), trained(4))
    assert not same_parameters(make_model(catch(), seed=3), make_model(catch(), seed=4))


def test_two_halves_are_the_whole():
    settings = dict(n_steps=5, cell="fast-weights", cell_kwargs=dict(window=3))
    whole = make_model(DummyVecEnv(scripted_envs(SCRIPTS)), **settings).learn(80)
    halves = make_model(DummyVecEnv(scripted_envs(SCRIPTS)), **settings).learn(30)
    halves.learn(50, reset_num_timesteps=False)
    assert halves.num_timesteps == whole.num_timesteps == 80
    assert halves._n_updates == whole._n_updates == 8
    assert same_parameters(whole, halves)


def test_learning_again_begins_new_episodes_with_a_fresh_memory():
    model = make_model(DummyVecEnv(scripted_envs(SCRIPTS)), n_steps=4, learning_rate=0.0).learn(8)
    (rollout,) = rollouts_of(model, 1)
    assert model.num_timesteps == 8
    assert rollout.episode_starts[0].all()
    assert rollout.observations[0, :, 2].tolist() == [0, 0]
    with torch.no_grad():
        fresh, _ = model.policy.remember(
            rollout.observations[:1], model.policy.initial_state(2), torch.zeros(1, 2, dtype=torch.bool)
        )
    assert_close(rollout.outputs[:1], fresh)


@pytest.mark.parametrize("make_env", [lambda: catch(3), lambda: DummyVecEnv(catch_functions(3))], ids=["VectorEnv", "VecEnv"])
@pytest.mark.parametrize("reset", [True, False])
def test_another_environment_of_as_many_games(make_env, reset):
    model = make_model(catch(3), n_steps=5).learn(30)
    model.set_env(make_env())
    (rollout,) = rollouts_of(model, 1, reset_num_timesteps=reset)
    assert rollout.episode_starts[0].all()
    assert model.num_timesteps == (15 if reset else 45)


def test_another_environment_of_other_size_is_refused():
    model = make_model(catch(3))
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model.set_env(CatchVectorEnv(3, 6, 2))
    with pytest.raises(AssertionError, match="number of environments"):
        model.set_env(catch(4))


def test_the_optimizer_is_chosen_by_name():
    default = make_model(catch()).policy.optimizer
    rmsprop = make_model(catch(), optimizer="rmsprop").policy.optimizer
    adam = make_model(catch(), optimizer="adam").policy.optimizer
    assert type(rmsprop) is torch.optim.RMSprop
    assert (rmsprop.defaults["alpha"], rmsprop.defaults["eps"]) == (0.99, 1e-5)
    assert type(default) is type(adam) is torch.optim.Adam
    assert adam.defaults["eps"] == 1e-5


def test_an_optimizer_of_one_s_own():
    chosen = dict(optimizer_class=torch.optim.SGD, optimizer_kwargs=dict(momentum=0.5))
    optimizer = make_model(catch(), policy_kwargs=chosen).policy.optimizer
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.defaults["momentum"] == 0.5


def test_an_optimizer_of_one_s_own_has_its_own_defaults():
    optimizer = make_model(catch(), policy_kwargs=dict(optimizer_class=torch.optim.Adam)).policy.optimizer
    assert type(optimizer) is torch.optim.Adam


@pytest.mark.parametrize("agent_class", [RecurrentA2C, RecurrentPPO])
def test_the_precision_is_that_of_learning_alone(agent_class):
    seen = []

    class Onlooker(RecurrentActorCriticPolicy):
        def encode(self, observations):
            seen.append((torch.is_grad_enabled(), torch.get_float32_matmul_precision()))
            return super().encode(observations)

    agent_class(Onlooker, CatchVectorEnv(8, 5, 2), n_steps=4, matmul_precision="medium", device="cpu").learn(64)
    assert set(seen) == {(False, "highest"), (True, "medium")}
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(bptt_length=0), "bptt_length must be from 1 to n_steps, which is 16, got 0"),
        (dict(bptt_length=17), "bptt_length must be from 1 to n_steps, which is 16, got 17"),
        (dict(optimizer="sgd"), "optimizer must be one of rmsprop, adam, got 'sgd'"),
        (dict(matmul_precision="low"), "matmul_precision must be one of highest, high, medium, got 'low'"),
        (dict(cell="elephant"), "cell must be one of .*, got 'elephant'"),
        (dict(cell_kwargs=dict(eta=1.0)), "an option of cell 'gru' must be one of layers, got 'eta'"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(kwargs, message):
    with pytest.raises(ValueError, match=message) as refusal:
        make_model(catch(), **kwargs)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("max_grad_norm", [0.01, 0.1, 1e9])
def test_the_gradient_is_clipped_to_its_norm(max_grad_norm):
    plain = dict(optimizer_class=torch.optim.SGD, optimizer_kwargs={})
    model = make_model(
        DummyVecEnv(scripted_envs(SCRIPTS)),
        n_steps=5,
        learning_rate=1.0,
        max_grad_norm=max_grad_norm,
        policy_kwargs=plain,
    )
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(10)
    moved = torch.cat([(new - old).flatten() for old, new in zip(before, model.policy.parameters(), strict=True)]).norm().item()
    norm = model.logger.name_to_value["train/grad_norm"]
    assert norm > 0.2
    assert moved == pytest.approx(min(norm, max_grad_norm), rel=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("cell", ["fast-weights", "rnn", "lstm", "gru"])
def test_it_learns_on_a_gpu(cell):
    model = make_model(DummyVecEnv(scripted_envs(SCRIPTS)), cell, n_steps=5, device="cuda")
    model.learn(100)
    assert {parameter.device.type for parameter in model.policy.parameters()} == {"cuda"}
    observation, state = np.zeros((2, 3), dtype=np.float32), None
    for _ in range(3):
        actions, state = model.predict(observation, state, episode_start=state is None)
    assert isinstance(actions, np.ndarray)
    assert all(isinstance(part, np.ndarray) for part in state)


def test_the_documentation_is_true():
    result = doctest.testmod(a2c)
    assert result.attempted
    assert not result.failed


def taught_to_recall(cell):
    sizes = dict(hidden_size=32, encoder_arch=(32,))
    model = make_model(Recall(64), cell, n_steps=6, learning_rate=0.01, policy_kwargs=sizes)
    return model.learn(64 * 6 * 100)


@pytest.mark.parametrize("cell", ["fast-weights", "rnn", "lstm", "gru"])
def test_a_cell_learns_to_recall(cell):
    model = taught_to_recall(cell)
    assert np.mean([info["r"] for info in model.ep_info_buffer]) > 0.9
    mean_reward, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=256, warn=False)
    assert mean_reward > 0.95


def test_without_a_memory_there_is_nothing_to_recall(monkeypatch):
    register_for_a_test(monkeypatch)
    model = taught_to_recall("memoryless")
    mean_reward, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=512, warn=False)
    assert mean_reward < 0.5


class WithoutVelocities(gym.ObservationWrapper):
    """CartPole that shows where the cart and the pole are, and not how they move."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Box(-2.0, 2.0, (2,), np.float32)

    def observation(self, observation):
        position, _, angle, _ = observation
        return np.array([position / 2.4, angle / 0.2], dtype=np.float32)


def taught_to_balance(cell, seed):
    def balancing():
        return TransformReward(WithoutVelocities(gym.make("CartPole-v1")), lambda reward: 0.05 * reward)

    model = make_model(
        SyncVectorEnv([balancing] * 16, autoreset_mode=AutoresetMode.SAME_STEP),
        cell,
        optimizer="adam",
        ent_coef=0.001,
        gae_lambda=0.95,
        policy_kwargs=dict(hidden_size=64, encoder_arch=(64,)),
        seed=seed,
    )
    return model.learn(500_000)


@pytest.mark.slow
def test_balancing_without_velocities_needs_a_memory(monkeypatch):
    register_for_a_test(monkeypatch)
    rewards = {}
    for cell in ("gru", "memoryless"):
        env = DummyVecEnv([lambda: WithoutVelocities(gym.make("CartPole-v1"))] * 10)
        env.seed(1)
        rewards[cell], _ = evaluate_policy(taught_to_balance(cell, seed=0), env, n_eval_episodes=30, warn=False)
    assert rewards["gru"] > 400
    assert rewards["memoryless"] < 150


def test_the_memory_metrics_encode_some_observations_at_a_time(monkeypatch):
    seen = []
    model = make_model(CatchVectorEnv(100, n=5, m=2), "fast-weights", n_steps=8)
    model.set_logger(Logger(None, [Written()]))
    encode = model.policy.encode
    monkeypatch.setattr(model.policy, "encode", lambda part, **kwargs: (seen.append(part.shape[:2]), encode(part, **kwargs))[1])
    model.learn(800, log_interval=None)
    seen.clear()
    model.dump_logs()
    assert seen == [(2, 100)] * 4


def test_nothing_is_computed_for_a_log_that_nobody_sees(monkeypatch):
    model = make_model(catch(), "fast-weights", n_steps=8)
    monkeypatch.setattr(model.policy.cell, "diagnostics", lambda *_: pytest.fail("nobody sees them"))
    model.learn(64)


@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (None, 2)])
def test_torch_has_one_thread_in_learn_unless_told_otherwise(threads, expected):
    inside = []
    model = make_model(catch(), n_steps=4, threads=threads)
    torch.set_num_threads(2)
    try:
        model.learn(16, callback=lambda *_: bool(inside.append(torch.get_num_threads())) or True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert set(inside) == {expected}


def test_settings_of_the_optimizer_itself_come_first():
    chosen = make_model(catch(), optimizer_eps=1e-3, policy_kwargs=dict(optimizer_kwargs=dict(eps=1e-2, weight_decay=0.1)))
    usual = make_model(catch(), optimizer_eps=1e-3)
    assert (chosen.policy.optimizer.defaults["eps"], chosen.policy.optimizer.defaults["weight_decay"]) == (1e-2, 0.1)
    assert usual.policy.optimizer.defaults["eps"] == 1e-3


def test_the_entropy_weight_does_not_change_its_sign():
    model = make_model(catch(), n_steps=8, ent_coef=0.1, anneal_entropy=True)
    weights = []
    for progress in (1.0, 0.25, 0.0, -1.2):
        model._current_progress_remaining = progress
        weights.append(model._entropy_weight)
    assert weights == pytest.approx([0.1, 0.025, 0.0, 0.0])


@pytest.mark.parametrize(
    "argument, message",
    [
        (dict(threads=0), "threads must be at least 1, got 0"),
        (dict(threads=1.5), "threads must be of type int | None, got 1.5"),
        (dict(gamma=1.01), "gamma must be between 0 and 1, got 1.01"),
        (dict(gae_lambda=float("nan")), "gae_lambda must be between 0 and 1, got nan"),
        (dict(max_grad_norm=0), "max_grad_norm must be above 0, got 0"),
        (dict(ent_coef="auto"), "ent_coef must be of type float, got 'auto'"),
        (dict(n_steps=1.5), "n_steps must be of type int, got 1.5"),
        (dict(norm_reward="no"), "norm_reward must be of type bool, got 'no'"),
        (dict(policy_kwargs=dict(hidden_size="64")), "hidden_size must be of type int, got '64'"),
        (dict(policy_kwargs=dict(shared_cell="no")), "shared_cell must be of type bool, got 'no'"),
        (dict(policy_kwargs=dict(encoder_arch=64)), "encoder_arch must be a list of sizes, whole numbers from 1, got 64"),
        (dict(policy_kwargs=dict(encoder_arch=[0])), "encoder_arch must be a list of sizes, whole numbers from 1, got [0]"),
        (
            dict(policy_kwargs=dict(net_arch=dict(vf=[0.5]))),
            "net_arch must be a list of sizes, whole numbers from 1, got [0.5]",
        ),
        (
            dict(policy_kwargs=dict(net_arch=dict(policy=[64]))),
            "net_arch must be a list of sizes, or a dictionary of pi and vf, got {'policy': [64]}",
        ),
        (dict(ent_coef=float("nan")), "ent_coef must be at least 0 and finite, got nan"),
        (dict(vf_coef=-1.0), "vf_coef must be at least 0 and finite, got -1.0"),
        (dict(policy_kwargs=dict(net_arch="big")), "net_arch must be a list of sizes, whole numbers from 1, got 'big'"),
    ],
)
def test_a_number_that_is_not_allowed_is_refused(argument, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_model(catch(), **argument)


def test_advantages_are_scaled_if_so_chosen():
    scaled, plain = (make_model(catch(2), n_steps=4, normalize_advantage=chosen).learn(16) for chosen in (True, False))
    assert not same_parameters(scaled, plain)
