"""What docs/formats.md shows: its Python runs as written, its commands have the options they name."""

import shlex
from pathlib import Path

import pytest

from synth.formats import WRITERS, read
from tests.smoke.test_readme import BLOCK, ROOT, require_options

TEXT = (ROOT / "docs" / "formats.md").read_text()
PYTHON = [m["text"] for m in BLOCK.finditer(TEXT) if m["language"] == "python" and not m["skip"]]
COMMANDS = [line for m in BLOCK.finditer(TEXT) if not m["language"] for line in m["text"].splitlines() if line]


def test_python_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(PYTHON) == 1
    exec(compile(PYTHON[0], "formats.md", "exec"), {"__name__": "__main__"})
    assert read(tmp_path / "mine").label_values == {"lesion": 1}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = shlex.split(command)
    assert program == "synth"
    require_options(words, capsys)


def test_every_layout_is_told() -> None:
    for name in WRITERS:
        assert f"| `{name}` |" in TEXT


def test_the_command_names_every_layout() -> None:
    from typing import get_args

    from pipelines.generate import FormatName

    assert set(get_args(FormatName)) == set(WRITERS)
