"""The command of every supervised task: `retrieval`, `glimpse`, `faces`, and any other in `fw_rl.tasks.TASKS`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import fields, make_dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any

import tyro

from fw_rl.commands.command_line import fail, fault, parse
from fw_rl.experiments.checks import make_folder
from fw_rl.experiments.table import TableOptions, make_table
from fw_rl.tasks import TASKS
from fw_rl.tasks.base import Task

__all__ = ["main"]


def main(name: str, arguments: Sequence[str], program: str | None = None) -> int:
    """Run the command of a task; the exit code is 0 done, 1 after a fault, 2 bad input, 130 interrupted."""
    program = program or f"fw-rl {name}"
    task_class = resolve_name(TASKS[name].path)
    shows = {method: function for method, function in vars(task_class).items() if method.startswith("show_")}
    default = _options(task_class, {method: _summary(function) for method, function in shows.items()})
    options = parse(type(default), arguments, program, default=default)
    try:
        task = task_class(**{field.name: getattr(options, field.name) for field in fields(task_class)})
        for show in shows:
            if getattr(options, show):
                make_folder("out", options.out)
                print(getattr(task, show)(options.out))
                return 0
        text = make_table(task, options)
    except KeyboardInterrupt:
        print(f"Interrupted. The same command goes on where it was ({options.out}).")
        return 130
    except ConnectionError as error:  # of a data set that could not be downloaded
        return fail(program, error, code=1)
    except ValueError as error:
        return fail(program, error)
    except OSError as error:
        whole = f"the records in {options.out} are whole: once that is fixed, the same command goes on"
        return fault(program, error, whole)
    print(f"\n{text}\nTable, pictures and records: {options.out}")
    return 0


def _options(task_class: type[Task], shows: dict[str, str]) -> Any:
    """The default options of the command: those of a table, the fields of the task, and one for each `show_` method."""
    kind = make_dataclass(
        f"{task_class.__name__}Options",
        [(name, Annotated[bool, tyro.conf.arg(help=text)], False) for name, text in shows.items()],
        bases=(task_class, TableOptions),
        frozen=True,
        namespace={"__post_init__": lambda self: None},  # the task itself will check its fields
    )
    kind.__doc__ = (
        f"{_summary(task_class)}\n\n"
        "Each run is recorded when it ends, and not repeated: run an interrupted command again to continue it."
    )
    return kind(
        cells=tuple(task_class.rows),
        hidden_sizes=task_class.sizes,
        weight_decays=(task_class.weight_decay,),
        out=Path("runs") / task_class.name,
        log_dir=Path("runs") / task_class.name,
    )


def _summary(thing: Any) -> str:
    """The first paragraph of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n\n")[0]
