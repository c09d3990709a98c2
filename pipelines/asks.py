"""What is asked of each sample of a set: options, the rows of a plan, the masks to follow. Knows no files of a set."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.marks import MarkAsk
from pipelines.plans import Plan
from synth.sampler import SamplerName

if TYPE_CHECKING:
    from synth.generator import Generator
    from synth.sample import Condition
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
    """What one worker process needs to make any sample of the set; plain values only.

    accept   folder of the judge that samples must pass, each within so many `tries`; None: all are taken
    tests    of the judge that count; none named: all that it has
    mark     the watermark that images carry
    """

    model: str
    out: str
    text: str | None
    set: tuple[str, ...]
    spread: tuple[str, ...]
    seed: int
    steps: int | None
    sampler: SamplerName | None
    guidance: float | None
    window: tuple[int, ...] | None
    masks: tuple[MaskFile, ...]
    plan: Plan | None = None
    device: str = "cpu"
    format: str = "nnunet"
    prompts: bool = False
    accept: str | None = None
    tests: tuple[str, ...] = ()
    tries: int = 1
    mark: MarkAsk | None = None


class Asks:
    """The conditions of a job's samples, by index, and what of them the model cannot be asked."""

    def __init__(self, job: Job, generator: "Generator") -> None:
        schema = generator.model.recipe.schema
        assert schema is not None
        self.job, self.generator, self.schema = job, generator, schema

    def condition(self, index: int) -> "Condition":
        """Return what is asked of sample `index`."""
        from synth.sample import Condition

        number = self.mask_number(index)
        mask = None if number is None else self.mask(number)
        return Condition(mask=mask, text=self.text(index), attributes=self.attributes(index))

    def text(self, index: int) -> str | None:
        """Return the text asked of sample `index`."""
        row = None if self.job.plan is None else self.job.plan.row(index)
        return self.job.text if row is None or row.text is None else row.text

    def attributes(self, index: int) -> dict[str, Any]:
        """Return the attributes asked of sample `index`."""
        from synth.data.balance import balanced
        from synth.errors import ConfigError

        out: dict[str, Any] = {}
        for pair in self.job.set:
            name, equals, value = pair.partition("=")
            if not equals:
                raise ConfigError(f"--set {pair!r} has no value; write name=value")
            out[name] = value
        out |= balanced([self._attribute(name) for name in self.job.spread], index, seed=self.job.seed)
        return out if self.job.plan is None else out | dict(self.job.plan.row(index).attributes)

    def mask_number(self, index: int) -> int | None:
        """Return which of the masks sample `index` follows; None where its mask is made."""
        if not self.job.masks:
            return None
        if self.job.plan is None or not self.job.plan.says_masks:
            return index % len(self.job.masks)
        name = self.job.plan.row(index).mask
        return None if name is None else self._numbers[name]

    def mask(self, number: int) -> "Volume":
        """Return one of the masks, its labels named; a 2D one turned as the model's data lie.

        Pictures have no direction: they stay as stored, whoever of mask and model is one, and lie as the model's data.
        """
        from synth.data.placement import laid, turned
        from synth.data.reading import read_labels
        from synth.io import PICTURES

        path, labels, _, image = self.job.masks[number]
        mask = read_labels(path, self.schema.label_values if labels is None else dict(labels), image)
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

        masks = (self.job.masks[number] for number in self._followed())
        return [(one.case, mask_digest(stored(one).data)) for one in masks]

    def request(self) -> dict[str, object]:
        """Return what decides the asks: of a plan how many samples it has, and the hash of what it asks of them."""
        import hashlib

        plan, spread = self.job.plan, self.job.spread
        masks = hashlib.sha256()
        for path, labels, _, image in self.job.masks:
            told = [path] if image is None else [path, image]  # a SEG's grid is its series'
            content = b"".join(bytes.fromhex(self._sha256(one)) for one in told)
            masks.update(f"{Path(path).name} {labels} ".encode() + content)
        in_turn = bool(self.job.masks) and (plan is None or not plan.says_masks)
        return {
            "text": self.job.text,
            "set": list(self.job.set),
            "spread": spread[0] if len(spread) == 1 else list(spread) or None,
            "masks": masks.hexdigest() if in_turn else None,
            "plan": None if plan is None else {"samples": plan.count, "sha256": self.plan_sha256(plan.count)},
        }

    def plan_sha256(self, samples: int) -> str:
        """Return the hash of what the plan asks of its first `samples`, however its rows are cut; masks by content."""
        import hashlib
        import json
        from itertools import groupby

        assert self.job.plan is not None
        said: list[tuple[str, int]] = []
        for row, count in self.job.plan.runs(samples):
            mask = None if row.mask is None else self.job.masks[self._numbers[row.mask]]
            content = None if mask is None else [self._sha256(mask.path), mask.labels]
            if mask is not None and content is not None and mask.image is not None:
                content.append(self._sha256(mask.image))
            asked = self.schema.check_attributes(dict(row.attributes))
            said.append((json.dumps([row.text, content, asked], sort_keys=True), count))
        whole = hashlib.sha256()
        for ask, rows in groupby(said, key=lambda one: one[0]):
            whole.update(f"{sum(count for _, count in rows)} {ask}\n".encode())
        return whole.hexdigest()

    def extends(self, before: object) -> bool:
        """True where the plan begins with what a request of before says of its own."""
        plan = self.job.plan
        if plan is None or not isinstance(before, dict) or not isinstance(before.get("samples"), int):
            return False
        return before["samples"] <= plan.count and before.get("sha256") == self.plan_sha256(before["samples"])

    def check(self, count: int) -> None:
        """Refuse what cannot be asked of the model, before anything is written.

        Errors: ConfigError, ConditionError for attributes and text; DataError, GeometryError for masks; those of a
        plan's row begin with its line.
        """
        from synth.errors import ConfigError

        plan = self.job.plan
        names = [*(pair.partition("=")[0] for pair in self.job.set), *self.job.spread]
        names += [] if plan is None else plan.attributes
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"attribute {twice!r} is given twice; give it once, by --set, by --spread or in --plan")
        if plan is not None and plan.says_text and self.job.text is not None:
            raise ConfigError("--text and --plan both say texts; leave --text out")
        self._check_pair()
        self.schema.check_attributes(self.attributes(0) if plan is None else self._common())
        strange = self._unknown_words(self.job.text, "--text")
        begin = 0
        for row in () if plan is None else plan.rows:
            with _placed(row.place):
                self.schema.check_attributes(self.attributes(begin))
                strange += self._unknown_words(row.text, "text")
                self._check_row_mask(row.mask)
            begin += row.count
        if strange:
            import sys

            print(f"text: the model does not know {', '.join(dict.fromkeys(strange))}", file=sys.stderr)
        checked: set[int] = set()
        for index in range(min(count, len(self.job.masks))) if plan is None or not plan.says_masks else ():
            checked.add(index)
            self._check_mask(index)
        for row in plan.rows if plan is not None and plan.says_masks else ():
            if row.mask is not None and self._numbers[row.mask] not in checked:
                checked.add(self._numbers[row.mask])
                with _placed(row.place):
                    self._check_mask(self._numbers[row.mask])

    def _common(self) -> dict[str, Any]:
        """Return the attributes that options ask of every sample."""
        own = {} if self.job.plan is None else dict(self.job.plan.row(0).attributes)
        return {name: value for name, value in self.attributes(0).items() if name not in own}

    def _attribute(self, name: str) -> Any:
        """Return an attribute to spread. Errors: ConditionError."""
        from synth.errors import ConditionError, nearest

        known = {attribute.name: attribute for attribute in self.schema.attributes}
        if name not in known:
            raise ConditionError(f"--spread {name!r} is no attribute of the model; {nearest(name, known)}")
        return known[name]

    def _followed(self) -> Iterator[int]:
        """Yield which masks samples may follow."""
        plan = self.job.plan
        if plan is None or not plan.says_masks:
            yield from range(len(self.job.masks))
            return
        yield from dict.fromkeys(self._numbers[row.mask] for row in plan.rows if row.mask is not None)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """Number of each mask by its file's name, and by its case's."""
        by_name = {Path(one.path).name: number for number, one in enumerate(self.job.masks)}
        return by_name | {one.case: number for number, one in enumerate(self.job.masks)}

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return {}

    def _sha256(self, path: str) -> str:
        """Return the sha256 of a mask's file; of a folder (a DICOM series) that of its files in order."""
        import hashlib

        from synth.formats.nnunet import sha256_of

        if path not in self._hashes:
            files = sorted(one for one in Path(path).rglob("*") if one.is_file()) if Path(path).is_dir() else []
            whole = hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest() if files else None
            self._hashes[path] = whole or sha256_of(Path(path))
        return self._hashes[path]

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

    def _check_row_mask(self, name: str | None) -> None:
        """Refuse a mask that a row names and --masks has not, and none for a model that makes none."""
        from synth.errors import ConditionError, DataError, nearest

        plan = self.job.plan
        assert plan is not None
        if name is None:
            if plan.says_masks and self.generator.model.mask is None:
                raise ConditionError("this model makes no masks; name one of --masks in every row")
            return
        if not self.job.masks:
            raise DataError(f"mask {name!r} is named, but no folder of masks; give --masks DIR")
        if name not in self._numbers:
            raise DataError(f"mask {name!r} is not in --masks; {nearest(name, self._numbers)}")

    def _unknown_words(self, text: str | None, what: str) -> list[str]:
        """Return the words of a text that the model does not know. Errors: ConditionError where it knows none."""
        from synth.conditioning.config import words
        from synth.errors import ConditionError

        if text is None:
            return []
        conditioning = self.generator.model.recipe.image.conditioning
        known = conditioning.vocabulary
        if not known:
            raise ConditionError(f"this model was trained without text; leave {what} out")
        if conditioning.text_encoder is not None:
            return []  # a pretrained encoder reads words that no training text has
        asked = words(text)
        strange = [word for word in asked if word not in known]
        if len(strange) == len(asked):
            raise ConditionError(
                f"{what} {text!r} has no word that the model knows; use some of: {', '.join(known[:20])}"
            )
        return strange

    def _check_mask(self, number: int) -> None:
        """Refuse masks of other dimensions or channels, beyond the model's grid, and labels the model lacks.

        Errors: DataError for unreadable masks and strange values, GeometryError, ConditionError.
        """
        from synth.data.placement import Placement
        from synth.errors import ConditionError, DataError, GeometryError, nearest
        from synth.formats.cases import values_of

        mask, own = self.mask(number), self.schema.label_values
        path, labels, *_ = self.job.masks[number]
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


@contextlib.contextmanager
def _placed(place: str) -> Iterator[None]:
    """Begin what is wrong with a row by its place."""
    from synth.errors import SynthError

    try:
        yield
    except SynthError as error:
        raise type(error)(f"{place}: {error}") from error


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
