"""The command line's frame: dispatch, one-line errors, exit codes."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

import data2vec
from data2vec.cli import main as cli
from data2vec.errors import UserError


def run(monkeypatch: pytest.MonkeyPatch, command, *arguments: str) -> int:
    """Run `command` in place of every command's module."""
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: SimpleNamespace(main=command))
    return cli.main(["pretrain", *arguments])


def test_the_command_gets_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    assert run(monkeypatch, seen.append, "audio", "--out", "x") == 0
    assert seen == [["audio", "--out", "x"]]


def test_user_error_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(argv: list[str]) -> None:
        raise UserError("no such folder: ./x\n  create it")

    assert run(monkeypatch, command) == 2
    assert capsys.readouterr() == ("", "data2vec: error: no such folder: ./x create it\n")


def test_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(argv: list[str]) -> None:
        raise KeyboardInterrupt

    assert run(monkeypatch, command) == 130


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(argv: list[str]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(monkeypatch, command)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]], ids=str)
def test_help_names_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said and line in said for name, (_, line) in cli._COMMANDS.items())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == data2vec.__version__


def test_unknown_command_in_a_real_process() -> None:
    result = subprocess.run([sys.executable, "-m", "data2vec", "smell"], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("data2vec: error: unknown command 'smell'; known: pretrain")
    assert result.stderr.count("\n") == 1


def test_nobody_reads_the_output() -> None:
    """``data2vec finetune asr --help | head``: no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "data2vec", "finetune", "asr", "--help"]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")


def test_another_broken_pipe_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(argv: list[str]) -> None:
        raise BrokenPipeError("a worker's")

    with pytest.raises(BrokenPipeError, match="a worker's"):
        run(monkeypatch, command)
