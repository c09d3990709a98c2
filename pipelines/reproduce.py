"""synth reproduce: a sample of a set made again from what the manifest says, and compared with what it was."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pipelines.generate import FormatName

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.records import SetFacts
    from synth.formats.writing import Told, Writer
    from synth.volume import Volume

DIFFERENT = 3
TOLERANCE = 1e-4
"""Of an image's range: what another numeric environment may change; of whole numbers, one step."""


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Make samples of MANIFEST again and say `identical`, or by how much they differ and in which environment.

    Ends with 3 where a sample differs by more than 1e-4 of its range, or at all in the environment it was made in.
    """

    manifest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MANIFEST")]
    """The manifest.jsonl of a set, or the set's folder."""
    case: tuple[str, ...] = ()
    """Cases to make again, such as syn_00003."""
    all: bool = False
    """Every case."""
    model: str | None = None
    """The model's folder; the bundled one of the manifest's name otherwise."""
    device: str = "cpu"
    """auto, cpu, cuda or cuda:i."""
    window: str | None = None
    """Window of the set, where no request.json beside the manifest says it."""
    format: FormatName | None = None
    """Layout of the set, where no request.json beside the manifest says it; nnunet otherwise."""
    watermark: Path | None = None
    """Key file of a set that carries a watermark."""

    def run(self) -> int:
        """Make the samples again, one line each."""
        from pipelines.records import MANIFEST
        from synth.errors import ConfigError

        if self.all == bool(self.case):
            raise ConfigError("give --case NAME, or --all")
        manifest = self.manifest / MANIFEST if self.manifest.is_dir() else self.manifest
        rows = self._rows(manifest)
        again: Again | None = None
        worst = 0
        for row in rows:
            again = again or Again(self, manifest.parent, row)
            told, good = again.compare(row)
            print(f"{row['case']}: {told}", flush=True)
            worst = worst if good else DIFFERENT
        return worst

    def _rows(self, manifest: Path) -> "Iterator[dict[str, Any]]":
        """Return the rows asked for. Errors: DataError for a broken manifest and for a case it does not name."""
        from pipelines.records import manifest_rows
        from synth.errors import DataError, nearest

        names: list[str] = []
        wanted = set(self.case)
        for row in manifest_rows(manifest):
            names.append(row["case"])
            if self.all or row["case"] in wanted:
                wanted.discard(row["case"])
                yield row
        if wanted:
            case = min(wanted)
            raise DataError(f"{manifest} names no case {case!r}; {nearest(case, names)}")
        if not names:
            raise DataError(f"{manifest} names no case; give the manifest of a set")


