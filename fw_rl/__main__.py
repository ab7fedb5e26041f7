"""`fw-rl COMMAND ...`, which is also `python -m fw_rl COMMAND ...`."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module

from fw_rl.commands.command_line import fail, is_out_of_memory, missing_packages
from fw_rl.interrupts import begin_work, end_work
from fw_rl.modules import reason
from fw_rl.tasks import TASKS

__all__ = ["COMMANDS", "main", "run"]

COMMANDS = {
    "train": "train an agent with memory on a Gymnasium environment",
    "sweep": "search the settings of a memory cell on an environment",
    **{name: task.summary for name, task in TASKS.items()},
    "curves": "draw the learning curves of many runs as one picture",
    "memories": "compare memory cells on many games, beside POPGym's paper",
    "figure5": "draw how fast each memory learns, from a sweep (Ba16 Figure 5)",
    "play": "watch a trained agent play, and what its memory attends to",
    "export": "write a trained agent as an ONNX file, or as a folder to share",
    "deblur": "deblur old memories with fast weights (Hinton and Plaut 1987)",
}
"""Except for the tasks, each is a module of `fw_rl.commands` whose `main(arguments, program)` returns the exit code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first word names; returns its exit code, 2 for an unknown name."""
    _complete_streams()
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        return _exit_code(_help, "fw-rl")
    if name == "--version":
        print(f"fw-rl {import_module('fw_rl').__version__}")
        return 0
    if name not in COMMANDS:
        return fail("fw-rl", f"the command must be one of {', '.join(COMMANDS)}, got {name!r}")
    return run(name, rest, program=f"fw-rl {name}")


def run(name: str, arguments: Sequence[str], program: str) -> int:
    """Run a command, called `program` in its messages; returns its exit code, 130 if it was interrupted."""
    if missing := missing_packages():
        return fail(program, f"the commands need {', '.join(missing)}: pip install 'fw-rl[cli]'")

    def command() -> int:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # as with `python -m`: for environments and cells of --env and --cell module:name
        # Imported only now: `fw-rl --help` needs neither Torch nor an environment.
        module = import_module(f"fw_rl.commands.{'task' if name in TASKS else name}")
        begin_work()
        threading.excepthook = _hear
        return int(module.main(*[name] * (name in TASKS), arguments, program=program))

    return _exit_code(command, program)


def _exit_code(command: Callable[[], int], program: str) -> int:
    """The command's exit code, 130 if it was interrupted, 1 for a machine fault.

    It is 2 if the settings need more memory than there is, which no command can know before it tries.
    """
    try:
        code = command()
    except (KeyboardInterrupt, ImportError) as error:
        if not _is_interrupt(error):
            raise
        print("Interrupted.")
        exec("")  # else `python -m` dies by SIGINT if it arose inside exec: CPython forgets it only after an exec without error
        code = 130
    except SystemExit as ended:  # of --help, or of arguments that do not parse
        code = int(ended.code or 0) if not isinstance(ended.code, str) else fail(program, ended.code, code=1)
    except BrokenPipeError:
        code = 1
    except OSError as error:
        code = fail(program, error, code=1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        code = fail(program, "there is not enough memory for these settings: choose smaller ones")
    end_work()
    threading.excepthook = threading.__excepthook__
    return _flush(program, code)


def _complete_streams() -> None:
    """Redirect streams that the caller has closed to nowhere, and let the others replace characters that they cannot encode."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (to the end of the process)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether it is a KeyboardInterrupt, or an error that a C module made of one during its import."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or _is_interrupt(error.__cause__ or error.__context__))


def _hear(failure: threading.ExceptHookArgs) -> None:
    """Print the failure of a thread, but not that a file cannot be written: the main thread reports this too."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def _flush(program: str, code: int) -> int:
    """Write what was printed; if that fails, for a full disk or since a reader such as `head` is gone, the code is 1."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at the end
        if code == 0 and not isinstance(error, BrokenPipeError):
            fail(program, f"its output cannot be written: {reason(error)}")
        return code or 1
    return code


def _help() -> int:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{summary}" for name, summary in COMMANDS.items()]
    print("usage: fw-rl COMMAND [OPTIONS]", "", *lines, "", "`fw-rl COMMAND --help` lists the options of a command.", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
