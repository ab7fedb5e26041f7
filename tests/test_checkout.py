"""A checkout whose links are text files, as on Windows and in an unpacked zip, imports, runs, installs and packs as another."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINKS = ("agents", "envs")
FOLDERS, FILES = ("fw_rl", *LINKS), ("train.py", "pyproject.toml", "README.md", "LICENSE")
PACKED = ("benchmarks", "docs", "examples", "tests")
"""What a source distribution has beside what is installed, with the files that are asked for below."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what is installed, without links."""
    root = tmp_path_factory.mktemp("checkout")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, root / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, root)
    for name in LINKS:
        (root / "fw_rl" / name).unlink(missing_ok=True)  # a source distribution has no links
        (root / "fw_rl" / name).write_text(f"../{name}")
    return root


def python(*words, folder, path=None):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def need(*packages):  # not by import: setuptools puts a distutils of its own into this process
    for name in packages:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}: pip install 'fw-rl[dev]'")


def test_the_folders_are_found_without_links(checkout):
    code = "import fw_rl.envs, importlib.util as find; print(fw_rl.envs.__file__, find.find_spec('fw_rl.agents').origin)"
    expected = [str(checkout / name / "__init__.py") for name in reversed(LINKS)]
    assert python("-c", code, folder=checkout).split() == expected


@pytest.mark.processes
def test_the_command_runs_without_links(checkout):
    assert "--cell" in python("train.py", "--help", folder=checkout)


@pytest.mark.processes
def test_it_is_installed_whole_without_links(checkout, tmp_path):
    need("pip", "setuptools")
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(tmp_path / "target"))
    python("-m", "pip", "install", *options, ".", folder=checkout)
    code = "import fw_rl.agents, fw_rl.envs; print(*fw_rl.__path__, fw_rl.agents.__file__, fw_rl.envs.__file__)"
    package = tmp_path / "target" / "fw_rl"
    expected = [package, *(package / name / "__init__.py" for name in LINKS)]
    assert python("-c", code, folder=tmp_path, path=package.parent).split() == [str(path) for path in expected]

    def content(root):  # of the package, with what the links lead to
        return {path.relative_to(root) for path in root.rglob("*.*") if path.suffix in (".py", ".yaml", ".typed")}

    linked = {Path(name) / path for name in LINKS for path in content(ROOT / name)}
    plain = {path for path in content(ROOT / "fw_rl") if path.parts[0] not in LINKS}
    assert content(package) == linked | plain


@pytest.mark.processes
def test_a_source_distribution_has_tests_docs_and_versions(checkout, tmp_path):
    need("setuptools")
    root = shutil.copytree(checkout, tmp_path / "root")
    for name in PACKED:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    files = ["CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "constraints.txt", "constraints-ray.txt", "mkdocs.yml"]
    for name in ("MANIFEST.in", *files):
        shutil.copy(ROOT / name, root)
    python("-c", "from setuptools.build_meta import build_sdist; build_sdist('dist')", folder=root)
    (archive,) = (root / "dist").iterdir()
    with tarfile.open(archive) as packed:
        members = {member.partition("/")[2] for member in packed.getnames()}
    expected = {path.relative_to(root).as_posix() for name in (*FOLDERS, *PACKED) for path in (root / name).rglob("*.py")}
    expected |= {path.relative_to(root).as_posix() for path in (root / "docs").iterdir()}
    assert {*expected, *FILES, *files} - members == set()


def test_every_folder_with_modules_is_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    places = [path.parent.relative_to(ROOT) for name in FOLDERS for path in (ROOT / name).rglob("__init__.py")]
    packages = {".".join(place.parts if place.parts[0] == "fw_rl" else ("fw_rl", *place.parts)) for place in places}
    assert set(settings["packages"]) == packages
    assert settings["package-dir"] == {f"fw_rl.{name}": name for name in LINKS}
