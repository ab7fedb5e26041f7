"""Every public name is explained, with its parameters, and has its place on a page of the documentation."""

import importlib.util
import inspect
import re
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace

import pytest

import fw_rl

ROOT = Path(__file__).parents[1]
PACKAGES = ("fw_rl.cells", "fw_rl.memory", "fw_rl.scan", "fw_rl.agents", "fw_rl.envs", "fw_rl.fast_slow", "fw_rl.tasks")
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


def load_hooks():
    """What mkdocs runs: `docs/hooks.py`."""
    pytest.importorskip("mkdocs", reason="needs pip install 'fw-rl[docs]'")
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks


def public_names(module):
    return [(name, getattr(module, name)) for name in getattr(module, "__all__", ())]


def own_docstring(thing):
    """The docstring that stands at the thing itself: a class does not speak for those that inherit from it."""
    return vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__


def inherits(owner, name):
    return any(getattr(getattr(base, name, None), "__doc__", None) for base in owner.__mro__[1:])


def public_things(module):
    """The classes and functions that a module exports, by name."""
    for name, thing in public_names(module):
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__.startswith("fw_rl"):
            yield name, thing


def public_methods(owner):
    """The methods and properties that a class has itself, but overrides of what is explained, as functions by name."""
    for name, value in vars(owner).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        public = inspect.isfunction(function) and not name.startswith("_") and "<locals>" not in function.__qualname__
        if public and not inherits(owner, name):
            yield name, function


def lacking(module):
    for name, thing in public_things(module):
        if not own_docstring(thing):
            yield name
        if inspect.isclass(thing):
            yield from (f"{name}.{method}" for method, function in public_methods(thing) if not function.__doc__)


def section(docstring, title):
    """The names that a section of a docstring in Google's style explains."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    if f"{title}:" not in lines:
        return set()
    below = takewhile(lambda line: line.startswith("    "), lines[lines.index(f"{title}:") + 1 :])
    return {named[1] for line in below if (named := re.match(r" {4}\*{0,2}(\w+): \S", line))}


def parameters(function):
    return set(inspect.signature(function).parameters) - {"self", "cls"}


def unexplained(module):
    """What users call, with the parameters and fields that its docstring does not name."""
    for name, thing in public_things(module):
        explained = section(thing.__doc__, "Args")
        if inspect.isfunction(thing):
            yield name, parameters(thing) - explained
            continue
        fields = set(getattr(thing, "_fields", getattr(thing, "__dataclass_fields__", ())))
        if fields:
            yield name, fields - section(thing.__doc__, "Attributes") - explained
        elif "__init__" in vars(thing):
            yield name, parameters(thing.__init__) - explained
        for method, function in public_methods(thing):
            yield f"{name}.{method}", parameters(function) - section(function.__doc__, "Args")


def test_all_modules_are_looked_at():
    assert len(MODULES) > 60
    assert {"fw_rl.agents.a2c", "fw_rl.envs.catch", "fw_rl.commands.train"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_a_docstring(name):
    if name in NEEDS_RAY:
        pytest.importorskip("ray", reason="needs pip install 'fw-rl[ray]'")
    if name.startswith("fw_rl.gpu."):
        pytest.importorskip("triton", reason="needs pip install 'fw-rl[triton]'")
    module = importlib.import_module(name)
    assert module.__doc__
    assert list(lacking(module)) == []


def test_a_section_names_what_it_explains():
    docstring = """One.

    Args:
        x: Inputs, which
            go on: here.
        **kwargs: Others.

    Returns:
        y: Outputs.
    """
    assert section(docstring, "Args") == {"x", "kwargs"}
    assert section(docstring, "Attributes") == section("One.", "Args") == section(None, "Args") == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_parameter_that_users_give_is_explained(package):
    assert {name: names for name, names in unexplained(importlib.import_module(package)) if names} == {}


def test_examples_stand_where_the_pages_show_them_as_code():
    """Griffe makes code of the section `Examples:`, and a note with a quotation of one called `Example:`."""
    files = {path for folder in FOLDERS.values() for path in folder.rglob("*.py")}
    assert [path.name for path in files if re.search(r"^ *Example:$", path.read_text(), re.MULTILINE)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_on_a_page(package):
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    plain = {"State"}  # a name for a type, which the text explains
    names = {name for name, _ in public_names(importlib.import_module(package))} - plain
    of_package = {name for name in shown if name.rpartition(".")[0] == package}
    assert {f"{package}.{name}" for name in names} == of_package - {*MODULES}


def test_every_command_is_on_the_page_with_its_help(capsys):
    from fw_rl.__main__ import COMMANDS

    hooks = load_hooks()
    file = SimpleNamespace(src_uri="commands.md")
    page = hooks.on_page_markdown((ROOT / "docs" / "commands.md").read_text(), SimpleNamespace(file=file), None, None)
    assert [name for name in COMMANDS if f"usage: fw-rl {name}" not in page] == []
    assert "--learning-rate FLOAT" in page and "\x1b" not in page
    assert capsys.readouterr() == ("", "")


def test_a_notebook_is_a_page_with_its_code_outputs_and_pictures():
    page, pictures = load_hooks().notebook_page(ROOT / "docs" / "notebooks" / "attention.ipynb")
    assert page.startswith("# What the memory attends to\n")
    assert "```python\nimport gymnasium as gym\n" in page and "```text\nstep 0: key " in page
    assert "(own_environment.ipynb)" not in page and "(attention.ipynb){ download }" in page
    assert [name for name in pictures if f"]({name})" not in page] == []
    assert [picture[:4] for picture in pictures.values()] == [b"\x89PNG"]


def test_the_version_is_that_of_the_package():
    assert re.fullmatch(r"\d+\.\d+\.\d+", fw_rl.__version__)
