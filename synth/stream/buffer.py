"""The buffer folder: samples that a producer wrote, what is wanted of it, how it fares. Knows no generator, no loop.

request.json         what every sample in the folder answers; another ask needs another folder
wanted.json          the samples to hold ready and their groups, written by the leading process of the training
samples/<n>-g<group>.safetensors      sample n in the loop's space: image (c, *grid) float32, mask (1, *grid)
policy.jsonl         weights of the groups by epoch
producer-<k>.json    a producer's state, renewed every second; producer-<k>.log what it says

Every file is written beside its place under a name of its own, flushed and moved in, and never changed after. So no
lock is needed, and two producers that make the same sample do no harm: NFS keeps a rename whole, locks it may not.
Files are read whole and never mapped, since one that is dropped meanwhile would end a reader that maps it.
"""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from synth.errors import DataError, OutputError, SynthError

REQUEST, WANTED, POLICY, SAMPLES = "request.json", "wanted.json", "policy.jsonl", "samples"
SILENT_S = 300.0
"""A producer whose state stands still for so long is taken for dead; loading a large model is heard of in between."""
_LOOK_S, _LISTEN_S = (0.005, 0.25), 0.5
"""Shortest and longest wait between two looks for a sample; least time between two looks at the producers."""
_DEAD_S, _PATIENT_S = 1.5, 60.0
"""How long a state of death may stand before it is believed: by the process that starts producers, by others."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Stored:
    """One synthetic pair in the loop's space."""

    image: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Wanted:
    """The samples to hold ready, `first` and on, each with its group; `version` tells other weights apart."""

    first: int
    groups: tuple[int, ...]
    version: int = 0

    def dump(self) -> bytes:
        """Return it as JSON."""
        return json.dumps({"first": self.first, "groups": list(self.groups), "version": self.version}).encode()


@dataclass(frozen=True)
class Buffer:
    """A buffer folder, opened."""

    folder: Path

    def name_of(self, sample: int, group: int) -> str:
        """Return the file name of a sample."""
        return f"{sample:08d}-g{group:03d}.safetensors"

    def path_of(self, sample: int, group: int) -> Path:
        """Return where a sample lies once it is made."""
        return self.folder / SAMPLES / self.name_of(sample, group)

    def log_of(self, part: int) -> Path:
        """Return where producer `part` says what happens."""
        return self.folder / f"producer-{part}.log"

    def claim(self, request: Mapping[str, Any]) -> None:
        """Keep the ask in the folder, or check that the folder was begun with it. Errors: OutputError."""
        path = self.folder / REQUEST
        self.require_folder()
        if not path.is_file():
            there = [found.name for found in self.folder.iterdir()] if self.folder.is_dir() else []
            others = [name for name in there if not name.startswith(f".{REQUEST}.")]  # which a kill leaves half
            if others and not path.is_file():  # another leading process may have claimed it just now
                raise OutputError(f"buffer {self.folder} is not empty and no buffer; give another folder")
            if not path.is_file():
                publish(path, (json.dumps(request, sort_keys=True, indent=1) + "\n").encode())
                return
        self.check(request)

    def check(self, request: Mapping[str, Any]) -> None:
        """Refuse a folder that was begun with another ask; one without any is let be. Errors: OutputError."""
        path = self.folder / REQUEST
        self.require_folder()
        if not path.is_file():
            return
        before = _json(path)
        asked = json.loads(json.dumps(request))
        for name in sorted({*asked, *before}):
            if asked.get(name) != before.get(name):
                raise OutputError(
                    f"buffer {self.folder} was begun with {name} = {_short(before.get(name))}, now it is "
                    f"{_short(asked.get(name))}; give another folder, or remove this one"
                )

    def require_folder(self) -> None:
        """Errors: OutputError where a file lies in the folder's place, or in that of a folder above it."""
        place = next((one for one in (self.folder, *self.folder.parents) if one.exists()), None)
        if place is not None and not place.is_dir():
            raise OutputError(f"buffer {self.folder}: {place} is a file; give a folder")

    def request(self) -> dict[str, Any]:
        """Return the ask of the folder. Errors: DataError."""
        if not (self.folder / REQUEST).is_file():
            raise DataError(f"{self.folder} is no buffer: {REQUEST} is missing; give the folder of a Stream")
        return _json(self.folder / REQUEST)

    def want(self, wanted: Wanted) -> None:
        """Say what is to be held ready."""
        publish(self.folder / WANTED, wanted.dump())

    def wanted(self) -> Wanted | None:
        """Return what is to be held ready; None where nobody has said it yet."""
        if not (self.folder / WANTED).is_file():
            return None
        said = _json(self.folder / WANTED)
        try:
            return Wanted(int(said["first"]), tuple(int(group) for group in said["groups"]), int(said["version"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.folder / WANTED} is broken ({error!r}); remove the buffer folder") from error

    def have(self) -> set[str]:
        """Return the file names of the samples that are there."""
        with contextlib.suppress(FileNotFoundError):
            return {entry.name for entry in os.scandir(self.folder / SAMPLES) if entry.name.endswith(".safetensors")}
        return set()

    def put(self, sample: int, group: int, stored: Stored) -> None:
        """Keep a sample. Errors: OutputError where the disk is full or cannot be written."""
        from safetensors.numpy import save

        publish(self.path_of(sample, group), save({"image": stored.image, "mask": stored.mask}))

    def get(self, sample: int, group: int) -> Stored | None:
        """Return a sample, None where it is not there. Errors: DataError where its file is damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = self.path_of(sample, group)
        try:
            tensors = load(path.read_bytes())
            return Stored(tensors["image"], tensors["mask"])
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError) as error:
            if isinstance(error, OSError) and error.errno == errno.ESTALE:  # NFS: dropped by another machine
                return None
            raise DataError(f"{path} cannot be read ({error}); remove it: it is made again") from error

    def wait_for(self, sample: int, group: int, *, patient: bool = False) -> Stored:
        """Return a sample as soon as it is there; `patient` where another process starts the producers, soon.

        Errors: SynthError where no producer lives that could make it.
        """
        return self._until(lambda: self.get(sample, group), patient)

    def wait_for_group(self, sample: int, version: int, *, patient: bool = False) -> int:
        """Return the group of a sample as soon as what is wanted says it, by the weights of `version`."""

        def said() -> int | None:
            wanted = self.wanted()
            if wanted is None or wanted.version != version or not 0 <= sample - wanted.first < len(wanted.groups):
                return None
            return wanted.groups[sample - wanted.first]

        return self._until(said, patient)

    def _until(self, look: Callable[[], Found | None], patient: bool) -> Found:
        pause, ear = _LOOK_S[0], _Ear(self, _PATIENT_S if patient else _DEAD_S)
        while True:
            found = look()
            if found is not None:
                return found
            ear.require_life()
            time.sleep(pause)
            pause = min(pause * 2, _LOOK_S[1])

    def states(self) -> list[dict[str, Any]]:
        """Return what each producer last said of itself."""
        out = []
        for path in sorted(self.folder.glob("producer-*.json")):
            with contextlib.suppress(DataError):
                out.append(_json(path))
        return out


class _Ear:
    """Listens whether the producers of a buffer live; looks at their states once a second."""

    def __init__(self, buffer: Buffer, grace_s: float) -> None:
        self.buffer, self.grace_s, self.looked = buffer, grace_s, 0.0
        self.began = self.changed = time.monotonic()
        self.last = ""

    def require_life(self) -> None:
        """Errors: SynthError for a producer that failed, ended, died or is silent; one of several is enough."""
        now = time.monotonic()
        if now - self.looked < _LISTEN_S:
            return
        self.looked = now
        states = self.buffer.states()
        if (said := json.dumps(states)) != self.last:
            self.last, self.changed = said, now
        if now - self.began > self.grace_s:  # before, it may be the state of a run before this one
            for state in states:
                self._require_alive(state)
        if now - self.changed > SILENT_S:
            what = "is silent" if states else "never came"
            log = self.buffer.log_of(0)
            raise SynthError(f"the producer of {self.buffer.folder} {what} for {SILENT_S:.0f} s; {_again(log)}")

    def _require_alive(self, state: Mapping[str, Any]) -> None:
        log = self.buffer.log_of(state["part"])
        if state["state"] == "failed":
            raise SynthError(f"the producer of {self.buffer.folder} failed: {state['error']}; {_again(log)}")
        gone = state["host"] == socket.gethostname() and not alive(state["pid"])
        if gone or state["state"] == "ended":
            raise SynthError(f"the producer of {self.buffer.folder} died (process {state['pid']}); {_again(log)}")


def _again(log: Path) -> str:
    return f"see {log}, then start the training again: samples that are there are kept"


def alive(pid: int) -> bool:
    """True where a process of this machine runs; one that ended and was not yet waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return True


def publish(path: Path, content: bytes, *, flushed: bool = True) -> None:
    """Write a file whole or not at all, whoever else writes it; `flushed`: on the disk before it has its name.

    Errors: OutputError.
    """
    draft = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(content)
            if flushed:
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise OutputError(f"{path} cannot be written ({why}); free room or give another buffer folder") from error


def sweep(folder: Path, names: Sequence[str] = ()) -> None:
    """Remove the files `names`, and drafts that dead processes of this machine left."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
    end = f".{socket.gethostname()}."
    for draft in folder.glob(".*.partial"):
        pid = draft.name.removesuffix(".partial").rpartition(".")[2]
        if end in draft.name and pid.isdigit() and not alive(int(pid)):
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()


def _json(path: Path) -> dict[str, Any]:
    """Return the object of a file that is swapped, never changed. Errors: DataError."""
    try:
        try:
            content = path.read_bytes()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            content = path.read_bytes()  # NFS: it was swapped between looking it up and reading
        said = json.loads(content)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove the buffer folder") from error
    if not isinstance(said, dict):
        raise DataError(f"{path} holds no object; remove the buffer folder")
    return said


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
