"""What is asked of huggingface_hub is what the package takes, where it is installed: the other tests ask a hub of folders."""

import inspect

import pytest

from tests.experiments.fake_hub import FakeHub


@pytest.mark.parametrize("name", ["get_token", "create_repo", "upload_folder", "snapshot_download"])
def test_the_hub_of_the_tests_takes_what_the_real_one_takes(name):
    real = pytest.importorskip("huggingface_hub", reason="needs pip install 'fw-rl[hub]'")
    taken = inspect.signature(getattr(real, name)).parameters
    ours = inspect.signature(getattr(FakeHub("hub"), name)).parameters
    assert {parameter: value.kind for parameter, value in ours.items()} == {
        parameter: taken[parameter].kind for parameter in ours if parameter in taken
    }
