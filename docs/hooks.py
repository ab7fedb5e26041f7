"""What mkdocs adds to the pages: the help texts of the commands, and the pictures and numbers of `results/`."""

import io
from contextlib import redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch

from mkdocs.structure.files import File

from fw_rl.__main__ import COMMANDS, main

RESULTS = Path(__file__).parents[1] / "results"


def help_text(command):
    """What `fw-rl COMMAND --help` prints, without colours."""
    shown = io.StringIO()
    with patch.dict("os.environ", COLUMNS="80", NO_COLOR="1"), redirect_stdout(shown), suppress(SystemExit):
        main([command, "--help"])
    return shown.getvalue().strip()


def on_files(files, config):
    """The pages of `docs/results` show what lies in `results/`."""
    for path in sorted(RESULTS.rglob("*")):
        if path.is_file() and path.suffix != ".md":
            files.append(File.generated(config, f"results/{path.relative_to(RESULTS).as_posix()}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Every command with its help text, where the page on commands asks for them."""
    if page.file.src_uri != "commands.md":
        return markdown
    sections = (f"## fw-rl {name}\n\n```text\n{help_text(name)}\n```" for name in COMMANDS)
    return markdown.replace("<!-- help of all commands -->", "\n\n".join(sections))
