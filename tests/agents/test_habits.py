"""What users of SB3 do with an agent, its environments and its callbacks works here too, or is refused in one line."""

import copy
import inspect
import json
from functools import partial

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, LogEveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from fw_rl.agents import A3C, Player, RecurrentA2C, RecurrentActorCriticPolicy, RecurrentPPO, evaluate_policy
from fw_rl.cells import GRUCell, available_cells, make_cell, register_cell
from tests.agents.helpers import rollouts_of, same_parameters

SMALL = dict(hidden_size=8, encoder_arch=[8], net_arch=[8])


def make_agent(env="CartPole-v1", agent_class=RecurrentPPO, policy="RecurrentPolicy", cell="gru", **options):
    sizes = dict(n_steps=8, batch_size=8, n_epochs=1) if agent_class is RecurrentPPO else dict(n_steps=8)
    model = agent_class(policy, env, policy_kwargs=SMALL | dict(cell=cell), seed=0, device="cpu", **sizes | options)
    model.set_logger(configure(None, []))
    return model


class Agents(VecEnv):
    """Two environments as SuperSuit gives them to SB3: ends in uint8, and nothing to ask for attributes."""

    def __init__(self, dtype=np.uint8, asks=True, told="terminal_observation"):
        super().__init__(2, spaces.Box(-1, 1, (3,)), spaces.Discrete(2))
        self.dtype, self.asks, self.told = dtype, asks, told

    def reset(self):
        self.t, self.rng = np.zeros(2, int), np.random.default_rng(0)
        return self.rng.uniform(-1, 1, (2, 3)).astype(np.float32)

    def step_async(self, actions):
        self.actions = actions

    def step_wait(self):
        self.t += 1
        dones = self.t % np.array([3, 5]) == 0
        infos = [{"TimeLimit.truncated": True, self.told: np.zeros(3, np.float32)} if done else {} for done in dones]
        return self.rng.uniform(-1, 1, (2, 3)).astype(np.float32), np.ones(2, np.float32), dones.astype(self.dtype), infos

    def close(self):
        pass

    def get_attr(self, attr_name, indices=None):
        if not self.asks:
            raise AttributeError(attr_name)
        return [None] * 2

    def has_attr(self, attr_name):
        if not self.asks:
            raise AttributeError("has_attr")
        return False

    def set_attr(self, attr_name, value, indices=None):
        raise NotImplementedError

    def env_method(self, method_name, *arguments, indices=None, **options):
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False] * 2


@pytest.mark.parametrize("n_steps", [6, 15])
def test_ends_may_be_numbers(n_steps):
    agents = [make_agent(Agents(dtype), n_steps=n_steps, batch_size=n_steps).learn(4 * n_steps) for dtype in (bool, np.uint8)]
    for one, other in zip(*(agent.policy.parameters() for agent in agents), strict=True):
        assert torch.equal(one, other)
    played = [Player(agent).play(Agents(dtype), 6) for agent, dtype in zip(agents, (bool, np.uint8), strict=True)]
    assert sorted(played[1]) == [3, 3, 3, 5, 5, 5] and np.array_equal(*played)


def test_environments_that_cannot_be_asked_have_no_masks():
    assert make_agent(Agents(asks=False)).learn(16).num_timesteps == 16


def test_a_time_limit_without_the_last_observation_is_not_bootstrapped():
    kinds = "terminal_observation", "another"
    agents = (make_agent(Agents(told=told), norm_reward=False) for told in kinds)
    rewards = [rollouts_of(agent, 1)[0].rewards for agent in agents]
    assert (rewards[0] != 1).sum() == 3 and (rewards[1] == 1).all()


