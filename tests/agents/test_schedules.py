"""A schedule that holds numbers comes back with its agent; a function is named before anything is learned without it."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from fw_rl.agents import CheckpointError, RecurrentA2C, RecurrentPPO
from fw_rl.agents.schedules import describe_schedule, make_schedule
from fw_rl.envs import CatchVectorEnv
from tests.agents.helpers import same_parameters

SMALL = dict(cell="gru", hidden_size=4, encoder_arch=(4,))


class SimpleLinearSchedule:
    """As rl_zoo3 has it."""

    def __init__(self, initial_value):
        self.initial_value = initial_value

    def __call__(self, progress_remaining):
        return progress_remaining * self.initial_value


SCHEDULES = {
    "constant": ConstantSchedule(0.25),
    "linear": LinearSchedule(0.5, 0.1, 0.5),
    "a number in SB3's wrapper": FloatSchedule(0.25),
    "wrapped": FloatSchedule(LinearSchedule(0.5, 0.1, 0.5)),
    "rl_zoo3's": SimpleLinearSchedule(0.3),
}
EVERY_SCHEDULE = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def catch():
    return CatchVectorEnv(2, n=5, m=2)


def make_ppo(**kwargs):
    return RecurrentPPO("RecurrentPolicy", catch(), n_steps=4, batch_size=4, n_epochs=1, policy_kwargs=SMALL, seed=0, **kwargs)


@EVERY_SCHEDULE
def test_a_schedule_comes_back(schedule):
    again = make_schedule(describe_schedule(schedule))
    for progress in (1.0, 0.75, 0.5, 0.3, 0.0):
        assert again(progress) == pytest.approx(schedule(progress), rel=1e-12)


@pytest.mark.parametrize("agent", [RecurrentA2C, RecurrentPPO])
def test_the_entropy_weight_that_is_learned_with_goes_down(agent):
    own = dict(batch_size=4, n_epochs=1, desired_kl=None) if agent is RecurrentPPO else {}

    def gradient(progress, **settings):
        model = agent("RecurrentPolicy", catch(), n_steps=4, policy_kwargs=SMALL, seed=0, learning_rate=0.0, **own, **settings)
        model.learn(8)
        model._current_progress_remaining = progress
        torch.manual_seed(0)
        model.train()
        return torch.cat([part.grad.flatten() for part in model.policy.parameters() if part.grad is not None])

    none, half = gradient(0.0, ent_coef=0.0), gradient(0.5, ent_coef=0.25)
    assert torch.equal(gradient(0.0, ent_coef=0.5, anneal_entropy=True), none)
    assert torch.equal(gradient(0.5, ent_coef=0.5, anneal_entropy=True), half)
    assert not torch.equal(none, half)


@pytest.mark.parametrize("name, limit", [("clip_range", 0.02), ("clip_range_vf", 0.1)])
def test_ppo_clips_as_far_as_its_schedule_says_now(name, limit):
    def told(progress, **settings):
        model = make_ppo(learning_rate=3e-3, desired_kl=None, target_kl=None, **settings)
        model.batch_size = 8  # so that there is nothing to clip in the one update of `learn`
        model.learn(8)
        model._current_progress_remaining, model.n_epochs = progress, 20
        torch.manual_seed(0)
        model.train()
        return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()

    now, fixed = told(0.5, **{name: LinearSchedule(limit, 0.0, 1.0)}), told(0.5, **{name: limit / 2})
    assert torch.equal(now, fixed)
    assert not torch.equal(now, told(0.5, **{name: limit}))


def test_a_function_is_no_schedule_of_numbers():
    class Own(LinearSchedule):
        def __call__(self, progress_remaining):
            return 0.0

    for value in (lambda progress: 0.1, FloatSchedule(lambda progress: 0.1), Own(1.0, 0.0, 1.0), 0.25, "linear", None):
        assert describe_schedule(value) is None
    with pytest.raises(ValueError, match=r"^there is no schedule 'os.system'$"):
        make_schedule(dict(type="os.system", command="true"))


@EVERY_SCHEDULE
def test_an_agent_loaded_without_environment_learns_with_its_schedules(schedule, tmp_path):
    make_ppo(learning_rate=schedule, clip_range=schedule, clip_range_vf=schedule).save(tmp_path / "agent")
    loaded = RecurrentPPO.load(tmp_path / "agent")
    loaded.set_env(catch())
    before = [parameter.clone() for parameter in loaded.policy.parameters()]
    loaded.learn(16)
    expected = pytest.approx(schedule(loaded._current_progress_remaining))
    assert loaded.policy.optimizer.param_groups[0]["lr"] == expected
    assert loaded._now(loaded.clip_range) == loaded._now(loaded.clip_range_vf) == expected
    assert not all(map(torch.equal, before, loaded.policy.parameters()))


def test_training_goes_on_as_with_the_number_or_schedule_of_before(tmp_path):
    model = make_ppo(learning_rate=LinearSchedule(1e-2, 1e-3, 1.0), clip_range=ConstantSchedule(0.1)).learn(16)
    model.save(tmp_path / "agent")
    model.learn(16, reset_num_timesteps=False)
    loaded = RecurrentPPO.load(tmp_path / "agent", catch()).learn(16, reset_num_timesteps=False)
    assert same_parameters(loaded, model)


FUNCTIONS = dict(learning_rate=lambda progress: 1e-3, clip_range=lambda progress: 0.1, clip_range_vf=lambda progress: 0.2)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("with_env", [True, False])
def test_a_function_is_named_where_the_agent_is_to_learn(name, with_env, tmp_path):
    model = make_ppo(**{name: FUNCTIONS[name]})
    with pytest.warns(UserWarning, match=f"^a checkpoint cannot hold {name}: "):
        model.save(tmp_path / "agent")
    lacking = f"^.*agent.zip could not hold {name}: give it to load again to learn$"
    loaded = RecurrentPPO.load(tmp_path / "agent", catch() if with_env else None)
    observation = catch().reset(seed=0)[0]
    actions = [agent.predict(observation, deterministic=True)[0] for agent in (model, loaded)]
    np.testing.assert_array_equal(*actions)
    if not with_env:
        loaded.set_env(catch())
    with pytest.raises(CheckpointError, match=lacking):
        loaded.learn(8)
    assert loaded.num_timesteps == 0

    with pytest.warns(UserWarning, match=f"^a checkpoint cannot hold {name}: "):
        loaded.save(tmp_path / "again")
    with pytest.raises(CheckpointError, match=lacking.replace("agent", "again")):
        RecurrentPPO.load(tmp_path / "again", catch()).learn(8)
    assert RecurrentPPO.load(tmp_path / "again", catch(), **{name: FUNCTIONS[name]}).learn(8).num_timesteps == 8
    assert RecurrentPPO.load(tmp_path / "again", catch(), **{name: 0.125}).learn(8).num_timesteps == 8


def test_several_functions_are_named_together(tmp_path):
    with pytest.warns(UserWarning, match="cannot hold"):
        make_ppo(**FUNCTIONS).save(tmp_path / "agent")
    with pytest.raises(CheckpointError) as error:
        RecurrentPPO.load(tmp_path / "agent", catch()).learn(8)
    assert all(name in str(error.value) for name in FUNCTIONS)


def test_arguments_of_one_s_own_are_not_replaced_by_their_defaults(tmp_path):
    class Own(RecurrentA2C):
        def __init__(self, *args, shape=None, **kwargs):
            self.shape = shape
            super().__init__(*args, **kwargs)

    with pytest.warns(UserWarning, match="^a checkpoint cannot hold shape: "):
        Own("RecurrentPolicy", catch(), shape=lambda reward: reward, policy_kwargs=SMALL).save(tmp_path / "agent")
    with pytest.raises(CheckpointError, match=r"could not hold shape: give it to load again to learn$"):
        Own.load(tmp_path / "agent", catch()).learn(8)
