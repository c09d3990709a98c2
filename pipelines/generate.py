"""synth generate: paired volumes from a model, resumable, the same bytes whatever the workers or shards."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from synth.sampler import SAMPLERS, SamplerName

if TYPE_CHECKING:
    from synth.volume import Volume

LARGEST_COUNT = 1_000_000
LARGEST_STEPS = 10_000
LARGEST_GUIDANCE = 100.0


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Write image-mask pairs of MODEL as an nnU-Net dataset with a manifest.

    The same command again completes a set that was cut short; a larger --count extends it.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model folder, or the name of a bundled model."""
    out: Path
    """Folder to write."""
    count: int
    """Number of samples in all."""
    masks: Path | None = None
    """Masks to follow, in turn: a dataset in any layout, or a folder of volumes. Without it masks are made first."""
    text: str | None = None
    """What the images should show, in words."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Attributes, name=value (repeatable)."""
    spread: str | None = None
    """A categorical attribute whose levels the samples take in turn."""
    seed: int = 0
    """Sample i has the seed (SEED, i, attempt)."""
    steps: int | None = None
    """Sampling steps; the model's own otherwise."""
    sampler: SamplerName | None = None
    """Sampler; the model's own otherwise."""
    guidance: float | None = None
    """Guidance scale of every condition; 1 is the plain model."""
    workers: int = 0
    """Processes of one thread each; 0 = one a core."""
    data: Path | None = None
    """Prepared data: a splits_final.json is written that validates on patients of it that MODEL never saw."""
    shard: str = "0/1"
    """i/n: only the samples whose index is i modulo n; the manifest is written once every shard is done."""

    def run(self) -> int:
        """Write what is missing; nothing is written where the ask or a mask is wrong."""
        from pipelines.progress import progress
        from pipelines.sidecars import validation_of
        from pipelines.workers import alone, cores

        self._check_numbers()
        shard, shards = self._shard()
        job = Job(
            model=self.model,
            out=str(self.out),
            text=self.text,
            set=self.set,
            spread=self.spread,
            seed=self.seed,
            steps=self.steps,
            sampler=self.sampler,
            guidance=self.guidance,
            masks=mask_files(self.masks),
        )
        worker = Worker(job)
        worker.check(self.count)
        validation = validation_of(self.data, worker.generator.model.seen, self.model)
        self.out.mkdir(parents=True, exist_ok=True)
        with alone(self.out):
            self._claim(worker)
            done = worker.finished()
            todo = [index for index in range(shard, self.count, shards) if index not in done]
            if todo:  # without dataset.json, an unfinished folder is not taken for a dataset
                (self.out / "dataset.json").unlink(missing_ok=True)
        with progress("samples", len(todo)) as bar:
            for _ in _run(job, worker, todo, min(self.workers or cores(), max(len(todo), 1))):
                bar.advance()
        with alone(self.out):
            missing = len(set(range(self.count)) - worker.finished())
            if not missing:
                worker.finish(self.count, validation)
        if missing:
            print(f"shard {self.shard} done; {missing} samples of other shards are missing, so no manifest yet")
        else:
            print(f"{self.count} samples in {self.out}")
        return 0

    def _check_numbers(self) -> None:
        """Errors: ConfigError for a number out of range."""
        from synth.errors import ConfigError

        for name, least, most in (("count", 1, LARGEST_COUNT), ("steps", 1, LARGEST_STEPS)):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ConfigError(f"--{name} is {value}; give {least} to {most}")
        if self.guidance is not None and not 0 <= self.guidance <= LARGEST_GUIDANCE:  # refuses nan too
            raise ConfigError(f"--guidance is {self.guidance}; give a scale from 0 to {LARGEST_GUIDANCE:g}")

    def _shard(self) -> tuple[int, int]:
        from synth.errors import ConfigError

        parts = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", self.shard)
        if parts is None or not int(parts[1]) < int(parts[2]):
            raise ConfigError(f"--shard is {self.shard!r}; write i/n with i from 0 to n - 1")
        return int(parts[1]), int(parts[2])

    def _claim(self, worker: "Worker") -> None:
        """Keep the ask beside the output: an equal one goes on, another one or one for fewer samples is refused."""
        import json

        from synth.errors import OutputError
        from synth.io import write_bytes

        asked = worker.request()
        path = self.out / "request.json"
        if not path.is_file():
            # a kill while the ask was written leaves its draft, which is no result
            if any(found.name != f".{path.name}.partial" for found in self.out.iterdir()):
                raise OutputError(f"{self.out} is not empty; give another --out")
            write_bytes(path, (json.dumps(asked, sort_keys=True, indent=1) + "\n").encode())
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            differ = [name for name in sorted(asked) if before.get(name) != asked[name]]
        except (OSError, ValueError, AttributeError) as error:
            raise OutputError(f"{path} is broken ({error}); give another --out") from error
        if differ:
            name = differ[0]
            raise OutputError(
                f"{self.out} was begun with {name} = {before.get(name)}, now it is {asked[name]}; give another --out"
            )
        beyond = max(worker.finished(), default=-1) + 1
        if beyond > self.count:
            raise OutputError(
                f"{self.out} holds samples up to {beyond}, --count is {self.count}; give --count {beyond} or more, "
                "or another --out"
            )


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one worker process needs to make any sample of the set; plain values only."""

    model: str
    out: str
    text: str | None
    set: tuple[str, ...]
    spread: str | None
    seed: int
    steps: int | None
    sampler: SamplerName | None
    guidance: float | None
    masks: tuple[tuple[str, tuple[tuple[str, int], ...] | None], ...]


class Worker:
    """Makes samples of a job with one thread, so that bytes do not depend on how many work."""

    def __init__(self, job: Job) -> None:
        import torch

        from synth.formats.nnunet import DatasetWriter
        from synth.generator import Sampling, load

        torch.set_num_threads(1)
        self.job, self.out = job, Path(job.out)
        sampling = Sampling(
            sampler=SAMPLERS[job.sampler] if job.sampler else None, steps=job.steps, guidance=job.guidance
        )
        self.generator = load(job.model).with_sampling(sampling)
        schema = self.generator.model.recipe.schema
        assert schema is not None
        self.schema = schema
        self.writer = DatasetWriter(
            self.out,
            name=f"Synthetic_{self.generator.model.recipe.name}",
            channels=schema.channels,
            labels=schema.label_values,
            file_ending=schema.file_ending,
            extra={"population": schema.population, "synthetic": True},
        )

    def check(self, count: int) -> None:
        """Refuse what cannot be asked of the model, before anything is written.

        Errors: ConfigError, ConditionError for attributes and text; DataError, GeometryError for masks.
        """
        from synth.errors import ConfigError

        names = [pair.partition("=")[0] for pair in (*self.job.set, *([self.job.spread] if self.job.spread else []))]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"attribute {twice!r} is given twice; give it once, by --set or by --spread")
        self.schema.check_attributes(self.attributes(0))
        self._check_text()
        for index in range(min(count, len(self.job.masks))):
            self._check_mask(index)

    def _check_text(self) -> None:
        """Refuse a text without one word the model knows, and name on standard error the words it does not."""
        import sys

        from synth.conditioning.config import words
        from synth.errors import ConditionError

        if self.job.text is None:
            return
        conditioning = self.generator.model.recipe.image.conditioning
        known = conditioning.vocabulary
        if not known:
            raise ConditionError("this model was trained without text; leave --text out")
        if conditioning.text_encoder is not None:
            return  # a pretrained encoder reads words that no training text has
        asked = words(self.job.text)
        strange = [word for word in asked if word not in known]
        if len(strange) == len(asked):
            raise ConditionError(
                f"--text {self.job.text!r} has no word that the model knows; use some of: {', '.join(known[:20])}"
            )
        if strange:
            print(f"--text: the model does not know {', '.join(strange)}", file=sys.stderr)

    def _check_mask(self, index: int) -> None:
        """Refuse masks of other dimensions or channels, beyond the model's grid, and labels the model lacks.

        Errors: DataError for unreadable masks and strange values, GeometryError, ConditionError.
        """
        from synth.data.placement import Placement
        from synth.errors import ConditionError, DataError, GeometryError, nearest
        from synth.formats.cases import values_of

        mask, own = self.mask(index), self.schema.label_values
        path, labels = self.job.masks[index]
        if mask.spatial_dims != len(self.schema.grid) or mask.channels != 1:
            raise GeometryError(
                f"{path} is {mask.spatial_dims}D with {mask.channels} channels, the model takes masks in "
                f"{len(self.schema.grid)}D with one; give others"
            )
        schema = self.schema
        Placement.of(mask, grid=schema.grid, spacing_mm=schema.spacing_mm).require_inside(mask, path)
        known = own if labels is None else dict(labels)
        for name, value in known.items():
            if value != 0 and name not in own:
                raise ConditionError(f"{path}: label {name!r} is unknown to the model; {nearest(name, own)}")
        strange = set(values_of(mask.data)) - {0, *known.values()}
        if strange:
            whose = "the model" if labels is None else "its dataset.json"
            raise DataError(
                f"{path} has label value {min(strange)}, {whose} knows {sorted({0, *known.values()})}; mend the mask"
            )

    def mask(self, index: int) -> "Volume":
        """Return the mask that sample `index` follows, its labels named."""
        from synth.io import read

        path, labels = self.job.masks[index % len(self.job.masks)]
        return read(path, labels=self.schema.label_values if labels is None else dict(labels))

    def attributes(self, index: int) -> dict[str, str | float | int]:
        """Return the attributes asked of sample `index`."""
        from synth.errors import ConditionError, ConfigError, nearest

        out: dict[str, str | float | int] = {}
        for pair in self.job.set:
            name, equals, value = pair.partition("=")
            if not equals:
                raise ConfigError(f"--set {pair!r} has no value; write name=value")
            out[name] = value
        if self.job.spread is not None:
            levels = {a.name: a.levels for a in self.schema.attributes if a.kind == "categorical"}
            if self.job.spread not in levels:
                hint = nearest(self.job.spread, levels)
                raise ConditionError(f"--spread {self.job.spread!r} is no categorical attribute of the model; {hint}")
            choices = levels[self.job.spread]
            out[self.job.spread] = choices[index % len(choices)]
        return out

    def request(self) -> dict[str, object]:
        """Return what decides the samples: everything but count, workers and shards."""
        import hashlib

        from synth.formats.nnunet import sha256_of

        masks = hashlib.sha256()
        for path, labels in self.job.masks:
            masks.update(f"{Path(path).name} {labels} ".encode() + bytes.fromhex(sha256_of(Path(path))))
        return {
            "model": self.generator.model.sha256,
            "text": self.job.text,
            "set": list(self.job.set),
            "spread": self.job.spread,
            "seed": self.job.seed,
            "steps": self.job.steps,
            "sampler": self.job.sampler,
            "guidance": self.job.guidance,
            "masks": masks.hexdigest() if self.job.masks else None,
        }

    def make(self, index: int) -> None:
        """Make and write sample `index`; its record comes last."""
        import json
        from dataclasses import replace

        from synth.config import plain
        from synth.generator import Seed
        from synth.io import write_bytes
        from synth.sample import Condition

        mask = self.mask(index) if self.job.masks else None
        ask = Condition(mask=mask, text=self.job.text, attributes=self.attributes(index))
        sample = next(self.generator.generate([ask], seeds=[Seed(self.job.seed, index)]))
        assert sample.mask is not None
        files = self.writer.add(sample.provenance.case, sample.image, sample.mask)
        row = {**plain(replace(sample.provenance)), "files": files, "synthetic": True}
        write_bytes(record_path(self.out, index), json.dumps(row, sort_keys=True).encode())

    def finished(self) -> set[int]:
        """Return the indices of samples whose files are all there; the record is written last."""
        names = (path.name for path in (self.out / "records").glob("*.json"))
        found = (re.fullmatch(r"syn_([0-9]+)\.json", name) for name in names)
        return {int(match[1]) for match in found if match and self.writer.has(f"syn_{match[1]}")}

    def finish(self, count: int, validation: tuple[str, ...] = ()) -> None:
        """Write manifest.jsonl and dataset.json from the records, and what the set says of patients."""
        from pipelines.sidecars import write_sidecars
        from synth.io import write_bytes

        samples = [f"syn_{index:05d}" for index in range(count)]
        write_sidecars(self.out, self.generator.model.seen, samples, validation)
        lines = [record_path(self.out, index).read_text() + "\n" for index in range(count)]
        write_bytes(self.out / "manifest.jsonl", "".join(lines).encode())
        self.writer.finish(count)


def record_path(out: Path, index: int) -> Path:
    """Return where the record of a finished sample lies."""
    return out / "records" / f"syn_{index:05d}.json"


def mask_files(folder: Path | None) -> tuple[tuple[str, tuple[tuple[str, int], ...] | None], ...]:
    """Return (file, its labels by name) of a folder of masks; without a dataset.json the model's own values count."""
    if folder is None:
        return ()
    from synth.errors import DataError
    from synth.formats import find, read
    from synth.io import SUFFIXES

    known = (*SUFFIXES, ".png")
    if not folder.is_dir():
        raise DataError(f"--masks {folder} is not a folder; give a dataset or a folder of mask volumes")
    if (folder / "dataset.json").is_file() or find(folder) is not None:
        dataset = read(folder)
        labels = tuple(dataset.label_values.items())
        return tuple((str(case.mask), labels) for case in dataset.cases)
    files = sorted(path for path in folder.iterdir() if path.name.lower().endswith(known) and path.name[0] != ".")
    if not files:
        raise DataError(f"--masks {folder} holds no volumes; known suffixes are {', '.join(known)}")
    return tuple((str(path), None) for path in files)


_worker: list[Worker] = []


def _start(job: Job) -> None:
    _worker.append(Worker(job))


def _make(index: int) -> int:
    _worker[0].make(index)
    return index


def _run(job: Job, worker: Worker, todo: list[int], workers: int) -> Iterator[int]:
    """Yield the index of each sample as it is finished; one worker stays in this process."""
    from pipelines.workers import run_all

    if workers > 1:
        yield from run_all(_make, todo, workers=workers, start=_start, job=job)
        return
    for index in todo:
        worker.make(index)
        yield index
