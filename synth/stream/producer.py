"""The producer: a process of its own that loads the model and keeps the buffer filled. Knows no training loop.

It is started by its code, not forked: no CUDA context, thread or lock of the training reaches it, and the training's
script is not run again. One thread, so that its samples are those of `synth generate` to the byte. It ends with the
process that began it.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from synth import config
from synth.errors import ConfigError, OutputError, SynthError
from synth.sample import Condition
from synth.sampler import SAMPLERS
from synth.stream.buffer import Buffer, Stored, Wanted, publish, sweep
from synth.stream.real import reopen
from synth.stream.schedule import taken_in_turn
from synth.stream.space import Space

if TYPE_CHECKING:
    from synth.generator import Generator, Sampling
    from synth.volume import Volume

_IDLE_S, _BEAT_S = 0.1, 1.0
MODEL = "model"
"""Where a Generator that is not a folder yet is written, inside the buffer."""


class Work(NamedTuple):
    """What one producer is told: the model's folder and its sha256, a device, and that it is `part` of `parts`.

    It makes the samples whose number is `part` modulo `parts`.
    """

    model: str
    sha256: str
    device: str
    part: int = 0
    parts: int = 1


def launch(buffer: Buffer, work: Work) -> "subprocess.Popen[bytes]":
    """Start a producer. Errors: OutputError where its log cannot be written."""
    root = str(Path(__file__).resolve().parents[2])
    code = (
        f"import sys; sys.path.insert(0, {root!r}); from synth.stream.producer import run; "
        f"sys.exit(run({str(buffer.folder.resolve())!r}, {tuple(work)!r}, parent={os.getpid()}))"
    )
    try:
        log = buffer.log_of(work.part).open("ab")
    except OSError as error:
        raise OutputError(
            f"buffer {buffer.folder} cannot be written ({error.strerror}); give another folder"
        ) from error
    with log:
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    State(buffer, work, child.pid).say("starting")
    return child


class State:
    """What a producer says of itself in its file, renewed by a thread while it works."""

    def __init__(self, buffer: Buffer, work: Work, pid: int) -> None:
        self.path = buffer.folder / f"producer-{work.part}.json"
        self.facts: dict[str, Any] = {"part": work.part, "pid": pid, "host": socket.gethostname()}
        self.facts.update(device=work.device, state="starting")
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.beat = 0

    def say(self, state: str, **facts: Any) -> None:
        """Renew the file; a disk that is full keeps it from that, and is told in the log."""
        import json

        with self.lock:
            if self.facts.get("state") in ("failed", "ended"):
                return
            self.beat += 1
            self.facts.update(facts, state=state, beat=self.beat)
            with contextlib.suppress(OutputError):
                publish(self.path, json.dumps(self.facts, sort_keys=True).encode(), flushed=False)

    def watch(self, parent: int) -> None:
        """Renew the file every second, and end this process once the one that began it has gone."""
        while not self.stop.wait(_BEAT_S):
            if os.getppid() != parent:
                self.say("ended")
                os._exit(0)
            self.say(self.facts["state"])


def run(folder: str, told: tuple[Any, ...], *, parent: int) -> int:
    """Fill the buffer until stopped; return an exit code. What goes wrong is in its state and on standard error."""
    buffer, work = Buffer(Path(folder)), Work(*told)
    state = State(buffer, work, os.getpid())
    watching = threading.Thread(target=state.watch, args=(parent,), daemon=True)
    watching.start()
    try:
        Producer.open(buffer, work).work(state)
    except SynthError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        state.say("failed", error=str(error))
        return 2
    except BaseException as error:
        traceback.print_exc()
        state.say("failed", error=f"{type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    finally:
        state.stop.set()
        watching.join(5.0)
    return 0


class Producer:
    """Makes the samples that are wanted and missing, the lowest number first."""

    def __init__(self, buffer: Buffer, generator: "Generator", *, part: int = 0, parts: int = 1) -> None:
        self.buffer, self.generator, self.part, self.parts = buffer, generator, part, parts
        self.request = buffer.request()
        self.space = config.build(Space, self.request["space"], where=str(buffer.folder))
        told = self.request["masks"]
        self.cases = None if told is None else reopen(told)
        self.swept: Wanted | None = None

    @classmethod
    def open(cls, buffer: Buffer, work: Work) -> "Producer":
        """Return the producer of a buffer with its model loaded.

        Errors: ConfigError where the model is no longer the one of the request; CheckpointError.
        """
        import torch

        from synth.generator import load

        torch.set_num_threads(1)
        if work.device.startswith("cuda"):
            torch.backends.cudnn.allow_tf32 = False  # as `synth generate`: TF32 keeps 10 bits
        request = buffer.request()
        generator = load(work.model, device=work.device).with_sampling(sampling_of(request["sampling"]))
        if generator.model.sha256 != work.sha256:
            raise ConfigError(
                f"{work.model} was changed: its weights or recipe are not those of its sha256; copy it again"
            )
        return cls(buffer, generator, part=work.part, parts=work.parts)

    def work(self, state: State) -> None:
        """Make samples for ever."""
        import torch

        state.say("working", threads=torch.get_num_threads(), made=0)
        made, seconds = 0, 0.0
        while True:
            began = time.perf_counter()
            if not self.once():
                time.sleep(_IDLE_S)
                continue
            made, seconds = made + 1, seconds + time.perf_counter() - began
            state.say("working", made=made, seconds_a_sample=round(seconds / made, 4))

    def once(self) -> bool:
        """Make the next missing sample; False where nothing is missing. What is no longer wanted is dropped."""
        wanted = self.buffer.wanted()
        if wanted is None:
            return False
        have = self.buffer.have()
        names = {self.buffer.name_of(wanted.first + n, group): n for n, group in enumerate(wanted.groups)}
        if self.part == 0 and wanted != self.swept:
            sweep(self.buffer.folder / "samples", sorted(have - set(names)))
            self.swept = wanted
        for name, place in names.items():
            number = wanted.first + place
            if name not in have and number % self.parts == self.part:
                self.buffer.put(number, wanted.groups[place], self.make(number, wanted.groups[place]))
                return True
        return False

    def make(self, number: int, group: int) -> Stored:
        """Return sample `number`, asked with the attributes of a group, in the loop's space."""
        from synth.generator import Seed

        condition = Condition(mask=self._mask(number), attributes=self.request["groups"][group])
        sample = next(self.generator.generate([condition], seeds=[Seed(self.request["seed"], number)]))
        return self.space.place(sample.image, sample.mask)

    def _mask(self, number: int) -> "Volume | None":
        if self.cases is None:
            return None
        return self.cases.mask(taken_in_turn(self.request["seed"], "masks", number, len(self.cases)))


def sampling_of(told: Mapping[str, Any]) -> "Sampling":
    """Return the sampling options of a request."""
    from synth.generator import Sampling

    window = told["window"]
    return Sampling(
        sampler=SAMPLERS[told["sampler"]] if told["sampler"] else None,
        steps=told["steps"],
        guidance=told["guidance"],
        texture=told["texture"],
        window=None if window is None else tuple(window),
    )


def tell_sampling(sampling: "Sampling") -> dict[str, Any]:
    """Return sampling options as plain values. Errors: ConfigError for a sampler with options of its own."""
    sampler = sampling.sampler
    if sampler is not None and SAMPLERS.get(sampler.kind) != sampler:  # pyright: ignore[reportArgumentType, reportCallIssue]
        raise ConfigError(f"sampler {sampler.kind} has options of its own; a stream takes {', '.join(SAMPLERS)}")
    return {
        "sampler": sampler.kind if sampler else None,
        "steps": sampling.steps,
        "guidance": config.plain(sampling.guidance),
        "texture": sampling.texture,
        "window": None if sampling.window is None else list(sampling.window),
    }
