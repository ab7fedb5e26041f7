"""What every command has in common: one line for what is wrong, codes, and files that are tried before the work begins."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from fw_rl import __version__, files
from fw_rl.__main__ import main
from fw_rl.commands.command_line import fail, parse
from fw_rl.experiments.callbacks import Checkpoints
from fw_rl.files import check_writable, write_file
from fw_rl.interrupts import begin_work, end_at_once, end_work, is_command_line

ROOT = Path(__file__).parents[2]
EMPTY = "must not be empty, got"


@dataclass
class Options:
    """Options of a test. This text goes on
    in a second line."""

    number: int
    """A number. This text goes on
    in a second line."""
    name: str = "a"
    """A name."""


@pytest.fixture
def full_disk(monkeypatch):
    """A function that lets the disk be full after so many files."""

    def fill(after):
        write, written = files._write, []

        def fail_in_the_end(path, content):
            written.append(path)
            if len(written) > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(path, content)

        monkeypatch.setattr(files, "_write", fail_in_the_end)

    return fill


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--number", "many"], "--number must be a whole number, got 'many'"),
        (["--number", "1", "--nme", "b"], "unrecognized options: --nme, b, perhaps --name"),
        (["--number"], "--number"),
        ([], "--number"),
        (["--number", "1", "extra"], "extra"),
        (["--number", "1", "--name", ""], f"--name {EMPTY} ''"),
        (["--number", "1", "--name", " "], f"--name {EMPTY} ' '"),
        (["--number", "1", "--name="], f"--name {EMPTY} ''"),
        ([""], f"an argument {EMPTY} ''"),
    ],
)
def test_words_that_do_not_parse_get_one_line(words, expected, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(Options, words, "program")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("program: error: ") and line.endswith(" (options: program --help)")
    assert expected in line


def test_right_words_and_the_help_are_left_to_tyro(capsys):
    assert parse(Options, ["--number", "1"], "program") == Options(1)
    assert parse(Options, ["--number", "1", "--number", "2"], "program") == Options(2)  # the last counts, as everywhere
    with pytest.raises(SystemExit) as ended:
        parse(Options, ["--help"], "program")
    assert ended.value.code == 0
    assert "A number." in capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", ["train", "curves", "deblur", "memories", "retrieval"])
def test_help_breaks_lines_only_where_they_are_full(name, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= columns
    boxed = [line[2:] for line in shown.partition(" options ")[2].splitlines() if line.strip()]
    texts = [(line, after) for line, after in pairwise(boxed) if after.startswith("  ") and not line.startswith("-")]
    words = [re.split(r"[ ,]", after.strip())[0] for _, after in texts]
    broken = [line for (line, _), word in zip(texts, words, strict=True) if len(f"{line.rstrip()} {word},") < len(line)]
    assert boxed and broken == []


def test_texts_of_docstrings_run_on_over_their_lines(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        parse(Options, ["--help"], "program")
    shown = capsys.readouterr().out
    assert "\n  Options of a test. This text goes on in a second line.\n" in shown
    assert " A number. This text goes on in a second line. (required) " in shown


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("x must be\n 1"), 2, "x must be 1"),
        (OSError(errno.ENOSPC, "full", "x.gif"), 1, "x.gif: full"),
        (OSError(errno.EROFS, "read-only", b"x.gif"), 1, "x.gif: read-only"),
        (FileNotFoundError(errno.ENOENT, "not there", "x.yaml"), 2, "x.yaml: not there"),
    ],
)
def test_a_fault_of_the_machine_is_code_1_and_bad_input_2(error, code, line, capsys):
    assert fail("program", error) == code
    assert capsys.readouterr().err == f"program: error: {line}\n"


def test_it_tells_its_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fw-rl {__version__}\n"


def test_no_word_at_all_is_the_help(capsys):
    assert main([]) == 0
    assert "usage: fw-rl COMMAND" in capsys.readouterr().out


# Files.


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path, full_disk):
    path = tmp_path / "x.gif"
    write_file(path, b"old")
    full_disk(0)
    for attempt in (lambda: write_file(path, b"new"), lambda: check_writable(path)):
        with pytest.raises(OSError, match="No space left on device") as failure:
            attempt()
        assert failure.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_to_try_a_file_does_not_make_it(tmp_path):
    check_writable(tmp_path / "new" / "x.gif")
    assert list(tmp_path.iterdir()) == [tmp_path / "new"]
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["play", "RUN", "--gif", "FILE/x.gif"],
        ["play", "RUN", "--show-attention", "FILE/x.png"],
        ["export", "RUN", "--onnx", "FILE/x.onnx"],
        ["curves", "RUN", "--out", "FILE/x.png"],
        ["figure5", "--out", "FILE/x"],
        ["deblur", "--out", "FILE/x"],
        ["retrieval", "--cell", "lstm", "--out", "FILE/x"],
        ["train", "--log-dir", "FILE/x"],
        ["sweep", "--out", "FILE/x"],
        ["memories", "--cells", "gru", "--seeds", "0", "--out", "FILE/x"],
    ],
)
@pytest.mark.parametrize("disk", ["a file in the way", "full"])
def test_outputs_are_tried_before_the_work_begins(arguments, disk, catch_run, tmp_path, monkeypatch, full_disk, capsys):
    (tmp_path / "a").write_text("a file")
    words = [word.replace("RUN", str(catch_run)).replace("FILE", "a" if disk != "full" else "b") for word in arguments]
    monkeypatch.chdir(tmp_path)
    if disk == "full":
        full_disk(0)
    assert main(words) == (1 if disk == "full" else 2)
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert ("No space left on device" if disk == "full" else "must be a f") in line


def test_a_disk_that_fills_up_amid_a_training_leaves_it_whole(tmp_path, monkeypatch, full_disk, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--env", "Catch-5-2", "--n-envs", "4", "--n-steps", "6", "--hidden-size", "8", "--timesteps", "480", "--quiet"]
    with monkeypatch.context():
        full_disk(7)
        assert main(["train", *small]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    (run,) = (tmp_path / "runs").iterdir()
    assert f"frames is whole: once that is fixed, go on with: fw-rl train --resume runs/{run.name}" in line
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--resume", f"runs/{run.name}", "--quiet", "--eval-episodes", "4"]) == 0


def test_a_folder_that_is_removed_amid_a_training_stays_away(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save = Checkpoints.save

    def remove_and_save(self):
        if self.model.num_timesteps:
            shutil.rmtree(self.folder.path)
        save(self)

    monkeypatch.setattr(Checkpoints, "save", remove_and_save)
    small = ["--env", "Catch-5-2", "--n-envs", "4", "--n-steps", "6", "--hidden-size", "8", "--timesteps", "480", "--quiet"]
    assert main(["train", *small]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the folder of the run was removed; nothing is left of runs/" in line
    assert list((tmp_path / "runs").iterdir()) == []


def test_an_output_that_cannot_be_written_is_said(monkeypatch):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fw_rl", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    (line,) = done.stderr.splitlines()
    assert (done.returncode, line[:13], line[-23:]) == (1, "fw-rl: error:", "No space left on device")


# Interrupts.


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


def test_interrupts_end_the_process_but_while_it_works(handlers):
    end_at_once()
    first = signal.getsignal(signal.SIGTERM)
    begin_work()
    for number in handlers:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    end_work()
    assert [signal.getsignal(number) for number in handlers] == [first, first]


def test_an_interrupt_amid_an_import_ends_the_process(tmp_path):
    (tmp_path / "slow.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    program = "from fw_rl.interrupts import begin_work, end_at_once; end_at_once(); begin_work(); import slow"
    command, paths = [sys.executable, "-c", program], f"{tmp_path}{os.pathsep}{ROOT}"
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "Interrupted.\n", "")


def test_a_program_that_calls_a_command_keeps_its_handlers(handlers):
    begin_work()
    end_work()
    assert {number: signal.getsignal(number) for number in handlers} == handlers


@pytest.mark.parametrize(
    ("argv", "original", "expected"),
    [
        (["/bin/fw-rl", "train"], ["python", "/bin/fw-rl", "train"], True),
        (["-m", "train"], ["python", "-m", "fw_rl", "train"], True),
        ([str(ROOT / "train.py")], ["python", str(ROOT / "train.py")], True),
        (["/home/train.py"], ["python", "/home/train.py"], False),
        (["-m"], ["python", "-m", "pytest"], False),
        (["/bin/fw-rl", "train"], ["python", "-c", "from multiprocessing.spawn import spawn_main"], False),
        ([], ["python"], False),
    ],
)
def test_only_the_command_line_is_interrupted_so(argv, original, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", original)
    assert is_command_line() is expected


def test_files_that_threads_cannot_write_are_left_to_the_main_one(monkeypatch, capfd):
    def command(arguments, program):
        for error in (OSError("full"), KeyError("a fault of ours")):
            thread = threading.Thread(target=lambda error=error: (_ for _ in ()).throw(error))
            thread.start()
            thread.join()
        return 0

    monkeypatch.setattr("fw_rl.commands.curves.main", command)
    assert main(["curves"]) == 0
    shown = capfd.readouterr().err
    assert "a fault of ours" in shown and "full" not in shown


@pytest.mark.parametrize("code, expected, said", [("bye", 1, "fw-rl train: error: bye"), (3, 3, ""), (None, 0, "")])
def test_an_exit_with_a_text_is_an_error_of_one_line(code, expected, said, monkeypatch, capsys):
    def leave(*_, **__):
        raise SystemExit(code)

    monkeypatch.setattr("fw_rl.commands.train.main", leave)
    assert main(["train"]) == expected
    assert capsys.readouterr().err.strip() == said


def test_cell_options_that_come_twice_are_refused(capsys):
    assert main(["train", "--cell-options", "eta=1", "--cell-options", "decay=0"]) == 2
    assert "--cell-options must be given once, with all that it sets" in capsys.readouterr().err


def test_the_home_folder_is_found_behind_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert parse(Options, ["--number=1", "--name=~/a"], "test").name == "/somewhere/a"


@pytest.mark.processes
def test_a_command_without_an_output_ends_as_ever():
    command = f"{sys.executable} -m fw_rl --version >&- 2>&-"
    assert subprocess.run(command, shell=True, cwd=ROOT, check=False).returncode == 0
