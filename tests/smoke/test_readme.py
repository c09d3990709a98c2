"""What the README shows, runs: its Python as written, its commands at least parse."""

import re
import shlex
from pathlib import Path

import pytest

from pipelines.cli import VERBS, main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SKIP = "<!-- not run -->"
"""A block straight after this mark is for reading only."""
BLOCK = re.compile(rf"(?P<skip>{SKIP}\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(*languages: str) -> list[str]:
    """Return the README's blocks in the given languages that are not marked."""
    return [m["text"] for m in BLOCK.finditer(README) if m["language"] in languages and not m["skip"]]


COMMANDS = [
    line.split("#")[0].strip().removeprefix("$ ")
    for text in blocks("", "sh", "bash", "console")
    for line in text.replace("\\\n", " ").splitlines()
    if line.removeprefix("$ ").startswith(("synth ", "make "))
]


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_runs_as_written(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = blocks("python")[number]
    if "brain-tiny" in text and not (ROOT / "synth" / "assets" / "brain-tiny").is_dir():
        pytest.skip("the bundled model is not here")
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words) <= set(targets)
        return
    require_options(words, capsys)


def require_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Fail unless words[0] is a verb that has every option among the words."""
    assert words[0] in VERBS
    assert main([words[0], "--help"]) == 0
    shown = capsys.readouterr().out
    missing = [w.split("=")[0] for w in words if w.startswith("--") and w.split("=")[0] not in shown]
    assert not missing, f"{' '.join(words)}: {missing} is no option of {words[0]}"


def test_files_it_names_are_here() -> None:
    named = re.findall(r"\b[A-Z]+\.md\b", README)
    if (ROOT / "synth" / "assets" / "brain-tiny").is_dir():  # its pictures are made by the bundled model
        named += re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert not [name for name in named if not (ROOT / name).exists()]
