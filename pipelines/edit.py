"""synth edit: given pairs with their masks changed, the images made anew where the masks changed and kept elsewhere."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from synth.sampler import SamplerName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.asks import Job
    from pipelines.samples import Worker
    from pipelines.spots import Spot
    from synth.data.dataset import Case, Dataset
    from synth.volume import Volume

_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Write the pairs of IMAGES with their masks changed, images made anew by MODEL where the masks changed.

    Beyond a margin around the change every voxel is the given image's own, so what that shows of a patient stays.
    The same command again completes a set that was cut short.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model folder, or the name of a bundled model."""
    images: Path
    """The pairs to edit: a dataset in any layout, or a folder of volumes with their masks."""
    out: Path
    """Folder to write, in nnU-Net's layout."""
    task: Literal["inpaint"] = "inpaint"
    """What is done: inpaint makes the images anew where their masks changed."""
    masks: Path | None = None
    """Changed masks, of the same case names: one for every image, unless --some is given."""
    some: bool = False
    """With --masks: edit the images that have one there, and leave the others out."""
    place: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Instead of --masks: LABEL@i,j,k:ML, a blob of a label put into every mask at a voxel (repeatable, in turn)."""
    margin_mm: float = 8.0
    """How far beyond the change an image may change."""
    text: str | None = None
    """What the images show, in words."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Attributes, name=value (repeatable)."""
    seed: int = 0
    """Image i has the seed (SEED, i, 0), its k-th blob a shape drawn from (SEED, i, k)."""
    steps: int | None = None
    """Sampling steps; the model's own otherwise."""
    sampler: SamplerName | None = None
    """Sampler; the model's own otherwise."""
    guidance: float | None = None
    """Guidance scale of every condition; 1 is the plain model."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:i; auto takes a GPU where there is one."""

    def run(self) -> int:
        """Edit what is missing; nothing is written where an option or a mask is wrong."""
        from pipelines.progress import progress
        from pipelines.records import finish_set
        from pipelines.samples import Worker
        from pipelines.workers import alone

        self._check()
        dataset, cases = self.chosen()
        worker = Worker(self._job())
        pairs = Pairs(self, worker, dataset, cases)
        worker.check(pairs.count)
        # before any is made: an hour in is late for a wrong mask
        short = [told for index in range(pairs.count) for told in pairs.check(index)]
        self.out.mkdir(parents=True, exist_ok=True)
        with alone(self.out):
            self._claim(worker)
            done = worker.finished()
            todo = [index for index in range(pairs.count) if index not in done]
            if todo:
                worker.writer.reopen()
            with progress("edits", len(todo)) as bar:
                for index in todo:
                    pairs.make(index)
                    bar.advance()
            finish_set(self.out, worker.facts, worker.generator.model.seen, pairs.count)
        print(f"{pairs.count} edited pairs in {self.out}; beyond {self.margin_mm:g} mm they are the given images")
        if short:
            more = f" and {len(short) - _SHOWN} more" if len(short) > _SHOWN else ""
            print(
                f"{len(short)} blobs are smaller than asked, as their tissue is thin or of that label already: "
                f"{', '.join(short[:_SHOWN])}{more}"
            )
        return 0

    def spots(self, index: int) -> "list[Spot]":
        """Return what is placed in pair `index`, in turn. Errors: ConfigError."""
        from pipelines.spots import Spot, spot_seed

        return [Spot.parse(text, seed=spot_seed(self.seed, index, k)) for k, text in enumerate(self.place)]

    def _check(self) -> None:
        """Errors: ConfigError, OutputError for options that do not go together."""
        from pipelines.generate import require_sampling
        from pipelines.places import require_apart
        from pipelines.spots import Spot
        from synth.errors import ConfigError

        if (self.masks is None) == (not self.place):
            raise ConfigError("give --masks, a folder of changed masks, or --place, what to put into them; not both")
        if self.some and self.masks is None:
            raise ConfigError("--some is for --masks; add that or leave it out")
        if not 0 < self.margin_mm < math.inf:
            raise ConfigError(f"--margin-mm is {self.margin_mm}; give more than 0")
        require_sampling(self.steps, self.guidance)
        for text in self.place:
            Spot.parse(text, seed=0)
        require_apart(self.out, self.images, self.masks)

    def _job(self) -> "Job":
        from pipelines.asks import Job, mask_files
        from pipelines.machine import device_of

        return Job(
            model=self.model,
            out=str(self.out),
            text=self.text,
            set=self.set,
            spread=(),
            seed=self.seed,
            steps=self.steps,
            sampler=self.sampler,
            guidance=self.guidance,
            window=None,
            masks=mask_files(self.masks or self.images),
            device=str(device_of(self.device)),
        )

    def chosen(self) -> "tuple[Dataset, list[Case]]":
        """Return the dataset and which of its cases are edited: those that have a changed mask, or all.

        Errors: DataError for a changed mask of no image, an image without one (unless --some) or without a mask itself.
        """
        from pipelines.asks import mask_files
        from synth.errors import DataError, nearest
        from synth.formats import read

        dataset = read(self.images)
        cases = list(dataset.cases)
        if self.masks is not None:
            changed = {one.case for one in mask_files(self.masks)}
            lacking = [case.id for case in cases if case.id not in changed]
            surplus = sorted(changed - {case.id for case in cases})
            if surplus:
                hint = f"; {nearest(surplus[0], lacking)}" if lacking else ""
                raise DataError(f"--masks {self.masks}: case {surplus[0]} is none of {self.images}{hint}")
            if lacking and not self.some:
                more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
                raise DataError(
                    f"--masks {self.masks} has no mask for {', '.join(lacking[:_SHOWN])}{more} of {self.images}; add "
                    "them, or give --some to edit the others alone"
                )
            cases = [case for case in cases if case.id in changed]
        bare = next((case.id for case in cases if case.mask is None), None)
        if bare is not None:
            raise DataError(f"{self.images}: case {bare} has no mask; an edit begins with one, so give it or drop it")
        return dataset, cases

    def _claim(self, worker: "Worker") -> None:
        """Keep the ask beside the output. Errors: OutputError where that holds another one, or anything else."""
        import hashlib

        from pipelines.evidence import digests
        from pipelines.records import REQUEST
        from synth.errors import OutputError
        from synth.io import write_bytes

        given = hashlib.sha256(json.dumps(digests(self.images)).encode()).hexdigest()
        told = {"task": self.task, "margin_mm": self.margin_mm, "place": list(self.place), "images": given}
        asked = json.dumps({**worker.request(), "edit": told}, sort_keys=True, indent=1) + "\n"
        path = self.out / REQUEST
        if path.is_file():
            if path.read_text(encoding="utf-8") != asked:
                raise OutputError(f"{self.out} was begun with another ask; give another --out")
        elif any(found.name != f".{REQUEST}.partial" for found in self.out.iterdir()):  # a kill as this was written
            raise OutputError(f"{self.out} is not empty; give another --out")
        else:
            write_bytes(path, asked.encode())


