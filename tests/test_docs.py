"""Every public name is explained, and has its place on a page of the documentation."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import fw_rl

ROOT = Path(__file__).parents[1]
PACKAGES = ("fw_rl.cells", "fw_rl.memory", "fw_rl.agents", "fw_rl.envs", "fw_rl.fast_slow")
"""What users import from."""

FOLDERS = {"fw_rl": ROOT / "fw_rl", "fw_rl.agents": ROOT / "agents", "fw_rl.envs": ROOT / "envs"}

NEEDS_RAY = {
    *("fw_rl.agents.ray_session", "fw_rl.agents.rllib", "fw_rl.agents.rllib_module"),
    "fw_rl.experiments.search.on_ray",
}

MODULES = sorted(
    {
        ".".join([package, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")
        for package, folder in FOLDERS.items()
        for path in folder.rglob("*.py")
        if path.name != "__main__.py"
    }
)


def public_names(module):
    return [(name, getattr(module, name)) for name in getattr(module, "__all__", ())]


def own_docstring(thing):
    """The docstring that stands at the thing itself: a class does not speak for those that inherit from it."""
    return vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__


def inherits(owner, name):
    return any(getattr(getattr(base, name, None), "__doc__", None) for base in owner.__mro__[1:])


def lacking(module):
    for name, thing in public_names(module):
        if not (inspect.isclass(thing) or inspect.isfunction(thing)) or not thing.__module__.startswith("fw_rl"):
            continue
        if not own_docstring(thing):
            yield name
        if inspect.isclass(thing):
            for method, value in vars(thing).items():
                function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                public = inspect.isfunction(function) and not method.startswith("_") and "<locals>" not in function.__qualname__
                if public and not function.__doc__ and not inherits(thing, method):
                    yield f"{name}.{method}"


def test_all_modules_are_looked_at():
    assert len(MODULES) > 60
    assert {"fw_rl.agents.a2c", "fw_rl.envs.catch", "fw_rl.commands.train"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_a_docstring(name):
    if name in NEEDS_RAY:
        pytest.importorskip("ray", reason="needs pip install 'fw-rl[ray]'")
    module = importlib.import_module(name)
    assert module.__doc__
    assert list(lacking(module)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_on_a_page(package):
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    plain = {"State"}  # a name for a type, which the text explains
    names = {name for name, _ in public_names(importlib.import_module(package))} - plain
    assert {f"{package}.{name}" for name in names} == {name for name in shown if name.rpartition(".")[0] == package}


def test_every_command_is_on_the_page():
    from fw_rl.__main__ import COMMANDS
    from fw_rl.tasks import TASKS

    page = (ROOT / "docs" / "commands.md").read_text()
    assert "::: fw_rl.tasks.TASKS" in page  # which are commands too
    assert [name for name in COMMANDS if name not in TASKS and f"fw-rl {name}" not in page] == []


def test_the_version_is_that_of_the_package():
    assert re.fullmatch(r"\d+\.\d+\.\d+", fw_rl.__version__)
