"""Agents are evaluated by SB3's means in environments of every kind, and take no forbidden action."""

import numpy as np
import pytest
from stable_baselines3.common import evaluation
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from fw_rl.agents import MaskedEvalCallback, Player, RecurrentPPO, evaluate_policy
from tests.agents.helpers import make_model
from tests.agents.test_masks import VECTORIZATIONS

EVERY_VECTORIZATION = pytest.mark.parametrize("vectorization", VECTORIZATIONS)
TOLD = "evaluate by fw_rl.agents.evaluate_policy or MaskedEvalCallback"


@EVERY_VECTORIZATION
@pytest.mark.filterwarnings("error")
def test_an_evaluation_is_what_a_player_earns(vectorization):
    model = make_model(VECTORIZATIONS["VecEnv"]("Discrete"))
    returns, lengths = evaluate_policy(
        model, VECTORIZATIONS[vectorization]("Discrete"), 6, return_episode_rewards=True, warn=False
    )
    assert np.array_equal(returns, Player(model).play(VECTORIZATIONS[vectorization]("Discrete"), 6))
    assert lengths == [7] * 6


@EVERY_VECTORIZATION
def test_a_callback_evaluates_in_environments_of_every_kind(vectorization):
    callback = MaskedEvalCallback(
        VECTORIZATIONS[vectorization]("Discrete"), n_eval_episodes=6, eval_freq=5, verbose=0, warn=False
    )
    model = make_model(VECTORIZATIONS[vectorization]("Discrete"), n_steps=5, learning_rate=0.0).learn(5, callback=callback)
    assert callback.last_mean_reward == Player(model).play(VECTORIZATIONS[vectorization]("Discrete"), 6).mean()


def test_without_masks_it_is_what_sb3_evaluates():
    model = RecurrentPPO("RecurrentPolicy", "CartPole-v1", n_steps=8, batch_size=8, seed=0)
    means = []
    for evaluate in (evaluate_policy, evaluation.evaluate_policy):
        model.get_env().seed(3)
        means.append(evaluate(model, model.get_env(), 4))
    assert means[0] == means[1]


def test_sb3_tells_that_it_passes_no_masks():
    model = make_model(VECTORIZATIONS["VecEnv"]("Discrete"), n_steps=5)
    observation = model.get_env().reset()
    with pytest.warns(UserWarning, match=TOLD):
        model.predict(observation)
    with pytest.warns(UserWarning, match=TOLD), pytest.raises(AssertionError):  # the environment's own
        evaluation.evaluate_policy(model, model.get_env(), 9, warn=False)
    callback = EvalCallback(VECTORIZATIONS["VecEnv"]("Discrete"), n_eval_episodes=9, eval_freq=5, verbose=0, warn=False)
    with pytest.warns(UserWarning, match=TOLD), pytest.raises(AssertionError):
        model.learn(5, callback=callback)


@pytest.mark.filterwarnings("error")
def test_where_all_is_allowed_nobody_is_told():
    model = RecurrentPPO("RecurrentPolicy", "CartPole-v1", n_steps=8, batch_size=8, seed=0)
    model.predict(model.get_env().reset())


class Evaluates(BaseCallback):
    """Evaluates within an evaluation."""

    def _on_step(self):
        self.mean, _ = evaluate_policy(self.model, VECTORIZATIONS["VecEnv"]("Discrete"), 6, warn=False)
        return True


def test_evaluations_with_masks_may_be_nested():
    inner = Evaluates()
    env = VECTORIZATIONS["VecEnv"]("Discrete")
    callback = MaskedEvalCallback(env, n_eval_episodes=6, eval_freq=5, verbose=0, warn=False, callback_after_eval=inner)
    model = make_model(VECTORIZATIONS["VecEnv"]("Discrete"), n_steps=5, learning_rate=0.0).learn(10, callback=callback)
    assert inner.mean == Player(model).play(VECTORIZATIONS["VecEnv"]("Discrete"), 6).mean()
    assert "predict" not in vars(model)


@pytest.mark.parametrize("evaluate", [lambda model, env: Player(model).play(env, 4), lambda *which: evaluate_policy(*which, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_an_evaluation_leaves_a_normalizer_as_it_was(training, evaluate):
    env = VecNormalize(make_vec_env("CartPole-v1", 2))
    model = RecurrentPPO("RecurrentPolicy", env, n_steps=8, batch_size=8, seed=0).learn(16)
    before = env.obs_rms.mean.copy(), env.ret_rms.count
    env.training = training
    evaluate(model, env)
    assert np.array_equal(env.obs_rms.mean, before[0]) and env.ret_rms.count == before[1]
    assert env.training == training


def test_a_number_of_episodes_that_cannot_be_is_refused():
    model = RecurrentPPO("RecurrentPolicy", "CartPole-v1", n_steps=8, batch_size=8)
    with pytest.raises(ValueError, match=r"^n_episodes must be at least 0, got -1$"):
        Player(model).play(model.get_env(), -1)
    with pytest.raises(ValueError, match=r"^n_eval_episodes must be at least 1, got 0$"):
        evaluate_policy(model, model.get_env(), 0)