@pytest.mark.parametrize("cell", ["lru", "fast-weights", "gru"])
def test_a_state_may_go_through_json(cell):
    model, observation = make_agent(cell=cell), np.ones((1, 4), np.float32)
    _, state = model.predict(observation)
    expected = model.predict(observation, state, [False], deterministic=True)
    sent = [np.array(json.loads(json.dumps(part.tolist()))).reshape(part.shape) for part in state]
    found = model.predict(observation, tuple(sent), [False], deterministic=True)
    assert expected[0] == found[0]
    for one, other in zip(expected[1], found[1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("cell", available_cells())
def test_a_state_of_another_cell_is_refused(cell):
    model = make_agent(cell=cell)
    other = make_cell("gru" if cell == "lstm" else "lstm", 8, 5).initial_state(1)
    with pytest.raises(ValueError, match=r"^state must be of this cell, \[B, "):
        model.predict(np.ones((1, 4), np.float32), tuple(part.numpy() for part in other), [False])


def test_a_probability_takes_the_state_that_a_prediction_gave():
    model = make_agent()
    _, state = model.predict(np.zeros((2, 4), np.float32))
    starts = torch.zeros(1, 2, dtype=torch.bool)
    values, *_ = model.policy.evaluate_actions(torch.zeros(1, 2, 4), torch.zeros(1, 2), state, starts)
    assert values.shape == (1, 2)


def test_the_length_of_sequences_is_derived_anew_from_another_batch(tmp_path):
    make_agent(n_steps=32, batch_size=16).save(tmp_path / "agent")
    load = partial(RecurrentPPO.load, tmp_path / "agent", env="CartPole-v1")
    for changed, length in ((dict(batch_size=8), 8), (dict(n_steps=8), 8), (dict(batch_size=64), 32)):
        assert load(**changed).rollout_buffer.bptt_length == length
    make_agent(n_steps=32, batch_size=16, bptt_length=4).save(tmp_path / "agent")
    assert load(batch_size=8).rollout_buffer.bptt_length == 4


class AnyArguments(RecurrentActorCriticPolicy):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class Heads(nn.Module):
    """A network as SB3's documentation has it."""

    def __init__(self, features):
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = 5, 7
        self.policy_net, self.value_net = nn.Linear(features, 5), nn.Linear(features, 7)

    def forward(self, features):
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features):
        return self.policy_net(features)

    def forward_critic(self, features):
        return self.value_net(features)


class OwnHeads(RecurrentActorCriticPolicy):
    def _build_mlp_extractor(self):
        self.mlp_extractor = Heads(self.hidden_size)


@pytest.mark.parametrize("policy", [AnyArguments, OwnHeads])
def test_a_policy_of_ones_own(policy):
    model = make_agent(policy=policy).learn(16)
    assert model.policy.hidden_size == 8
    assert policy is AnyArguments or model.policy.value_net.in_features == 7


def test_a_cell_may_take_any_options():
    @register_cell("any options")
    class Any(GRUCell):
        def __init__(self, *args, decay=0.0, **kwargs):
            super().__init__(*args)
            self.decay, self.options = decay, kwargs

    cell = make_cell("any options", 3, 8, decay=0.5, other=1)
    assert (cell.decay, cell.options) == (0.5, dict(other=1))


class SetsTheRate(BaseCallback):
    def _on_rollout_start(self):
        self.model.learning_rate = 1e-5
        self.model._setup_lr_schedule()

    def _on_step(self):
        self.logger.record("own/action", float(np.mean(self.locals["actions"])))
        return True


@pytest.mark.parametrize("agent_class", [RecurrentPPO, RecurrentA2C])
def test_a_callback_sets_the_rate_and_reads_the_actions(agent_class):
    model = make_agent(agent_class=agent_class).learn(48, SetsTheRate())
    assert model.policy.optimizer.param_groups[0]["lr"] == 1e-5
    assert 0 <= model.logger.name_to_value["own/action"] <= 1


def test_a_log_amid_a_rollout_is_of_the_steps_so_far(tmp_path):
    model = make_agent(cell="fast-weights", n_steps=32, batch_size=32)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    seen = []
    model.policy.cell.diagnostics = lambda encoded, state, starts: seen.append((len(encoded), len(starts))) or {}
    model.learn(64, LogEveryNTimesteps(8))
    assert seen[:3] == [(7, 7), (15, 15), (23, 23)] and max(seen) <= (32, 32)


def test_workers_that_would_write_one_file_are_refused(tmp_path):
    make_envs = partial(make_vec_env, "CartPole-v1", 2, monitor_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"^env must be without the file of a Monitor, which all workers would write, got one"):
        A3C("RecurrentPolicy", make_envs, n_workers=2, policy_kwargs=SMALL)


def test_a_seed_may_be_one_of_numpy():
    assert make_agent(env=gym.make("CartPole-v1")).seed == 0
    model = RecurrentPPO("RecurrentPolicy", "CartPole-v1", seed=np.int64(3), n_steps=8, batch_size=8, policy_kwargs=SMALL)
    assert model.learn(8).num_timesteps == 8


class ReadsValues(BaseCallback):
    """Reads the rollout's values before they are known."""

    def __init__(self, method):
        super().__init__()
        self.errors = []
        setattr(self, method, self.read)

    def read(self):
        with pytest.raises(ValueError, match=r"^values must be read after the rollout's end, got a rollout that goes on$"):
            _ = self.model.rollout_buffer.values
        self.errors.append(1)
        return True

    def _on_step(self):
        return True


@pytest.mark.parametrize("method", ["_on_rollout_start", "_on_step"])
def test_values_are_those_of_a_whole_rollout(method):
    callback = ReadsValues(method)
    make_agent().learn(24, callback=callback)
    assert len(callback.errors) == (3 if method == "_on_rollout_start" else 24)


def test_what_cannot_be_built_is_said():
    with pytest.raises(ValueError, match=r"^env must be an environment, or an id, got None$"):
        make_agent(env=None)
    model = make_agent()
    with pytest.raises(ValueError, match=r"^state must be of this cell, \[B, 8\], \[B, 8\], got \[\[1, 8\]\]$"):
        model.predict(np.zeros(4, np.float32), state=(np.zeros((1, 8)),), episode_start=np.array([False]))
    with pytest.raises(ValueError, match=r"^state must be of this cell, \[B, 8\], \[B, 8\], got \[\]$"):
        model.predict(np.zeros(4, np.float32), state=(), episode_start=np.array([False]))


def test_another_environment_is_taken_as_that_of_a_new_agent():
    model = make_agent(monitor_wrapper=False)
    model.set_env(gym.make("CartPole-v1"))
    assert not any(model.get_env().env_is_wrapped(Monitor))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: cloudpickle.loads(cloudpickle.dumps(model))])
