"""synth evaluate: judge a synthetic set against real volumes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.judge import Bench, Judged
    from synth.data.prepared import Prepared, PreparedCase


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Write a report on SYNTHETIC: agreement with its control, fidelity, similarity, nearest neighbours, pictures."""

    synthetic: Path
    """The generated dataset."""
    data: Path
    """A prepared folder: real volumes, with its train, hold-out and test patients."""
    out: Path
    """Folder of the report."""
    judge: str | None = None
    """A judge folder (segmenter trained on real volumes); by default the shipped one that fits."""
    seed: int = 0
    """Seed of permutations and pairs."""
    overwrite: bool = False
    """Replace an earlier report."""

    def run(self) -> int:
        """Judge and write."""
        from evaluation.judge import judge
        from pipelines.progress import progress
        from synth.data.prepared import Prepared
        from synth.errors import OutputError

        if self.out.exists() and any(self.out.iterdir()) and not self.overwrite:
            raise OutputError(f"{self.out} is not empty; give --overwrite or another --out")
        prepared = Prepared.load(self.data)
        held = [*prepared.split("holdout"), *prepared.split("test")]
        made = synthetic_set(self.synthetic, prepared.schema)
        bench = find_bench(self.judge, [label.name for label in prepared.schema.labels], prepared.schema.channels)
        total = 2 * len(made) + len(prepared.cases)
        with progress("judging", total) as bar:
            report = judge(
                made,
                real=list(real_set(prepared, held)),
                training=list(real_set(prepared, prepared.split("train"))),
                population=prepared.schema.population,
                bench=bench,
                seed=self.seed,
                progress=lambda _: bar.advance(),
            )
        report.judged = digests(self.synthetic)
        report.write(self.out)
        for name, verdict in sorted(report.verdicts.items()):
            print(f"{name}: {verdict.why}")
        for name, why in sorted(report.not_computed.items()):
            print(f"not computed: {name}: {why}")
        print(f"report in {self.out / 'index.html'}")
        return 0


def real_set(prepared: "Prepared", cases: "Sequence[PreparedCase]") -> "Iterator[Judged]":
    """Yield prepared cases as the judge takes them."""
    from evaluation.judge import Judged

    for case in cases:
        yield Judged(case.case, prepared.image(case), prepared.mask(case))


def synthetic_set(folder: Path, schema, *, attribute: str = "contrast") -> "list[Judged]":  # noqa: ANN001 - Schema
    """Return a generated dataset as the judge takes it: on the real data's working grid, mapped, labels by name."""
    import json

    from evaluation.judge import Judged
    from synth.data.preparation import working_pair
    from synth.data.reading import read_image, read_mask
    from synth.errors import DataError
    from synth.formats import read as read_dataset

    dataset = read_dataset(folder)
    manifest = folder / "manifest.jsonl"
    try:
        rows = [json.loads(line) for line in manifest.read_text().splitlines()] if manifest.is_file() else []
        asked = {row["case"]: str(row["condition"]["attributes"].get(attribute, "")) for row in rows}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{manifest} is broken ({error}); generate the set again or remove the manifest") from error
    names = [label.name for label in schema.labels]
    for label in dataset.labels:
        if label.name not in names:
            raise DataError(
                f"{folder}: label {label.name!r} is not one of the real data's ({', '.join(names)}); "
                "judge like with like"
            )
    out = []
    for case in dataset.cases:
        if case.mask is None:
            raise DataError(f"{folder}: case {case.id} has no mask; pairs are judged, so give it one or drop it")
        native = read_image(case, dataset, varied=False)
        if native.channels != len(schema.intensities):
            raise DataError(
                f"{folder}: case {case.id} has {native.channels} channels, the real data has "
                f"{len(schema.intensities)}; judge like with like"
            )
        if native.spatial_dims != len(schema.grid):
            raise DataError(
                f"{folder}: case {case.id} is {native.spatial_dims}D, the real data {len(schema.grid)}D; "
                "judge like with like"
            )
        image, labels, _ = working_pair(native, read_mask(case, dataset, native), schema)
        out.append(Judged(case.id, image, labels, asked.get(case.id, "")))
    return out


def find_bench(judge: str | None, labels: list[str], channels: tuple[str, ...]) -> "Bench":
    """Return the judge's bench: the named folder, or the shipped one where labels and channels fit."""
    from importlib.util import find_spec

    from evaluation.judge import Bench
    from evaluation.segmenter import load_judge

    if judge is not None:
        folders = [Path(judge)]
    else:
        spec = find_spec("evaluation")
        places = list(spec.submodule_search_locations or ()) if spec else []
        folders = [path.parent for place in places for path in sorted(Path(place).glob("assets/*/judge.json"))]
    for folder in folders:
        model, facts = load_judge(folder)
        if list(model.config.labels) == labels and model.config.channels == len(channels):
            scores = facts["held_out_dice"]
            assert isinstance(scores, dict)
            return Bench(model, {str(k): float(v) for k, v in scores.items()})
    return Bench(why_not="no shipped judge knows these labels; give --judge FOLDER")


def digests(folder: Path) -> dict[str, str]:
    """Return {path relative to the folder: sha256} of a dataset's images and masks, in whatever layout."""
    import os

    from synth.formats import read
    from synth.formats.nnunet import sha256_of

    named = {path for case in read(folder).cases for path in (*case.images, case.mask) if path is not None}
    files = {file for path in named for file in (path.iterdir() if path.is_dir() else [path]) if file.is_file()}
    return {Path(os.path.relpath(path, folder)).as_posix(): sha256_of(path) for path in sorted(files)}