class Again:
    """The generator of a set, as the set was asked for, and what it makes compared with the set's files."""

    def __init__(self, how: Reproduce, folder: Path, row: dict[str, Any]) -> None:
        import torch

        from pipelines.machine import device_of, full_float32
        from synth.errors import CheckpointError
        from synth.generator import load

        torch.set_num_threads(1)
        device = str(device_of(how.device))
        full_float32(device)
        self.folder, self.how = folder, how
        name, sha256 = str(row["model"].get("name")), str(row["model"].get("sha256"))
        try:
            plain = load(how.model or name, device=device)
        except CheckpointError as error:
            if how.model is not None:
                raise
            raise CheckpointError(f"the set was made by {name!r}, which is no bundled model; give --model") from error
        if plain.model.sha256 != sha256:
            raise CheckpointError(
                f"model {how.model or name} is another one (sha256 {plain.model.sha256[:12]}...) than the manifest's "
                f"({sha256[:12]}...); give --model with the folder of that one"
            )
        self.sha256 = sha256
        asked = self._asked()
        self.exported = "export" in asked
        self.facts = self._facts(plain, asked, row)
        self.generator = plain.with_sampling(self._sampling(plain, asked, row))
        self.there = self.facts.writer(folder)

    def compare(self, row: dict[str, Any]) -> tuple[str, bool]:
        """Return in words how a sample made again compares with the set's, and whether that is as it should be."""
        import tempfile

        from pipelines.marks import Mark
        from synth.errors import DataError
        from synth.formats.writing import Told
        from synth.generator import Seed

        if row["model"].get("sha256") != self.sha256:
            raise DataError(f"case {row['case']} is of another model than those before; give it alone by --case")
        seed, about = Seed(row["seed"], row["index"], row["attempt"]), Told.of(row)
        mark = Mark.again(self.how.watermark, row)
        sample = next(self.generator.generate([self._ask(row, about)], seeds=[seed]))
        assert sample.mask is not None
        image = sample.image if mark is None else mark.put(sample.image)
        changed = [name for name, digest in row["files"].items() if _digest(self.there, name) != digest]
        aside = f"; on disk {', '.join(changed)} is missing or was changed" if changed else ""
        with tempfile.TemporaryDirectory(prefix="synth-reproduce-") as scratch:
            here = self.facts.writer(Path(scratch))
            files = here.add(row["case"], image, sample.mask, about)
            if files == row["files"]:
                return "identical" + aside, not changed
            differ = sorted(name for name in {*files, *row["files"]} if files.get(name) != row["files"].get(name))
            told, good = self._difference(here, about, row, differ, sample.provenance)
        return told + aside, good and not changed

    def _ask(self, row: dict[str, Any], about: "Told") -> Any:
        """Return the condition of a row; a mask that was given is the set's own, in its exact place."""
        import numpy as np

        from synth.data.orientation import lying_as
        from synth.errors import DataError
        from synth.sample import Condition

        condition = row["condition"]
        if condition.get("edit"):
            raise DataError(
                f"case {row['case']} is an edit of an image that the set has not; run its `synth edit` again"
            )
        mask = None
        if row.get("mask_origin") in ("given", "real"):
            mask = self._mask(about)
            affine = row.get("mask_affine")
            if affine is not None:
                try:
                    exact = np.array(affine, dtype=np.float64).reshape(4, 4)
                    mask = lying_as(mask, exact).replace(affine=exact)
                except (ValueError, TypeError) as error:
                    raise DataError(f"case {row['case']}: mask_affine is no affine ({error}); mend the line") from error
        return Condition(mask=mask, text=condition.get("text"), attributes=condition.get("attributes", {}))

    def _mask(self, about: "Told") -> "Volume":
        """Return the set's mask of a case, its labels named as the set names them. Errors: DataError."""
        from synth.errors import DataError

        if not self.there.keeps_grids:
            raise DataError(
                f"case {about.case!r} follows a mask, which {self.facts.format} does not keep as it was given; "
                "make such sets again with `synth generate`"
            )
        path = self.folder / self.there.paths(about.case)[-1]
        if not self.there.has(about.case):
            raise DataError(f"{path} is missing, and the sample follows it; copy the set with its masks")
        return self.there.part(about, self.there.parts(about)[-1])

    def _asked(self) -> dict[str, Any]:
        """Return the request beside the manifest, empty without one. Errors: DataError."""
        from pipelines.records import REQUEST, read_request

        path = self.folder / REQUEST
        return read_request(path, mend="copy it again") if path.is_file() else {}

    def _facts(self, plain: Any, asked: dict[str, Any], row: dict[str, Any]) -> "SetFacts":
        """Return what the set's cases share: those of the model, under the software that made them."""
        from pipelines.records import SetFacts, layout_of
        from synth.formats.writing import Description
        from synth.io import PICTURES, SUFFIXES

        schema = plain.model.recipe.schema
        assert schema is not None
        known = (end for name in row["files"] for end in (*SUFFIXES, *PICTURES) if name.lower().endswith(end))
        about = Description(
            name="again",
            channels=schema.channels,
            labels=schema.labels,
            # what an export was laid out from may have had another one
            file_ending=next(known, schema.file_ending) if self.exported else schema.file_ending,
            population=schema.population,
            software=str(row.get("software", "")),
        )
        return SetFacts(about=about, format=layout_of(asked or {"format": self.how.format or "nnunet"}))

    def _sampling(self, plain: Any, asked: dict[str, Any], row: dict[str, Any]) -> Any:
        """Return how the set was sampled, by its request or, without one, by the row as far as that says it."""
        from synth.errors import DataError
        from synth.generator import Sampling
        from synth.sampler import SAMPLERS

        part = plain.model.image.part
        said = asked.get("request") if self.exported else asked
        if not said:
            from pipelines.generate import parsed_window

            said = {
                "sampler": None if row.get("sampler") == part.sampler.kind else row.get("sampler"),
                "steps": None if row.get("steps") == part.steps else row.get("steps"),
                "guidance": None if row.get("guidance") == dict(part.guidance) else row.get("guidance"),
                "window": parsed_window(self.how.window),
            }
        try:
            kind, window = said.get("sampler"), said.get("window")
            return Sampling(
                sampler=SAMPLERS[kind] if kind else None,
                steps=said.get("steps"),
                guidance=said.get("guidance"),
                window=None if window is None else tuple(window),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self.folder / 'request.json'} does not say how the set was sampled ({error!r}); copy it again"
            ) from error

    def _difference(
        self, here: "Writer", about: "Told", row: dict[str, Any], differ: list[str], made: Any
    ) -> tuple[str, bool]:
        """Return the largest difference of volumes, in what environments differ, and whether that excuses it."""
        told, within = [], True
        *images, mask = here.parts(about)
        for name in (*images, mask):
            if name in row["files"] and name not in differ:
                continue
            peak = max((row.get("watermark") or {}).get("peaks", ()), default=0.0)
            text, small = _gap(self.there, here, about, name, peak=None if name == mask else peak)
            within = within and small
            told += [text] if text else []
        if not told and self.exported:
            return "identical in every voxel; the files were written by `synth export`", True
        told = told or [f"the voxels are equal, {', '.join(differ)} differ"]
        before = {**(row.get("environment") or {}), "software": row.get("software")}
        now = {**made.environment, "software": made.software}
        moved = [f"{name} {before.get(name)} -> {now.get(name)}" for name in now if before.get(name) != now.get(name)]
        where = f"environments differ in {', '.join(moved)}" if moved else "in the same environment"
        return f"different: {'; '.join(told)}; {where}", bool(moved or self.exported) and within


