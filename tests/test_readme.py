"""What the README tells a user to type does what it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {page: (ROOT / page).read_text() for page in ("README.md", "CONTRIBUTING.md")}


def blocks(language, page="README.md"):
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.DOTALL)


def command(marker):
    """The command under an invisible marker."""
    return re.search(rf"<!-- {marker} command -->\n```bash\n(.*?)\n```", PAGES["README.md"]).group(1)


@pytest.mark.parametrize("page", PAGES)
def test_python_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = blocks("python", page)
    assert examples
    for number, code in enumerate(examples):
        exec(compile(code, f"{page}, example {number}", "exec"), {"__name__": "__main__"})


@pytest.mark.processes
def test_the_main_command_ends_with_a_training_that_runs(tmp_path):
    *setup, train = command("main").split(" && ")
    assert setup == ["python3 -m venv .venv", ". .venv/bin/activate", "pip install -c constraints.txt -e '.[cli]'"]
    python, *words = shlex.split(train)
    assert python == "python"
    short = ["--timesteps", "2000", "--eval-episodes", "20", "--log-dir", str(tmp_path)]
    done = subprocess.run([sys.executable, *words, *short], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Greedy return over 20 episodes" in done.stdout


def test_the_test_command_ends_with_a_target_of_the_makefile():
    assert command("test").split(" && ")[-1] == "make test"
    assert re.search(r"^test:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.processes
def test_every_option_that_is_named_exists():
    commands = (["train.py"], *(["-m", "fw_rl", name] for name in ("sweep", "play", "export")))
    asked = [
        subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
        for command in commands
    ]
    known = "".join(done.stdout for done in asked)
    named = set(re.findall(r"`[^`]*?(--[a-z][a-z-]+)", PAGES["README.md"])) - {"--logdir"}
    assert named
    assert [option for option in named if option not in known] == []


def test_tensorboard_takes_the_option_that_is_described():
    words = shlex.split(next(block for block in blocks("bash") if block.startswith("tensorboard")))
    assert words == ["tensorboard", "--logdir", "runs"]
    asked = [sys.executable, "-m", "tensorboard.main", "--helpfull"]
    assert "--logdir" in subprocess.run(asked, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)\)", PAGES[page])
    local = [target for target in targets if not target.startswith("http")]
    assert all((ROOT / target).exists() for target in local), local
