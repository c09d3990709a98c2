"""The samples of one set: what is asked, made and written one by one, with a record each, by any number of workers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from synth.sampler import SAMPLERS, SamplerName

if TYPE_CHECKING:
    from synth.volume import Volume


class MaskFile(NamedTuple):
    """A mask to follow: its file, its labels by name (None: the model's own values count) and the case it is of.

    image   the DICOM series on whose grid a SEG lies; None where the file says its own
    """

    path: str
    labels: tuple[tuple[str, int], ...] | None
    case: str
    image: str | None = None


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
    window: tuple[int, ...] | None
    masks: tuple[MaskFile, ...]
    device: str = "cpu"
    format: str = "nnunet"
    prompts: bool = False


class Worker:
    """Makes samples of a job with one thread, so that bytes do not depend on how many work."""

    def __init__(self, job: Job) -> None:
        import torch

        from pipelines.machine import full_float32
        from synth.formats import WRITERS
        from synth.formats.writing import Description
        from synth.generator import Sampling, load, software

        torch.set_num_threads(1)
        full_float32(job.device)
        self.job, self.out = job, Path(job.out)
        sampling = Sampling(
            sampler=SAMPLERS[job.sampler] if job.sampler else None,
            steps=job.steps,
            guidance=job.guidance,
            window=job.window,
        )
        self.generator = load(job.model, device=job.device).with_sampling(sampling)
        schema = self.generator.model.recipe.schema
        assert schema is not None
        self.schema = schema
        about = Description(
            name=f"Synthetic_{self.generator.model.recipe.name}",
            channels=schema.channels,
            labels=schema.labels,
            file_ending=schema.file_ending,
            population=schema.population,
            software=software(),
        )
        self.writer = WRITERS[job.format](self.out, about)

    def check(self, count: int) -> None:
        """Refuse what cannot be asked of the model, before anything is written.

        Errors: ConfigError, ConditionError for attributes and text; DataError, GeometryError for masks.
        """
        from synth.errors import ConfigError

        names = [pair.partition("=")[0] for pair in (*self.job.set, *([self.job.spread] if self.job.spread else []))]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"attribute {twice!r} is given twice; give it once, by --set or by --spread")
        self.generator.check_sampling()
        self._check_pair()
        self.schema.check_attributes(self.attributes(0))
        self._check_text()
        for index in range(min(count, len(self.job.masks))):
            self._check_mask(index)

    def _check_pair(self) -> None:
        """Refuse a model that comes to no mask. Errors: ConditionError."""
        from synth.errors import ConditionError

        model = self.generator.model
        if not model.image.part.conditioning.labels:
            raise ConditionError(
                f"{self.job.model} was trained without labels, generate writes image-mask pairs; sample it in Python"
            )
        if model.mask is None and not self.job.masks:
            raise ConditionError("this model needs a mask and has no mask part; give masks (--masks DIR)")

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
        path, labels, *_ = self.job.masks[index]
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
        """Return the mask that sample `index` follows, its labels named; a 2D one turned as the model's data lie.

        Pictures have no direction: they stay as stored, whoever of mask and model is one, and lie as the model's data.
        """
        from synth.data.placement import laid, turned
        from synth.data.reading import read_labels
        from synth.io import PICTURES

        path, labels, _, image = self.job.masks[index % len(self.job.masks)]
        named = self.schema.label_values if labels is None else dict(labels)
        mask = read_labels(path, named, image)
        direction = self.schema.direction
        if direction is None or self.schema.file_ending in PICTURES:
            return mask
        return laid(mask, direction) if path.lower().endswith(PICTURES) else turned(mask, direction)

    def mask_digests(self) -> list[tuple[str, str]]:
        """Return (case, digest) of every mask that samples may follow. Errors: DataError for unreadable masks."""
        from synth.data.prepared import mask_digest
        from synth.data.reading import read_labels

        # voxels as the file has them, as `prepare` saw them; a SEG has names alone
        def stored(one: MaskFile) -> "Volume":
            return read_labels(one.path, dict(one.labels or self.schema.label_values) if one.image else {}, one.image)

        return [(one.case, mask_digest(stored(one).data)) for one in self.job.masks]

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
        for path, labels, *_ in self.job.masks:
            files = sorted(Path(path).iterdir()) if Path(path).is_dir() else [Path(path)]
            told = b"".join(bytes.fromhex(sha256_of(file)) for file in files if file.is_file())
            masks.update(f"{Path(path).name} {labels} ".encode() + told)
        return {
            "model": self.generator.model.sha256,
            "text": self.job.text,
            "set": list(self.job.set),
            "spread": self.job.spread,
            "seed": self.job.seed,
            "steps": self.job.steps,
            "sampler": self.job.sampler,
            "guidance": self.job.guidance,
            "window": None if self.job.window is None else list(self.job.window),
            "masks": masks.hexdigest() if self.job.masks else None,
            "device": self.job.device.partition(":")[0],
            "format": self.job.format,
            "prompts": self.job.prompts,
        }

    def make(self, index: int) -> None:
        """Make and write sample `index`; its record comes last."""
        import json
        from dataclasses import replace

        from synth.config import plain
        from synth.formats.writing import Told
        from synth.generator import Seed
        from synth.io import write_bytes
        from synth.sample import Condition

        mask = self.mask(index) if self.job.masks else None
        ask = Condition(mask=mask, text=self.job.text, attributes=self.attributes(index))
        sample = next(self.generator.generate([ask], seeds=[Seed(self.job.seed, index)]))
        assert sample.mask is not None
        row = {**plain(replace(sample.provenance)), "synthetic": True}
        row["files"] = self.writer.add(sample.provenance.case, sample.image, sample.mask, Told.of(row))
        if self.job.prompts:
            self._prompt(index, sample.provenance.case, sample.mask)
        write_bytes(record_path(self.out, index), json.dumps(row, sort_keys=True).encode())

    def _prompt(self, index: int, case: str, mask: "Volume") -> None:
        """Keep what is derived of a mask beside its record."""
        import json

        from synth.formats.prompts import derive
        from synth.io import PICTURES, write_bytes

        named = mask if mask.labels else mask.replace(labels=self.schema.label_values)
        pictures = self.schema.file_ending in PICTURES
        row = derive(named, case=case, seed=(self.job.seed, index), patient_space=not pictures)
        write_bytes(record_path(self.out, index).with_suffix(".prompts"), json.dumps(row).encode())

    def finished(self) -> set[int]:
        """Return the indices of samples whose files are all there; the record is written last."""
        names = (path.name for path in (self.out / "records").glob("*.json"))
        found = (re.fullmatch(r"syn_([0-9]+)\.json", name) for name in names)
        return {int(match[1]) for match in found if match and self.writer.has(f"syn_{match[1]}")}

    def seams(self, count: int) -> str:
        """Return in words the largest seam that overlapped denoising left, nothing where it was not needed."""
        import json

        rows = (json.loads(record_path(self.out, index).read_text()) for index in range(count))
        found = [row["seam"] for row in rows if row.get("seam") is not None]
        if not found:
            return ""
        return f"; across windows latents step at most {max(found):.2f} times as much as elsewhere (1 = no seam)"

    def finish(self, count: int, validation: tuple[str, ...] = ()) -> None:
        """Write manifest.jsonl and dataset.json from the records, and what the set says of patients."""
        import json

        from pipelines.sidecars import write_sidecars
        from synth.formats.writing import Told
        from synth.io import write_bytes

        samples = [f"syn_{index:05d}" for index in range(count)]
        write_sidecars(self.out, self.generator.model.seen, samples, validation)
        lines = [record_path(self.out, index).read_text() + "\n" for index in range(count)]
        write_bytes(self.out / "manifest.jsonl", "".join(lines).encode())
        if self.job.prompts:
            from synth.formats.prompts import write_prompts

            write_prompts(self.out, (record_path(self.out, index).with_suffix(".prompts") for index in range(count)))
        self.writer.finish(count, [Told.of(json.loads(line)) for line in lines])


def record_path(out: Path, index: int) -> Path:
    """Return where the record of a finished sample lies."""
    return out / "records" / f"syn_{index:05d}.json"


def mask_files(folder: Path | None) -> tuple[MaskFile, ...]:
    """Return the masks of a folder; without a dataset.json the model's own values count."""
    if folder is None:
        return ()
    from synth.data.reading import series_of
    from synth.errors import DataError
    from synth.formats import find, read
    from synth.io import SUFFIXES, suffix_of

    known = (*SUFFIXES, ".png")
    if not folder.is_dir():
        raise DataError(f"--masks {folder} is not a folder; give a dataset or a folder of mask volumes")
    if (folder / "dataset.json").is_file() or find(folder) is not None:
        dataset = read(folder)
        labels = tuple(dataset.label_values.items())
        return tuple(MaskFile(str(case.mask), labels, case.id, series_of(case)) for case in dataset.cases)
    files = sorted(path for path in folder.iterdir() if path.name.lower().endswith(known) and path.name[0] != ".")
    if not files:
        raise DataError(f"--masks {folder} holds no volumes; known suffixes are {', '.join(known)}")
    return tuple(MaskFile(str(path), None, path.name[: -len(suffix_of(path))]) for path in files)


_worker: list[Worker] = []


def _start(job: Job) -> None:
    _worker.append(Worker(job))


def _make(index: int) -> int:
    _worker[0].make(index)
    return index


def made(job: Job, worker: Worker, todo: list[int], workers: int) -> Iterator[int]:
    """Yield the index of each sample as it is finished; one worker stays in this process."""
    from pipelines.workers import run_all

    if workers > 1:
        yield from run_all(_make, todo, workers=workers, start=_start, job=job)
        return
    for index in todo:
        worker.make(index)
        yield index