def _digest(writer: "Writer", name: str) -> str | None:
    """Return the sha256 of what a set holds under a name of its record; None where that is not there."""
    import hashlib

    from synth.errors import DataError

    whole = hashlib.sha256()
    try:
        with writer.opened(name) as file:
            while block := file.read(1 << 20):
                whole.update(block)
    except DataError:
        return None
    return whole.hexdigest()


def _gap(there: "Writer", here: "Writer", about: "Told", name: str, *, peak: float | None) -> tuple[str, bool]:
    """Return in words how a volume of the set differs from the one made again, and whether by no more than it may.

    peak    largest change by a watermark in native units, 0 without one; None for masks
    """
    import numpy as np

    from synth.data.orientation import lying_as
    from synth.errors import SynthError

    try:
        new = here.part(about, name)
        old = lying_as(there.part(about, name), new.affine)
    except SynthError:
        return f"{name} cannot be read to compare", False
    if old.data.shape != new.data.shape:
        return f"{name} has grid {old.grid}, again {new.grid}", False
    if not old.same_geometry(new):
        return f"{name} lies elsewhere", False
    if np.array_equal(old.data, new.data):
        return "", True
    if peak is None:
        share = float(np.mean(old.data != new.data))
        return f"{share:.3g} of the voxels of {name} differ", False
    gap = np.abs(old.data.astype(np.float64) - new.data.astype(np.float64)).max()
    extent = max(float(old.data.max()) - float(old.data.min()), 1e-12)
    whole = old.data.dtype.kind in "iu" and new.data.dtype.kind in "iu"
    step = 1.0 if whole else 0.0
    # in another environment a mark may lie elsewhere, so that each voxel moves by twice its largest change
    slack = 2 * max(peak, step) if peak else 0.0
    small = bool(gap <= max(TOLERANCE * extent, step) + slack)
    return f"{name} differs by {gap:.3g} at most, {gap / extent:.2g} of its range", small
