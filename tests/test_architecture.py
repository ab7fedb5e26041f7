"""The house stands as `CONTRIBUTING.md` draws it: imports go one way, files are short, a name stands for one thing."""

import ast
import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"fw_rl": ROOT / "fw_rl", "fw_rl.agents": ROOT / "agents", "fw_rl.envs": ROOT / "envs"}


def module_name(package, path):
    return ".".join([package, *path.with_suffix("").parts]).removesuffix(".__init__")


HELPERS = (
    "algorithms", "arguments", "document", "files", "fork_server", "interrupts", "intervals", "kernels", "linear", "lines",
    "modules", "processes",
)  # fmt: skip
ADAPTERS = {"fw_rl.envs.previous", "fw_rl.envs.sb3", "fw_rl.envs.sb3_tensors", "fw_rl.envs.sb3_vector"}

FILES = {
    module_name(package, path.relative_to(folder)): path
    for package, folder in FOLDERS.items()
    for path in sorted(folder.rglob("*.py"))
    if not (package == "fw_rl" and path.relative_to(folder).parts[0] in ("agents", "envs"))  # which may be links
}
TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}


def imports(tree):
    """The modules of the package that a file imports, wherever it does: for types only and inside functions too.

    `from package import name` is an import of the submodule of that name if there is one, and else of `package/__init__.py`.
    Python runs the `__init__.py` of a package before any of its submodules; that is no import of the submodule's.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports must not be relative"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names}
    return found & FILES.keys()


IMPORTS = {module: imports(tree) for module, tree in TREES.items()}


def circle(graph):
    """The modules of a circle of imports, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def layer(module):
    """The layer of a module in the table of `CONTRIBUTING.md`; None for `fw_rl` itself."""
    name = module.split(".")[1] if "." in module else None
    return "helpers" if name in HELPERS else "commands" if name == "__main__" else name


def layers():
    """The layers of the table, each with those that it may import."""
    rows = re.findall(r"^\| `(\w+)` \|.*\|(.*)\|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", may_import)) for name, may_import in rows}


LAYERS = layers()


SOURCE = """
from typing import TYPE_CHECKING
import numpy
import fw_rl.files
from fw_rl import memory
from fw_rl.cells import Cell, gru
if TYPE_CHECKING:
    from fw_rl.envs.sb3 import VecEnvAdapter
def late():
    from fw_rl.agents import rllib
"""


def test_imports_are_found_wherever_they_stand():
    modules = ("agents.rllib", "cells", "cells.gru", "envs.sb3", "files", "memory")
    assert imports(ast.parse(SOURCE)) == {f"fw_rl.{module}" for module in modules}
    assert "fw_rl.envs.sb3" in IMPORTS["fw_rl.envs"]


def test_a_circle_is_found():
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_imports_go_in_a_circle():
    assert circle(IMPORTS) == []


def test_the_table_has_every_layer_and_goes_downwards():
    assert set(LAYERS) == {layer(module) for module in FILES} - {None}
    assert circle({name: may_import & LAYERS.keys() for name, may_import in LAYERS.items()}) == []
    core = {"cells", "memory", "scan", "gpu", "fast_slow", "tasks", "helpers"}
    assert all(LAYERS[name] <= core for name in core)
    assert "agents" not in LAYERS["envs"] and "commands" not in LAYERS["experiments"]


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_imports_only_what_the_table_allows(name):
    allowed = {name, *LAYERS[name]}
    beyond = [
        f"{module} imports {imported}"
        for module in FILES
        if layer(module) == name
        for imported in IMPORTS[module]
        if layer(imported) not in allowed
    ]
    assert beyond == []


def test_agents_know_of_the_envs_only_the_adapters():
    known = {imported for module in FILES if layer(module) == "agents" for imported in IMPORTS[module]}
    assert {module for module in known if layer(module) == "envs"} <= ADAPTERS


def test_the_package_itself_imports_only_the_ids_of_catch():
    for_types_only = {"fw_rl.agents"}
    assert IMPORTS["fw_rl"] == {"fw_rl.envs", "fw_rl.interrupts", "fw_rl.modules"} | for_types_only


def test_a_file_has_at_most_400_lines():
    lines = {module: len(path.read_text().splitlines()) for module, path in FILES.items() if not module.endswith("_kernels")}
    assert {module: count for module, count in lines.items() if count > 400} == {}


def test_no_two_public_classes_have_one_name():
    names = Counter(
        node.name
        for tree in TREES.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []
