"""Progress on long work: a bar with rate and time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_EVERY_S = 15.0


class Progress:
    """Counts work towards `total` and says so on standard error."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done = label, total, 0
        self.started = self.said = time.monotonic()
        self.first: int | None = None
        self.bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self.bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task(label, total=total, note="")
            self.bar.start()

    def advance(self, done: int | None = None, note: str = "") -> None:
        """Report one more piece done, or `done` in all."""
        self.done = self.done + 1 if done is None else done
        if self.first is None:
            self.first, self.started = self.done, time.monotonic()
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, note=note)
            return
        now = time.monotonic()
        if now - self.said >= _LINE_EVERY_S or self.done == self.total:
            self.said = now
            worked = max(self.done - self.first, 0)
            rate = worked / max(now - self.started, 1e-9)
            left = f", {(self.total - self.done) / rate:.0f} s left" if rate > 0 and self.done < self.total else ""
            print(f"{self.label}: {self.done}/{self.total}{left} {note}".rstrip(), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar down."""
        if self.bar is not None:
            self.bar.stop()


@contextmanager
def progress(label: str, total: int) -> Iterator[Progress]:
    """Yield a Progress that is closed whatever happens."""
    bar = Progress(label, total)
    try:
        yield bar
    finally:
        bar.close()


@contextmanager
def staged() -> Iterator[Callable[[str, int, int], None]]:
    """Yield what is told (stage, done, total), a bar a stage; all are closed whatever happens."""
    bars: dict[str, Progress] = {}

    def report(stage: str, done: int, total: int) -> None:
        bars.setdefault(stage, Progress(stage, total)).advance(done)

    try:
        yield report
    finally:
        for bar in bars.values():
            bar.close()
