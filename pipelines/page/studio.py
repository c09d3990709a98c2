"""The studio: an ask becomes a sample and its files in a folder of the page's own. Knows no widget.

Conditions are made by `pipelines.asks`, as the command line makes them, and samples by `Generator.generate`, with one
thread and Seed(seed, 0): `synth generate --count 1` with the same options gives the same voxels.
"""

import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.page.pictures import NOTICE
from pipelines.spots import Spot

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.page.pairs import Pair
    from synth.denoiser import Denoise
    from synth.generator import Generator
    from synth.model import Model
    from synth.sample import Sample

LARGEST_SEED = 2**31 - 1
LARGEST_UPLOAD_BYTES = 64 << 20
LARGEST_UPLOAD_VOXELS = 1 << 26
MOST_STEPS = 100
KEPT = 64
"""Samples kept on disk; older ones are removed."""
Tell = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a visitor asks for, and what was placed in it since; absent is None or missing."""

    text: str | None = None
    attributes: Mapping[str, str | float] = field(default_factory=dict)
    mask: Path | None = None
    seed: int = 0
    steps: int | None = None
    placed: tuple[Spot, ...] = ()


@dataclass(frozen=True)
class Watched:
    """Each part's own sampler, which tells how many of its evaluations are done; it changes no sample."""

    model: "Model"
    steps: int | None
    tell: Tell
    stochastic = False

    @property
    def kind(self) -> str:
        """The image part's sampler, for provenance."""
        return self.model.image.part.sampler.kind

    def evaluations(self, steps: int) -> int:
        """NFE of the image part's sampler."""
        return self.model.image.part.sampler.evaluations(steps)

    def steps_for(self, evaluations: int) -> int:
        """The most steps of the image part's sampler within `evaluations`."""
        return self.model.image.part.sampler.steps_for(evaluations)

    def __call__(self, denoise: "Denoise", times: "Tensor", x: "Tensor", rng: Any) -> "Tensor":
        """Return what the part's sampler returns."""
        name, sampler = next(
            (name, part.part.sampler)
            for name, part in self.model.parts().items()
            if part.flow.denoiser.process is denoise.process
        )
        total = sampler.evaluations(len(times) - 1)
        return sampler(
            Counted(denoise, lambda done: self.tell(done / total, f"{name}: {done} of {total}")), times, x, rng
        )


class Counted:
    """A denoise that says after each evaluation how many there were."""

    def __init__(self, denoise: "Denoise", tell: Callable[[int], None]) -> None:
        self.denoise, self.tell, self.done = denoise, tell, 0

    @property
    def process(self) -> Any:
        """The process of the denoise within."""
        return self.denoise.process

    def __call__(self, x: "Tensor", t: "Tensor", **options: Any) -> Any:
        """Return the estimate."""
        estimate = self.denoise(x, t, **options)
        self.done += 1
        self.tell(self.done)
        return estimate


class Studio:
    """Makes samples of one model, one at a time, and keeps their files in its folder."""

    def __init__(self, model: str, folder: Path, *, device: str = "cpu") -> None:
        from pipelines.machine import full_float32
        from synth.generator import load

        full_float32(device)
        self.name, self.folder, self.device = model, folder, device
        self.generator: Generator = load(model, device=device)
        schema = self.generator.model.recipe.schema
        assert schema is not None
        self.schema = schema
        self._lock = threading.Lock()
        self._made: list[Path] = []

    @property
    def makes_masks(self) -> bool:
        """True where a mask need not be given."""
        return self.generator.model.mask is not None

    @property
    def follows_masks(self) -> bool:
        """True where a mask may be given."""
        return self.generator.model.recipe.image.conditioning.labels > 0

    @property
    def reads_text(self) -> bool:
        """True where the model was trained with text."""
        return bool(self.generator.model.recipe.image.conditioning.vocabulary)

    def understood(self, text: str) -> list[tuple[str, bool]]:
        """Return each word of a text and whether the model knows it; a pretrained encoder reads them all."""
        from synth.conditioning.config import words

        conditioning = self.generator.model.recipe.image.conditioning
        known, reads_all = set(conditioning.vocabulary), conditioning.text_encoder is not None
        return [(word, reads_all or word in known) for word in words(text)]

    def make(self, ask: Ask, tell: Tell = lambda share, words: None) -> "Pair":
        """Return the pair of an ask, its files written. Errors: SynthError, in words for who uploaded the mask."""
        from pipelines.asks import Asks
        from synth.generator import Seed

        job = self._job(ask)
        with _named(ask.mask), self.sampling(ask.steps, tell) as generator:
            asks = Asks(job, self.generator)
            asks.check(1)
            sample = next(generator.generate([asks.condition(0)], seeds=[Seed(ask.seed)]))
            return self.keep(sample, ask)

    @contextmanager
    def sampling(self, steps: int | None, tell: Tell) -> "Iterator[Generator]":
        """Give the generator that tells its progress, to one visitor at a time."""
        import torch

        from synth.generator import Sampling

        # of the thread: the pools of web servers call from many, and bytes must not depend on their number
        torch.set_num_threads(1)
        with self._lock:
            yield self.generator.with_sampling(
                Sampling(sampler=Watched(self.generator.model, steps, tell), steps=steps)
            )

    def keep(self, sample: "Sample", ask: Ask) -> "Pair":
        """Return the pair of a sample, its files written."""
        from pipelines.page.pairs import Pair

        return Pair.of_sample(sample, self.schema, self._place(), ask=ask)

    def _job(self, ask: Ask) -> Any:
        from pipelines.asks import Job, MaskFile
        from synth.errors import ConfigError

        if not 0 <= ask.seed <= LARGEST_SEED:
            raise ConfigError(f"the seed is {ask.seed}; give 0 to {LARGEST_SEED}")
        if ask.steps is not None and not 1 <= ask.steps <= MOST_STEPS:
            raise ConfigError(f"steps are {ask.steps}; give 1 to {MOST_STEPS}")
        masks: tuple[MaskFile, ...] = ()
        if ask.mask is not None:
            check_upload(ask.mask)
            masks = (MaskFile(str(ask.mask), None, "upload"),)
        return Job(
            model=self.name,
            out="",
            text=ask.text,
            set=tuple(f"{name}={value}" for name, value in ask.attributes.items()),
            spread=(),
            seed=ask.seed,
            steps=ask.steps,
            sampler=None,
            guidance=None,
            window=None,
            masks=masks,
            device=self.device,
        )

    def _place(self) -> Path:
        """Return a new folder whose name cannot be guessed, the oldest ones removed."""
        place = self.folder / secrets.token_hex(12)
        place.mkdir(parents=True)
        self._made.append(place)
        while len(self._made) > KEPT:
            shutil.rmtree(self._made.pop(0), ignore_errors=True)
        return place


