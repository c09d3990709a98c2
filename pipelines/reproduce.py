"""synth reproduce: a sample of a set made again from what the manifest says, and compared with what it was."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synth.volume import Volume

DIFFERENT = 3
TOLERANCE = 1e-4
"""Of an image's range: what another numeric environment may change."""


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

    def run(self) -> int:
        """Make the samples again, one line each."""
        import tempfile

        from pipelines.records import MANIFEST
        from synth.errors import ConfigError

        if self.all == bool(self.case):
            raise ConfigError("give --case NAME, or --all")
        manifest = self.manifest / MANIFEST if self.manifest.is_dir() else self.manifest
        rows = self._rows(manifest)
        again: Again | None = None
        worst = 0
        with tempfile.TemporaryDirectory(prefix="synth-reproduce-") as scratch:
            for row in rows:
                again = again or Again(self, manifest.parent, row, Path(scratch))
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

    def __init__(self, how: Reproduce, folder: Path, row: dict[str, Any], scratch: Path) -> None:
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
        self.generator = plain.with_sampling(self._sampling(plain, row))
        schema = plain.model.recipe.schema
        assert schema is not None
        from pipelines.records import SetFacts

        facts = SetFacts(
            name="again", channels=schema.channels, labels=schema.label_values, file_ending=schema.file_ending, extra={}
        )
        self.writer, self.scratch = facts.writer(scratch), scratch

    def compare(self, row: dict[str, Any]) -> tuple[str, bool]:
        """Return in words how a sample made again compares with the set's, and whether that is as it should be."""
        from synth.errors import DataError
        from synth.formats.nnunet import sha256_of
        from synth.generator import Seed

        if row["model"].get("sha256") != self.sha256:
            raise DataError(f"case {row['case']} is of another model than those before; give it alone by --case")
        seed = Seed(row["seed"], row["index"], row["attempt"])
        sample = next(self.generator.generate([self._ask(row)], seeds=[seed]))
        assert sample.mask is not None
        files = self.writer.add(row["case"], sample.image, sample.mask)
        changed = [
            name
            for name, digest in row["files"].items()
            if not (self.folder / name).is_file() or sha256_of(self.folder / name) != digest
        ]
        aside = f"; on disk {', '.join(changed)} is missing or was changed" if changed else ""
        if files == row["files"]:
            told, good = "identical", True
        else:
            told, good = self._difference(row, files, sample.provenance.environment, sample.provenance.software)
        for name in files:
            (self.scratch / name).unlink()
        return told + aside, good and not changed

    def _ask(self, row: dict[str, Any]) -> Any:
        """Return the condition of a row; a mask that was given is the set's own, in its exact place."""
        import numpy as np

        from synth.errors import DataError
        from synth.sample import Condition

        condition = row["condition"]
        mask = None
        if row.get("mask_origin") in ("given", "real"):
            mask = self._mask(row)
            affine = row.get("mask_affine")
            if affine is not None:
                try:
                    mask = mask.replace(affine=np.array(affine, dtype=np.float64).reshape(4, 4))
                except (ValueError, TypeError) as error:
                    raise DataError(f"case {row['case']}: mask_affine is no affine ({error}); mend the line") from error
        return Condition(mask=mask, text=condition.get("text"), attributes=condition.get("attributes", {}))

    def _mask(self, row: dict[str, Any]) -> "Volume":
        """Return the set's mask of a case, its labels named as the set names them. Errors: DataError."""
        from synth.errors import DataError
        from synth.formats.nnunet import DatasetWriter
        from synth.io import read

        assert isinstance(self.writer, DatasetWriter)
        path = self.folder / self.writer.paths(row["case"])[-1]
        if not path.is_file():
            raise DataError(f"{path} is missing, and the sample follows it; copy the set with its masks")
        return read(path, labels=self.writer.values)

    def _sampling(self, plain: Any, row: dict[str, Any]) -> Any:
        """Return how the set was sampled, by its request or, without one, by the row as far as that says it."""
        from synth.errors import DataError
        from synth.formats.cases import read_json
        from synth.generator import Sampling
        from synth.sampler import SAMPLERS

        part = plain.model.image.part
        path = self.folder / "request.json"
        if path.is_file():
            asked = read_json(path, needed_by="the set")
        else:
            from pipelines.generate import parsed_window

            asked = {
                "sampler": None if row.get("sampler") == part.sampler.kind else row.get("sampler"),
                "steps": None if row.get("steps") == part.steps else row.get("steps"),
                "guidance": None if row.get("guidance") == dict(part.guidance) else row.get("guidance"),
                "window": parsed_window(self.how.window),
            }
        try:
            kind, window = asked.get("sampler"), asked.get("window")
            return Sampling(
                sampler=SAMPLERS[kind] if kind else None,
                steps=asked.get("steps"),
                guidance=asked.get("guidance"),
                window=None if window is None else tuple(window),
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"{path} does not say how the set was sampled ({error!r}); copy it again") from error

    def _difference(self, row: dict[str, Any], files: dict[str, str], here: Any, software: str) -> tuple[str, bool]:
        """Return the largest difference of files, in what environments differ, and whether that excuses it."""
        import numpy as np

        from synth.errors import SynthError
        from synth.io import read

        told, within = [], True
        for name in files:
            if files[name] == row["files"].get(name):
                continue
            is_mask = name == self.writer.paths(row["case"])[-1].as_posix()
            try:
                old, new = (read(place / name, labels={} if is_mask else None) for place in (self.folder, self.scratch))
            except SynthError:
                told.append(f"{name} cannot be read to compare")
                within = False
                continue
            if old.data.shape != new.data.shape:
                told.append(f"{name} has grid {old.grid}, again {new.grid}")
                within = False
            elif is_mask:
                share = float(np.mean(old.data != new.data))
                told.append(f"{share:.3g} of the voxels of {name} differ")
                within = within and share == 0
            else:
                gap = np.abs(old.data.astype(np.float64) - new.data.astype(np.float64)).max()
                extent = max(float(old.data.max()) - float(old.data.min()), 1e-12)
                told.append(f"{name} differs by {gap:.3g} at most, {gap / extent:.2g} of its range")
                within = within and bool(gap <= TOLERANCE * extent)
        before = {**(row.get("environment") or {}), "software": row.get("software")}
        now = {**here, "software": software}
        moved = [f"{name} {before.get(name)} -> {now.get(name)}" for name in now if before.get(name) != now.get(name)]
        where = f"environments differ in {', '.join(moved)}" if moved else "in the same environment"
        return f"different: {'; '.join(told)}; {where}", bool(moved) and within
