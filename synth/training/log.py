"""What a stage writes down while it trains: figures that equal runs share, times beside them.

Knows no module and no optimiser.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synth.io import write_bytes


class TrainLog:
    """train.jsonl (no times: byte-equal for equal runs), timing.jsonl and, where installed, TensorBoard.

    A run that goes on at step `first` cuts train.jsonl back to the lines before it, so that a killed run
    leaves the lines of an uninterrupted one.
    """

    def __init__(self, folder: Path, *, first: int) -> None:
        self.path, self.timing = folder / "train.jsonl", folder / "timing.jsonl"
        write_bytes(self.path, "".join(f"{line}\n" for line in _lines_before(self.path, first)).encode())
        self.tracker = _tensorboard(folder / "tensorboard", first)

    def write(self, figures: Mapping[str, float], *, seconds: float) -> None:
        """Append one line of figures, "step" among them, and how long they took."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")
        with self.timing.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": figures["step"], "seconds": round(seconds, 4)}) + "\n")
        if self.tracker is not None:
            for name, value in figures.items():
                if name != "step":
                    self.tracker.add_scalar(name, value, int(figures["step"]))

    def flush(self) -> None:
        """Bring TensorBoard's file up to date."""
        if self.tracker is not None:
            self.tracker.flush()

    def close(self) -> None:
        """Let go of TensorBoard's writer and its thread."""
        if self.tracker is not None:
            self.tracker.close()


class SilentLog:
    """The log of a process that does not write."""

    def write(self, figures: Mapping[str, float], *, seconds: float) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _lines_before(path: Path, first: int) -> list[str]:
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            if json.loads(line)["step"] < first:
                kept.append(line)
        except (json.JSONDecodeError, KeyError, TypeError):
            break  # the half line of a killed run
    return kept


def _tensorboard(folder: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warnings.warn('no TensorBoard curves: pip install "synthvol[train]"', stacklevel=2)
        return None
    return SummaryWriter(str(folder), purge_step=first)