class Pairs:
    """The pairs of a dataset with their masks before and after, and how each is edited and written."""

    def __init__(self, how: Edit, worker: "Worker", dataset: "Dataset", cases: "Sequence[Case]") -> None:
        from pipelines.evidence import require_order
        from pipelines.records import rows_beside

        self.how, self.worker = how, worker
        self.rows = {row["case"]: row for row in rows_beside(how.images)}
        self.dataset, self.cases = dataset, cases
        require_order(how.images, self.dataset.channels, worker.asks.schema.channels)
        self.changed = {one.case: one for one in worker.job.masks} if how.masks is not None else {}

    @property
    def count(self) -> int:
        """Number of pairs."""
        return len(self.cases)

    def check(self, index: int) -> list[str]:
        """Return in words which blobs come out smaller than asked.

        Errors: DataError, ConditionError, GeometryError for what cannot be edited, with its case.
        """
        from synth.editing import placed_ml
        from synth.errors import ConditionError, SynthError

        case, spots, short = self.cases[index].id, self.how.spots(index), []
        try:
            _, _, *masks = self._masks(index)
            for number, (before, after) in enumerate(zip(masks[:-1], masks[1:], strict=True)):
                before.require_same_geometry(after, case=case)
                if not (before.data != after.data).any():
                    raise ConditionError("the mask did not change, so nothing is to be edited")
                if spots:
                    ml, asked = placed_ml(before, after, label=spots[number].label), spots[number].ml
                    voxel_ml = math.prod(after.spacing_mm) / 1000
                    if ml < asked - 0.51 * voxel_ml:  # half a voxel is rounding
                        short.append(f"{case} {spots[number].spelled} has {ml:.4g} ml")
            return short
        except SynthError as error:
            raise type(error)(f"case {case}: {error}") from error

    def make(self, index: int) -> None:
        """Edit and write pair `index`; its record comes last."""
        from pipelines.origins import source_of
        from pipelines.records import record_path
        from synth.config import plain
        from synth.editing import Inpaint, changed, placed_ml
        from synth.formats.writing import Told
        from synth.generator import Seed
        from synth.io import write_bytes
        from synth.sample import Condition

        asks, case = self.worker.asks, self.cases[index]
        image, stored, *masks = self._masks(index)
        source = source_of(case, self.how.images, self.rows.get(case.id), image, stored)
        spots = self.how.spots(index)
        sample: Any = None
        stages: list[dict[str, Any]] = []
        for before, after in zip(masks[:-1], masks[1:], strict=True):
            ask = Condition(mask=after, image=image, text=asks.text(index), attributes=asks.attributes(index))
            edit = Inpaint(region=changed(before, after), margin_mm=self.how.margin_mm)
            seed = Seed(self.how.seed, index)
            sample = next(self.worker.generator.generate([ask], seeds=[seed], edit=edit))
            image = sample.image
            placed = spots[len(stages)] if spots else None
            told: dict[str, Any] = {}
            if placed is not None:
                ml = placed_ml(before, after, label=placed.label)
                told = {"placed": placed.spelled, "placed_ml": ml, "seed": placed.seed}
            stages.append({**edit.told(), **told})
        row: dict[str, Any] = {**plain(sample.provenance), "synthetic": True}
        row["condition"]["edit"] = {"stages": stages, **source}
        if self.rows.get(case.id, {}).get("mask_origin") == "real":
            row["mask_origin"] = "real"  # what of it was not changed is the patient's still
        row["files"] = self.worker.writer.add(row["case"], sample.image, sample.mask, Told.of(row))
        write_bytes(record_path(self.how.out, index), json.dumps(row, sort_keys=True).encode())

    def _masks(self, index: int) -> "list[Volume]":
        """Return the image, its mask as stored, and as the model numbers labels: that, and it after each change."""
        from synth.data.reading import read_image, read_labels, read_mask
        from synth.editing import place_label

        case = self.cases[index]
        image = read_image(case, self.dataset, varied=False)
        stored = read_mask(case, self.dataset, image)
        out = [image, stored, self._named(stored, case.id)]
        for spot in self.how.spots(index):
            out.append(place_label(out[-1], label=spot.label, at=spot.at, ml=spot.ml, seed=spot.seed))
        if self.how.masks is not None:
            path, labels, _, series = self.changed[case.id]
            values = self.worker.asks.schema.label_values if labels is None else dict(labels)
            out.append(self._named(read_labels(path, values, series), case.id))
        return out

    def _named(self, mask: "Volume", case: str) -> "Volume":
        from synth.formats.writing import renumbered

        values = self.worker.asks.schema.label_values
        return mask.replace(data=renumbered(case, mask, values), labels=values)
