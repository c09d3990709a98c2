"""Parts of a benchmark's result, each kept as soon as it is found: the same command goes on where it was cut off."""

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from synth.generator import software
from synth.io import write_bytes

ROOT = Path(__file__).parents[1]
_STARTED = time.monotonic()


class Kept:
    """The parts of one result, in WORK/parts-NAME.json; those of other options or other code are begun anew."""

    def __init__(self, work: Path, options: Any, name: str) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.path = work / f"parts-{name}.json"
        asked = {name: value for name, value in asdict(options).items() if name not in ("work", "out")}
        self.asked = json.loads(json.dumps({**asked, "code": code(), "software": software()}, default=str))
        self.parts: dict[str, Any] = {}
        if self.path.is_file():
            before = json.loads(self.path.read_text())
            if before["asked"] == self.asked:
                self.parts = before["parts"]
                say(f"going on: {', '.join(self.parts) or 'nothing'} of {self.path} is there")
            else:
                say(f"{self.path} is of other options or other code: begun anew")

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """Return a part: as it was kept, or as `make` finds it."""
        if name not in self.parts:
            say(name)
            self.put(name, make())
        return self.parts[name]

    def put(self, name: str, value: Any) -> None:
        """Keep a part, as JSON gives it back."""
        self.parts[name] = json.loads(json.dumps(value))
        write_bytes(self.path, (json.dumps({"asked": self.asked, "parts": self.parts}) + "\n").encode())


def code() -> str:
    """Return the sha256 of the code that is measured."""
    whole = hashlib.sha256()
    for room in ("synth", "evaluation", "pipelines", "benchmarks"):
        for path in sorted((ROOT / room).rglob("*.py")):
            whole.update(f"{path.relative_to(ROOT)} ".encode() + path.read_bytes())
    return whole.hexdigest()


def say(text: str) -> None:
    """Tell on standard error how far a benchmark is."""
    print(f"[{time.monotonic() - _STARTED:7.0f} s] {text}", file=sys.stderr, flush=True)


def command_line(module: str, **places: Path | None) -> str:
    """Return the command that was typed, each of the places by its name: WORK for a scratch folder."""
    names = {str(place): name for name, place in places.items()}
    return " ".join(["python", "-m", f"benchmarks.{module}", *(names.get(word, word) for word in sys.argv[1:])])


def write_result(out: Path, work: Path, result: Mapping[str, Any]) -> str:
    """Write the JSON, without the scratch folder's path, and return its text."""
    whole = re.compile(re.escape(str(work)) + r"(?=[/\s\"'])")
    text = whole.sub("WORK", json.dumps(result, indent=1, default=str))
    write_bytes(out, (text + "\n").encode())
    return text
