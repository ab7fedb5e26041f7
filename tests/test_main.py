"""The `fw-rl` command: it finds its sub-commands, and says so where there is none."""

import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from fw_rl.__main__ import COMMANDS, _exit_code, main
from fw_rl.tasks import TASKS

ROOT = Path(__file__).parents[1]


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown and summary in shown for name, summary in COMMANDS.items())


def test_the_help_fits_a_narrow_terminal(capsys):
    main(["--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) < 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_text_in_its_own_name(name, capsys):
    module = "task" if name in TASKS else name.replace("-", "_")
    assert callable(import_module(f"fw_rl.commands.{module}").main)
    assert main([name, "--help"]) == 0
    assert f"fw-rl {name}" in capsys.readouterr().out


def test_an_unknown_command_gets_one_line(capsys):
    assert main(["trian"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fw-rl: error: the command must be one of train")


def test_modules_of_the_current_directory_are_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside_me.py").write_text("raise ImportError('so it was found')")
    assert main(["retrieval", "--cell", "beside_me:own"]) == 2
    assert "beside_me cannot be imported (so it was found)" in capsys.readouterr().err


def test_the_help_imports_no_torch():
    code = "import sys; from fw_rl.__main__ import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_an_interrupt_of_which_an_import_made_another_error_is_one(capsys):
    def command():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    assert _exit_code(command, "x") == 130
    assert capsys.readouterr().out == "Interrupted.\n"


def test_an_import_that_fails_by_itself_is_not_hidden():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _exit_code(lambda: import_module("no_such_module"), "x")


def test_an_interrupt_inside_of_exec_ends_with_code_130(tmp_path):
    """Python itself would end `python -m` by a signal."""
    code = "import sys, fw_rl.__main__ as m; sys.exit(m._exit_code(lambda: exec('raise KeyboardInterrupt'), 'x'))"
    (tmp_path / "interrupted.py").write_text(code)
    command = [sys.executable, "-m", "interrupted"]
    assert subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL).returncode == 130


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--env", "Catch-16-3", "--hidden-size", "999999999999"],
        ["train", "--env", "Catch-16-3", "--n-envs", "60000000000", "--timesteps", "999999999999"],
        ["train", "--env", "Catch-999999-3"],
        ["retrieval", "--cell", "lstm", "--hidden-sizes", "999999999999"],
        ["deblur", "--inputs", "999999999999"],
        ["retrieval", "--cell", "lstm", "--examples", "999999999999"],
    ],
)
def test_settings_beyond_the_memory_of_any_machine_get_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"fw-rl {arguments[0]}: error: there is not enough memory for these settings: choose smaller ones"


def test_another_error_of_torch_is_no_lack_of_memory(monkeypatch):
    def broken(name, arguments, program):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("fw_rl.commands.task.main", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        main(["retrieval"])


PROGRAMS = ["-m fw_rl --help", "-m fw_rl retrieval --help", "-m fw_rl train --help", "train.py --help"]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.processes
def test_a_closed_pipe_ends_a_command_without_a_traceback(program):
    command = [sys.executable, *program.split()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    process.stdout.close()
    assert process.wait(60) == 1
    assert process.stderr.read() == ""


@pytest.mark.parametrize("reader", ["head -3", "true"])
@pytest.mark.processes
def test_a_reader_may_leave_the_help_of_a_training(reader):
    command = f"{shlex.quote(sys.executable)} -u train.py --help | {reader}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout.count("\n") == (3 if reader == "head -3" else 0)
