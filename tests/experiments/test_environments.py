import pytest

from fw_rl.experiments.environments import environment_id


@pytest.mark.parametrize(
    ("name", "env_id"),
    [
        ("Catch-16-3", "fw_rl/Catch-16-3-v0"),
        ("fw_rl/Catch-16-3-v0", "fw_rl/Catch-16-3-v0"),
        ("fw_rl.envs:Catch-16-3", "fw_rl/Catch-16-3-v0"),
        ("CartPole-v1", "CartPole-v1"),
        (":CartPole-v1", "CartPole-v1"),
        ("gymnasium:CartPole-v1", "gymnasium:CartPole-v1"),
    ],
)
def test_a_name_becomes_the_id_that_gymnasium_makes(name, env_id):
    assert environment_id(name) == env_id


@pytest.mark.parametrize("name", ["Catch", "Catch-3-16", "NoSuch-v0", "no_such_module:CartPole-v1"])
def test_an_unknown_one_is_told_by_its_name(name):
    with pytest.raises(ValueError, match=name):
        environment_id(name)
