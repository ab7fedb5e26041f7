"""With `overlap` an agent learns from a rollout while it collects the next one, and nothing else changes."""

import threading

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch.testing import assert_close

from fw_rl.agents import A3C, RecurrentA2C, RecurrentPPO, read_checkpoint
from tests.agents.helpers import Recall, Scripted, make_model, rollouts_of, same_parameters, scripted_envs
from tests.agents.test_checkpoint import SaveAt, all_of, assert_same, catch, disturb, make_agent

SCRIPTS = [((3, "terminated"), (6, "truncated")), ((5, "terminated"), (2, "truncated")), ((40, "terminated"),)]


def scripted():
    return DummyVecEnv(scripted_envs(SCRIPTS))


def make_ppo(env=None, agent_class=RecurrentPPO, **kwargs):
    settings = dict(n_steps=6, batch_size=6, n_epochs=2, anneal=False, seed=0, device="cpu", overlap=True)
    policy_kwargs = dict(cell="gru", hidden_size=8, encoder_arch=(6,))
    return agent_class("RecurrentPolicy", env or Recall(4), policy_kwargs=policy_kwargs, **settings | kwargs)


def parameters_of(policy):
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


class Noting(RecurrentA2C):
    """Notes the parameters after each update, and what it learned from."""

    def train(self):
        rollout = self.rollout_buffer
        self.noted = [*getattr(self, "noted", []), (parameters_of(self.policy), rollout.log_probs, next(rollout.sequences()))]
        super().train()


class Acting(BaseCallback):
    """The parameters that act at every step, by rollouts, and the thread and the name of every call."""

    def __init__(self):
        super().__init__()
        self.acted, self.calls, self.threads = [], [], set()

    def _on_rollout_start(self):
        self.acted.append([])
        self._note("rollout start")

    def _on_step(self):
        self.acted[-1].append(parameters_of(self.model._actor))
        self._note("step")
        return True

    def _on_rollout_end(self):
        self._note("rollout end")

    def _note(self, name):
        self.calls.append((name, self.model.num_timesteps))
        self.threads.add(threading.current_thread())


@pytest.mark.parametrize("cell, options", [("fast-weights", dict(window=3)), ("gru", {}), ("lru-delta-net", {})])
@pytest.mark.parametrize("wrap", [lambda env: env, VecNormalize], ids=["plain", "VecNormalize"])
def test_without_learning_both_ways_collect_the_same(wrap, cell, options):
    one, other = (
        rollouts_of(make_model(wrap(scripted()), cell, cell_kwargs=options, n_steps=5, learning_rate=0.0, overlap=overlap), 5)
        for overlap in (False, True)
    )
    for ours, theirs in zip(one, other, strict=True):
        assert_same(vars(ours), vars(theirs))


def test_a_rollout_is_one_update_old():
    model = make_model(Recall(4), n_steps=6, overlap=True, agent_class=Noting)
    acting = Acting()
    model.learn(6 * 4 * 5, callback=acting)
    learned_by = [parameters for parameters, _, _ in model.noted]
    assert len(learned_by) == len(acting.acted) == 5
    assert not any(torch.equal(a, b) for a, b in zip(learned_by, learned_by[1:], strict=False))
    for rollout, acted in enumerate(acting.acted):
        assert all(torch.equal(step, learned_by[max(rollout - 1, 0)]) for step in acted)


def test_it_learns_from_what_the_policy_that_acted_said():
    model = make_model(Recall(4), n_steps=6, overlap=True, agent_class=Noting, anneal=False)
    model.learn(6 * 4 * 4)
    policy = make_model(Recall(4), n_steps=6).policy
    learned_by = [parameters for parameters, _, _ in model.noted]
    for rollout, (_, log_probs, sequences) in enumerate(model.noted[-2:], start=2):
        assert sequences.outputs is None
        torch.nn.utils.vector_to_parameters(learned_by[rollout - 1], policy.parameters())
        _, expected, _ = policy.evaluate_actions(*sequences)
        assert_close(torch.as_tensor(log_probs), expected)


@pytest.mark.parametrize("learning_rate", [0.0, 0.01])
def test_the_ratio_of_ppo_is_to_the_policy_that_acted(learning_rate):
    model = make_ppo(learning_rate=learning_rate, n_epochs=1, batch_size=100).learn(6 * 4 * 5)
    divergence = model.logger.name_to_value["train/approx_kl"]
    assert divergence > 1e-6 if learning_rate else abs(divergence) < 1e-9