def check_upload(path: Path) -> None:
    """Refuse a file by its name, size and header, before its voxels are read. Errors: DataError."""
    import math

    from synth.errors import DataError
    from synth.io import PICTURES, SUFFIXES, read_header

    known = (*SUFFIXES, *PICTURES)
    if not path.name.lower().endswith(known):
        raise DataError(f"{path.name} is no volume by its suffix; give one of {', '.join(known)}")
    size = path.stat().st_size
    if size > LARGEST_UPLOAD_BYTES:
        raise DataError(f"{path.name} has {size >> 20} MiB; give at most {LARGEST_UPLOAD_BYTES >> 20}")
    with _named(path):
        header = read_header(path)
    if math.prod(header.grid) * header.channels > LARGEST_UPLOAD_VOXELS:
        raise DataError(
            f"{path.name} has {' x '.join(map(str, header.grid))} voxels; crop or resample it to "
            f"{LARGEST_UPLOAD_VOXELS:,} at most"
        )


@contextmanager
def _named(upload: Path | None) -> Iterator[None]:
    """Let errors call an upload by its name: where the server keeps it is no visitor's business."""
    from synth.errors import SynthError

    try:
        yield
    except SynthError as error:
        if upload is None:
            raise
        said = str(error).replace(str(upload), upload.name)
        raise type(error)(said.replace(f"{upload.parent}/", "")) from error


def how(ask: Ask, model: str) -> tuple[str, str]:
    """Return the command line and the Python that make the sample of an ask again.

    >>> print(how(Ask(text="flair", seed=3), "brain-tiny")[0])
    synth generate brain-tiny --out out --count 1 --seed 3 --text flair
    """
    import shlex

    words = ["synth", "generate", model, "--out", "out", "--count", "1", "--seed", str(ask.seed)]
    asked: list[str] = []
    if ask.mask is not None:
        words += ["--masks", "masks"]  # a folder, the file in it
        asked.append(f"mask=synth.read({f'masks/{ask.mask.name}'!r}, labels=labels)")
    if ask.text:
        words += ["--text", ask.text]
        asked.append(f"text={ask.text!r}")
    for name, value in ask.attributes.items():
        words += ["--set", f"{name}={value}"]
    if ask.attributes:
        asked.append(f"attributes={dict(ask.attributes)!r}")
    if ask.steps is not None:
        words += ["--steps", str(ask.steps)]
    sampling = "" if ask.steps is None else f".with_sampling(synth.Sampling(steps={ask.steps}))"
    from pipelines.page.placing import command_of, python_of

    placed = python_of(ask)
    lines = ["import synth", "import torch", ""]
    if placed:
        lines[2:2] = ["from synth.editing import Inpaint, changed, place_label"]
    lines.append("torch.set_num_threads(1)  # bytes depend on it")
    lines.append(f"generator = synth.load({model!r}){sampling}")
    if ask.mask is not None:
        lines.append("labels = generator.model.recipe.schema.label_values")
    lines.append(f"ask = synth.Condition({', '.join(asked)})")
    lines.append(f"sample = next(generator.generate([ask], seeds=[{ask.seed}]))  # {NOTICE}")
    lines += placed
    return shlex.join(words) + command_of(ask, model), "\n".join(lines)
