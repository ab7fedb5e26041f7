"""What all commands share: reading options, and reporting errors in one line."""

from __future__ import annotations

import errno
import inspect
import io
import os
import re
import shutil
import sys
import textwrap
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import is_dataclass
from importlib.util import find_spec
from typing import Annotated, Any, get_type_hints

from fw_rl.modules import reason

__all__ = ["crash", "fail", "fault", "is_out_of_memory", "missing_packages", "parse"]

PACKAGES = ("PIL", "matplotlib", "scipy", "tabulate", "tensorboard", "tqdm", "tyro", "yaml")
"""The packages of `pip install 'fw-rl[cli]'`, by the names they are imported with."""

FAULTS = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EFBIG", "EIO", "EMFILE", "ENFILE", "ENOSPC", "EPERM", "EROFS")
    if hasattr(errno, name)
)
"""Errors of the machine, even with a correct command line."""


PLAIN = {
    r"^Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)": r"\1 must be a whole number, got \2",
    r"^Error parsing (\S+): could not convert string to float: (.*)": r"\1 must be a number, got \2",
    r"^Error parsing (\S+): Could not find valid parse for arguments: \[(.*)\]": r"\1 must be as --help shows it, got \2",
    r"^Missing value for argument '(\S+)'\. Expected 1 values": r"\1 must have a value, got none",
}
"""Messages of tyro about values, and their wording here."""


def missing_packages() -> list[str]:
    """The packages that are not installed; checked before the work begins, not when a picture is drawn."""
    return [name for name in PACKAGES if find_spec(name) is None]


def fail(program: str, error: Exception | str, code: int | None = None, details: str = "") -> int:
    """Print one line that says what is wrong, after the lines of `details`; returns the exit code.

    By default it is 1 for a fault of the machine, such as a full disk, and 2 for bad input.
    """
    if isinstance(error, BrokenPipeError):  # the reader has closed the pipe, and wants no message either
        raise error
    if details:
        print(details, file=sys.stderr)
    print(f"{program}: error: {reason(error)}", file=sys.stderr)
    if code is None:
        return 1 if isinstance(error, OSError) and error.errno in FAULTS else 2
    return code


def crash(program: str, error: BaseException, go_on: str) -> int:
    """Report an error of an environment, or of other code of the user's, with its traceback; returns exit code 1.

    A ValueError of the package itself is bad input, and gets one line. A lack of memory is raised again, for `fw_rl.__main__`.
    """
    if is_out_of_memory(error):
        raise error
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if isinstance(error, ValueError) and str(frame.f_globals.get("__name__")).startswith("fw_rl."):
        return fail(program, error)
    details = "".join(traceback.format_exception(error)).rstrip()
    return fail(program, f"{type(error).__name__}: {reason(error)}; {go_on}", code=1, details=details)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. Torch raises a bare RuntimeError on the processor, and a class of its own on a GPU."""
    texts = ("can't allocate memory", "Storage size calculation overflowed", "out of memory")
    is_told = isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    return isinstance(error, MemoryError) or is_told


def fault(program: str, error: OSError, go_on: str) -> int:
    """Print one line for a machine fault during the work, with what is intact and how to continue; returns exit code 1."""
    return fail(program, f"{reason(error)}; {go_on}", code=1)


def parse(options: type, arguments: Sequence[str], program: str, **how: Any) -> Any:
    """The options of a command line, read by `tyro.cli`; SystemExit with code 2, after one line, if they are invalid.

    An empty argument is refused too: it is usually an unset variable of a script.
    """
    import tyro  # which `fw-rl --help` does not need

    shown = io.StringIO()
    try:
        _check_words(arguments)
        with redirect_stderr(shown):
            _join_lines(options)
            return tyro.cli(
                options,
                args=[*map(_at_home, arguments)],
                prog=program,
                description=_filled(inspect.getdoc(options) or ""),
                **how,
            )
    except ValueError as error:
        problem = str(error)
    except SystemExit as ended:
        if not ended.code:  # of --help
            raise
        problem = _in_one_line(shown.getvalue())
    raise SystemExit(fail(program, f"{problem} (options: {program} --help)", code=2))


def _join_lines(options: Any) -> None:
    """Join the lines of the fields' docstrings, since tyro would keep their breaks in the help."""
    import docstring_parser
    import tyro

    hints = get_type_hints(options, include_extras=True)
    bases = [base for base in reversed(options.__mro__) if is_dataclass(base)]
    texts = {
        field.arg_name: field.description or "" for base in bases for field in docstring_parser.parse_from_object(base).params
    }
    for name in hints.keys() & texts:
        hints[name] = Annotated[hints[name], tyro.conf.arg(help=" ".join(texts[name].split()))]
    options.__annotations__ = hints
    for group in filter(is_dataclass, hints.values()):
        _join_lines(group)


def _filled(text: str) -> str:
    """The paragraphs of a text, as wide as the terminal and indented, since tyro joins lines that begin with a letter."""
    width = shutil.get_terminal_size().columns
    parts = (" ".join(part.split()) for part in text.split("\n\n"))
    return "\n\n".join(textwrap.fill(part, width, initial_indent="  ", subsequent_indent="  ") for part in parts)


def _at_home(word: str) -> str:
    """Expand the home folder in --name=~/path, which no shell does."""
    name, _, value = word.partition("=")
    return f"{name}={os.path.expanduser(value)}" if word.startswith("--") and value.startswith("~") else word


def _check_words(arguments: Sequence[str]) -> None:
    option = "an argument"
    if sum(word.partition("=")[0] == "--cell-options" for word in arguments) > 1:  # of other options the last one counts
        raise ValueError("--cell-options must be given once, with all that it sets")
    for word in arguments:
        value = word
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            value = value if equals else option
        if not value.strip():
            raise ValueError(f"{option} must not be empty, got {value!r}")


def _in_one_line(box: str) -> str:
    """The message in the box that tyro draws, without its title and the help of the option."""
    _, message, *others = re.split("[─-]{5,}", re.sub("[╭╮╰╯│]", "", box))
    near = [option.group() for other in others if "Perhaps" in other and (option := re.search(r"--[\w-]+", other))]
    text = " ".join(message.split()).removesuffix(".")
    for pattern, plain in PLAIN.items():
        text = re.sub(pattern, plain, text)
    return text[:1].lower() + text[1:] + "".join(f", perhaps {option}" for option in near)