def test_callbacks_are_called_as_always():
    one, other = Acting(), Acting()
    for callback, overlap in ((one, False), (other, True)):
        make_model(catch(), n_steps=4, overlap=overlap).learn(40, callback=callback)
    assert one.calls == other.calls
    assert other.threads == {threading.main_thread()}


@pytest.mark.parametrize("make", [lambda: make_ppo(), lambda: make_model(Recall(4), n_steps=6, overlap=True)], ids=["ppo", "a2c"])
def test_a_seed_fixes_everything(make):
    assert same_parameters(make().learn(200), make().learn(200))


def test_it_learns_while_it_acts():
    acts, learns = threading.Event(), threading.Event()

    class Waiting(Scripted):
        def step(self, action):
            if self.number == 0 and model.num_timesteps >= 12:  # in the second rollout
                acts.set()
                assert learns.wait(timeout=30)
            return super().step(action)

    class Meeting(RecurrentPPO):
        def train(self):
            learns.set()
            assert acts.wait(timeout=30)
            assert threading.current_thread() is not threading.main_thread()
            super().train()

    model = make_ppo(DummyVecEnv([lambda: Waiting(number=0), lambda: Waiting(number=1)]), Meeting)
    assert model.learn(24)._n_updates == 4


def test_who_asks_for_the_policy_waits_for_the_update():
    class Asking(BaseCallback):
        def _on_step(self):
            policy, updates = self.model.policy, self.model._n_updates
            assert updates == (self.num_timesteps - 1) // 24
            assert torch.equal(parameters_of(policy), parameters_of(self.model.policy))
            return True

    model = make_model(Recall(4), n_steps=6, overlap=True).learn(6 * 4 * 3, callback=Asking())
    assert model._n_updates == model.logger.name_to_value["train/n_updates"] == 3


def test_what_train_sets_is_kept():
    class Counting(RecurrentA2C):
        trained = 0

        def train(self):
            self.trained += 1
            super().train()

    model = make_model(Recall(4), n_steps=6, overlap=True, agent_class=Counting).learn(6 * 4 * 3)
    assert model.trained == 3
    assert "train" not in vars(model)
    assert model.rollout_buffer.full


@pytest.mark.parametrize("agent_class", [RecurrentA2C, RecurrentPPO])
def test_training_goes_on_to_the_last_bit(tmp_path, agent_class):
    sizes = dict(n_steps=6, batch_size=6, n_epochs=2) if agent_class is RecurrentPPO else dict(n_steps=6)
    half = 5 * 3 * 6

    def agent():
        return make_agent(agent_class=agent_class, overlap=True, **sizes)

    whole = agent().learn(2 * half, callback=SaveAt(tmp_path / "half", half))
    expected = all_of(whole)
    assert read_checkpoint(tmp_path / "half").counters["_n_updates"] == whole._n_updates // 2
    disturb()
    model = agent_class.load(tmp_path / "half", catch())
    model.learn(half, reset_num_timesteps=False)
    assert_same(all_of(model), expected)


@pytest.mark.parametrize("error", [OSError("the simulator is gone"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_an_error_while_acting_loses_no_update(error):
    class Failing(Scripted):
        def step(self, action):
            if model.num_timesteps == 15:
                raise error
            return super().step(action)

    model = make_ppo(DummyVecEnv([Failing]))
    with pytest.raises(type(error)) as raised:
        model.learn(100)
    assert raised.value is error
    assert model._n_updates == 4
    assert not any(thread.name.startswith("learner") for thread in threading.enumerate())
    assert same_parameters(model, make_ppo(DummyVecEnv([Scripted])).learn(12))


def test_an_error_while_learning_is_raised():
    class Diverging(RecurrentPPO):
        def train(self):
            if self.num_timesteps == 12:
                raise FloatingPointError("the loss or its gradient is not finite")
            super().train()

    model = make_ppo(DummyVecEnv([Scripted]), Diverging)
    with pytest.raises(FloatingPointError, match="the loss"):
        model.learn(100)
    assert (model.num_timesteps, model._n_updates) == (18, 2)
    assert not any(thread.name.startswith("learner") for thread in threading.enumerate())
    model.learn(6)
    assert model._n_updates == 4


def test_workers_with_environments_of_their_own_are_refused():
    with pytest.raises(ValueError, match="^overlap must be False where workers act and learn by themselves, got True$"):
        A3C("RecurrentPolicy", "CartPole-v1", overlap=True)
