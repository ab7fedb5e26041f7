"""What the README and the pages of the site tell a user to type does what they say."""

import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from fw_rl.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]
FILES = ("README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))
PAGES = {page: (ROOT / page).read_text() for page in FILES}


def blocks(language, page):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", PAGES[page], flags=re.DOTALL | re.MULTILINE)


def command(marker):
    """The command under an invisible marker."""
    return re.search(rf"<!-- {marker} command -->\n```bash\n(.*?)\n```", PAGES["README.md"]).group(1)


def command_lines(page):
    """What a page tells to type into a shell, as words."""
    lines = "".join(blocks("bash", page)).replace("\\\n", " ").splitlines()
    for part in (part for line in lines for part in line.split(" && ")):
        words = shlex.split(part, comments=True)
        if words[:2] == ["python", "train.py"]:
            yield ["train", *words[2:]]
        elif words[:1] == ["fw-rl"]:
            yield words[1:]


def sentences(text):
    """The sentences of a page: its paragraphs, headings, points and cells of tables, without code and targets of links."""
    text = re.sub(r"```.*?```|<!--.*?-->", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    parts = re.split(r"\n\s*\n|\n(?=[-#|]|\d+\. )|\|", text)
    return [sentence for part in parts for sentence in re.split(r"(?<=[.!?:])\s", " ".join(part.split())) if sentence]


PAGES_WITH_CODE = [
    pytest.param(page, marks=[pytest.mark.processes] if page.startswith("docs") else [])  # most train for seconds
    for page in PAGES
    if blocks("python", page)
]


@pytest.mark.parametrize("page", PAGES_WITH_CODE)
def test_python_code_runs(page, tmp_path, monkeypatch):
    """From the top of a page to its end, as a reader does; a block with a guard is a script of its own."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, code in enumerate(blocks("python", page), start=1):
        is_script = 'if __name__ == "__main__":' in code
        exec(compile(code, f"{page}, example {number}", "exec"), {"__name__": "__main__"} if is_script else names)


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


def test_every_command_and_option_that_is_shown_exists(capsys):
    shown = {page: list(command_lines(page)) for page in PAGES}
    assert len(shown["README.md"]) >= 3
    known = {}
    for page, (name, *words) in ((page, words) for page, lines in shown.items() for words in lines):
        if name not in known and not name.startswith("-"):
            assert name in COMMANDS, page
            with suppress(SystemExit):
                main([name, "--help"])
            known[name] = set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out))
        assert {word for word in words if word.startswith("--")} <= known.get(name, {"--help"}), (page, name)


def test_tensorboard_takes_the_option_that_is_described():
    words = shlex.split(next(block for block in blocks("bash", "README.md") if block.startswith("tensorboard")))
    assert words == ["tensorboard", "--logdir", "runs"]
    asked = [sys.executable, "-m", "tensorboard.main", "--helpfull"]
    assert "--logdir" in subprocess.run(asked, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("page", ("README.md", "CONTRIBUTING.md"))
def test_links_lead_somewhere(page):
    """Those of the site are looked at by mkdocs."""
    targets = re.findall(r"\]\(([^)#]+)\)", PAGES[page])
    local = [target for target in targets if not target.startswith("http")]
    assert all((ROOT / target).exists() for target in local), local


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_sentences_end_where_paragraphs_and_cells_do():
    assert sentences("# One\n\nTwo `a.b`. Three\nfour:\n\n- Five [six](seven).\n\n| eight | nine |\n") == [
        *("# One", "Two `a.b`.", "Three four:", "- Five six.", "eight", "nine"),
    ]


def test_no_sentence_of_the_readme_is_long():
    assert [sentence for sentence in sentences(PAGES["README.md"]) if len(sentence.split()) > 30] == []
