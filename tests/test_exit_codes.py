"""Exit codes: every way a verb can end, told in one line. A verb made for the test stands in for the real ones."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import pytest

from pipelines import cli
from synth.errors import DataError, Interrupted


def _raise(error: BaseException) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int | None]], list[str]]:
    """Install a verb `probe` that does what it is given; return the command line that runs it."""

    def install(act: Callable[[], int | None]) -> list[str]:
        @dataclass(frozen=True, kw_only=True)
        class Probe:
            """A verb."""

            count: int = 1

            def run(self) -> int | None:
                return act()

        module = ModuleType("pipelines.probe")
        module.Probe = Probe  # pyright: ignore[reportAttributeAccessIssue]
        monkeypatch.setitem(sys.modules, "pipelines.probe", module)
        monkeypatch.setitem(cli.VERBS, "probe", "a verb")
        monkeypatch.delenv("SYNTH_DEBUG", raising=False)
        return ["probe"]

    return install


ENDINGS: dict[str, tuple[Callable[[], int | None], int, str]] = {
    "done": (lambda: None, 0, ""),
    "judged and failed": (lambda: 3, 3, ""),
    "undecidable": (lambda: 4, 4, ""),
    "user": (_raise(DataError("a.nii.gz is\n empty; give a volume")), 2, "a.nii.gz is empty; give a volume"),
    "ours": (_raise(KeyError("gone")), 1, "our fault: KeyError"),
    "interrupted": (_raise(Interrupted("stopped at step 7")), 130, "stopped at step 7"),
    "ctrl-c": (_raise(KeyboardInterrupt()), 130, "run the same command again"),
    "disk full": (_raise(OSError(errno.ENOSPC, "No space left", "out/a")), 2, "the disk is full (out/a)"),
    "no permission": (_raise(PermissionError(errno.EACCES, "Permission denied", "/out")), 2, "/out: permission denied"),
    "a file as a folder": (_raise(NotADirectoryError(errno.ENOTDIR, "Not a directory", "/f")), 2, "/f: not a dir"),
    "other system error": (_raise(OSError(errno.EIO, "I/O error")), 1, "our fault"),
    "sigterm": (lambda: signal.raise_signal(signal.SIGTERM), 130, "run the same command again"),
    "sigusr1": (lambda: signal.raise_signal(signal.SIGUSR1), 130, "run the same command again"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_every_ending_has_its_code(name: str, verb: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    act, code, words = ENDINGS[name]
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)
    try:
        assert cli.main(verb(act)) == code
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGUSR1, before[1])
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert len(said.splitlines()) == (1 if words else 0)


def test_parse_errors_are_the_users(verb: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    line = verb(lambda: 0)
    assert cli.main([*line, "--count", "many"]) == 2
    assert cli.main([*line, "--cuont", "3"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert cli.main([*line, "--help"]) == 0 and "--count" in capsys.readouterr().out


def test_debugging_shows_the_traceback(verb: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    line = verb(_raise(KeyError("gone")))
    monkeypatch.setenv("SYNTH_DEBUG", "1")
    with pytest.raises(KeyError):
        cli.main(line)


def test_a_reader_that_leaves_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pipelines.cli", "cohort", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write)
    assert "Traceback" not in done.stderr


def test_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0 and capsys.readouterr().out.startswith("synth ")
