"""What mkdocs adds to the pages: the help texts of the commands, notebooks, and the pictures and numbers of `results/`."""

import base64
import io
import json
import re
from contextlib import redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch

from mkdocs.structure.files import File

from fw_rl.__main__ import COMMANDS, main

RESULTS = Path(__file__).parents[1] / "results"
NOTEBOOKS = Path(__file__).parent / "notebooks"


def help_text(command):
    """What `fw-rl COMMAND --help` prints, without colours."""
    shown = io.StringIO()
    with patch.dict("os.environ", COLUMNS="80", NO_COLOR="1"), redirect_stdout(shown), suppress(SystemExit):
        main([command, "--help"])
    return re.sub(r"\n{3,}", "\n\n", shown.getvalue().strip())


def notebook_page(path):
    """A notebook with its stored outputs as Markdown, and its pictures by name."""
    parts, pictures = [], {}
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source.replace(".ipynb)", ".md)") if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        outputs = cell.get("outputs", [])
        if printed := "".join(line for output in outputs for line in output.get("text", [])):
            parts.append(f"```text\n{printed.rstrip()}\n```")
        for picture in (output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})):
            name = f"{path.stem}-{len(pictures) + 1}.png"
            pictures[name] = base64.b64decode(picture)
            parts.append(f"![What the code above draws]({name})")
    parts.append(f"[This page as a notebook]({path.name}){{ download }}")
    return "\n\n".join(parts), pictures


def on_files(files, config):
    """The notebooks are pages, and the pages of `docs/results` show what lies in `results/`."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        page, pictures = notebook_page(path)
        for name, content in {f"{path.stem}.md": page, **pictures}.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    for path in sorted(RESULTS.rglob("*")):
        if path.is_file() and path.suffix != ".md":
            files.append(File.generated(config, f"results/{path.relative_to(RESULTS).as_posix()}", abs_src_path=str(path)))
    return files


def on_page_content(html, page, config, files):
    """A click on a picture shows it in its full size, and lines break where code allows it."""
    html = re.sub(r'<img [^>]*src="([^"]+)"[^>]*>', r'<a class="picture" href="\1">\g<0></a>', html)
    html = re.sub(r"(?<=<code>)[^<>]{2,120}(?=</code>)", lambda code: _with_breaks(code.group()), html)
    return re.sub(r'<div class="language-bash.*?</pre>', lambda block: _with_words(block.group()), html, flags=re.DOTALL)


def _with_words(html):
    """Words with hyphens in the text of code, such as options, stay on one line."""
    return re.sub(r"(?<![^\s>])[\w.:/-]*-[\w.:/-]*(?![^<]*>)", r'<span class="word">\g<0></span>', html)


def _with_breaks(code):
    """In code amid text a long name may break behind its dots, slashes, brackets and underscores."""
    long = re.sub(r"[^\s-]{16,}", lambda word: re.sub(r"(?<=\w)[._/(=,]+(?=[A-Za-z])", r"\g<0><wbr>", word.group()), code)
    return _with_words(long)


def on_page_markdown(markdown, page, config, files):
    """Every command with its help text, where the page on commands asks for them."""
    if page.file.src_uri != "commands.md":
        return markdown
    sections = (f"## fw-rl {name}\n\n``` {{ .text .help }}\n{help_text(name)}\n```" for name in COMMANDS)
    return markdown.replace("<!-- help of all commands -->", "\n\n".join(sections))