def test_a_copy_goes_on_as_the_agent_itself(copied):
    model = make_agent(norm_reward=False).learn(16)
    other = copied(model)
    for agent in (model, other):
        torch.manual_seed(0)
        agent.env.seed(0)
        agent.learn(16)
    assert same_parameters(model, other)


class SetsSchedule(BaseCallback):
    def _on_rollout_start(self):
        self.model.lr_schedule = lambda _: 1e-4

    def _on_step(self):
        return True


def test_a_schedule_of_a_callback_is_not_adapted():
    model = make_agent(desired_kl=10.0)
    model.learn(32, callback=SetsSchedule())
    assert model.policy.optimizer.param_groups[0]["lr"] == 1e-4


def test_positional_arguments_are_those_of_sb3_contrib():
    model = RecurrentPPO("RecurrentPolicy", "CartPole-v1", 3e-4, 16, 16, 1, 0.9, 0.8, 0.2, None, True, 0.01, 0.25, 0.75)
    assert (model.ent_coef, model.vf_coef, model.max_grad_norm) == (0.01, 0.25, 0.75)


def test_parameters_from_a_file_of_an_agent_with_a_net_of_ones_own(tmp_path):
    own = SMALL | dict(cell="gru", features_extractor_class=Doubled)
    model, other = (RecurrentPPO("RecurrentPolicy", "CartPole-v1", 1e-3, 8, 8, policy_kwargs=own) for _ in range(2))
    with pytest.warns(UserWarning, match="features_extractor_class"):
        model.save(tmp_path / "agent")
    other.set_parameters(tmp_path / "agent")
    assert same_parameters(model, other)


class Doubled(FlattenExtractor):
    def forward(self, observations):
        return 2 * super().forward(observations)


def test_a_policy_learns_the_scale_of_demonstrations():
    model = make_agent()
    seen = np.random.default_rng(0).normal(100, 2, size=(500, 4)).astype(np.float32)
    model.policy.learn_scaling(seen)
    scaled = model.policy.observation_scaling(torch.from_numpy(seen))
    assert scaled.mean(0).abs().max() < 1e-2 and (scaled.std(0) - 1).abs().max() < 1e-2
    value = model.policy.predict_values(torch.from_numpy(seen[:1]), model.policy.initial_state(1), torch.ones(1, dtype=bool))
    model.learn(8)  # whose few observations are far from these
    again = model.policy.predict_values(torch.from_numpy(seen[:1]), model.policy.initial_state(1), torch.ones(1, dtype=bool))
    assert (value - again).abs() < 0.5


def test_a_policy_alone_is_evaluated_and_looked_at():
    model = make_agent()
    mean, _ = evaluate_policy(model.policy, model.get_env(), 2, warn=False)
    assert mean > 0
    assert dict(inspect.getmembers(model.policy))["hidden_size"] == 8


def test_a_file_that_is_not_there_is_a_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^there is no file"):
        RecurrentPPO.load(tmp_path / "nothing")
