"""Commands begun in process groups of their own, killed at moments, and what came of them compared by bytes."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.keeping import ROOT, Kept, say

_TIMES = ("timing.jsonl", "tensorboard")
POLL_S = 0.02


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run: its files, and how long it took. Moments of kills are drawn over that time."""

    files: Mapping[str, str]
    seconds: float


@dataclass(frozen=True)
class Kill:
    """One kill of a live process group: seconds after its start, and what it was doing."""

    after_s: float
    stage: str


@dataclass
class Outcome:
    """What a command came to: kills that hit, starts, sets completed, the files that differ, and samples that are
    missing of a completed set or stand in it twice. It is kept after every start (`note`), and goes on from there.
    """

    command: str
    kills: list[Kill] = field(default_factory=list)
    starts: int = 0
    completed: int = 0
    files: int = 0
    differs: list[str] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    seconds: list[float] = field(default_factory=list)
    done: bool = False

    @classmethod
    def of(cls, kept: Kept, name: str, command: str) -> "Outcome":
        """Return what is kept of a command, or a new outcome."""
        said = kept.parts.get(name)
        if said is None:
            return cls(command)
        return cls(**{**said, "kills": [Kill(**kill) for kill in said["kills"]]})

    def note(self, kept: Kept, name: str, wanted: int) -> None:
        """Keep the outcome, and tell how far it is."""
        kept.put(name, asdict(self))
        last = f", last {self.kills[-1].stage}" if self.kills else ""
        say(f"{name}: {len(self.kills)}/{wanted} kills{last}; {self.completed} completed, {len(self.differs)} differ")

    def moment(self, seed: int, name: str, most: float) -> float:
        """Return when the next start is killed: drawn by the number of starts, so that it does not depend on cuts."""
        return random.Random(f"{seed} {name} {self.starts}").uniform(0.0, most)

    def count_samples(self, folder: Path, count: int) -> None:
        """Count the samples of a completed set: each index stands in the manifest once."""
        lines = (folder / "manifest.jsonl").read_text().splitlines()
        indices = [json.loads(line)["index"] for line in lines]
        self.lost += len(set(range(count)) - set(indices))
        self.doubled += len(indices) - len(set(indices))

    def compare(self, whole: Mapping[str, str], folder: Path) -> None:
        """Note each file that is not the uninterrupted run's."""
        own = digests(folder)
        self.completed += 1
        self.files = len(own)
        self.differs += sorted(name for name in {*whole, *own} if whole.get(name) != own.get(name))

    def plain(self) -> dict[str, object]:
        """Return the outcome as JSON takes it."""
        stages = sorted({kill.stage for kill in self.kills})
        return {
            "command": self.command,
            "kills_of_live_processes": len(self.kills),
            "stages_hit": {stage: sum(kill.stage == stage for kill in self.kills) for stage in stages},
            "after_s": [kill.after_s for kill in self.kills],
            "starts": self.starts,
            "completed": self.completed,
            "files": self.files,
            "lost": self.lost,
            "doubled": self.doubled,
            "equal": not (self.differs or self.lost or self.doubled),
            "differs": sorted(set(self.differs)),
            **({"seconds": self.seconds} if self.seconds else {}),
        }


def digests(folder: Path) -> dict[str, str]:
    """Return {relative path: sha256} of every file, hidden ones too, but times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not set(_TIMES) & set(path.relative_to(folder).parts)
    }


def begin(line: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a verb in its own process group, one thread a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *line],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def end(child: subprocess.Popen[bytes]) -> None:
    """Wait for a command that must do its work."""
    _, said = child.communicate()
    if child.returncode:
        raise RuntimeError(f"{child.args} ended with {child.returncode}: {said.decode()}")


def strike(child: subprocess.Popen[bytes], due: Callable[[float], bool], stage: Callable[[], str]) -> Kill | None:
    """Kill the group of `child` once `due` (seconds since its start) says so; None where it had ended before."""
    started = time.monotonic()
    try:
        while child.poll() is None:
            after = time.monotonic() - started
            if due(after):
                seen = stage()
                os.killpg(child.pid, signal.SIGKILL)
                child.communicate()
                return Kill(round(after, 2), seen) if child.returncode == -signal.SIGKILL else None
            time.sleep(POLL_S)
    except KeyboardInterrupt:  # the benchmark is ended, and must leave nothing at work
        os.killpg(child.pid, signal.SIGKILL)
        raise
    end(child)
    return None


def below(pid: int) -> list[int]:
    """Return every process below one."""
    out, left = [], [pid]
    while left:
        try:
            tasks = [task.read_text() for task in Path(f"/proc/{left.pop()}/task").glob("*/children")]
        except OSError:
            continue
        children = [int(child) for text in tasks for child in text.split()]
        out, left = out + children, left + children
    return out


def title(pid: int) -> str:
    """Return what a process calls itself."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
