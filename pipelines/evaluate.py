"""synth evaluate: judge a synthetic set against real volumes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pipelines.utility import UtilityOptions

if TYPE_CHECKING:
    from evaluation.evidence import Bench, Evidence, Judged
    from evaluation.report import Report
    from synth.data.prepared import Prepared, PreparedCase
    from synth.data.seen import Seen


@dataclass(frozen=True, kw_only=True)
class Evaluate(UtilityOptions):
    """Write a report on SYNTHETIC: agreement with its control, fidelity, similarity, nearest neighbours, pictures."""

    synthetic: Path | None = None
    """The generated dataset."""
    data: Path | None = None
    """A prepared folder: real volumes, with its train, hold-out and test patients."""
    out: Path
    """Folder of the report."""
    judge: str | None = None
    """A judge folder (segmenter trained on real volumes); by default the shipped one that fits, else one is trained."""
    judge_steps: int = 600
    """Steps of training a judge on the real training volumes, where no shipped one fits; 0 = judge without."""
    save_judge: Path | None = None
    """Folder to keep the judge in that was trained, for later evaluations (--judge)."""
    only: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Sections to write, such as fidelity,privacy (commas, or the flag again); all by default."""
    gate: bool = False
    """End with the privacy verdict's exit code, 3 failed or 4 undecidable, and list in drop.txt what to drop."""
    allow_real_masks: bool = False
    """Samples may carry the masks of real patients."""
    model: str | None = None
    """The model that made the set, where its weights are to be judged too (denoising losses at 8 noise levels)."""
    seed: int = 0
    """Seed of permutations and pairs."""
    overwrite: bool = False
    """Replace an earlier report."""

    def run(self) -> int:
        """Judge and write."""
        from evaluation.judge import judge
        from pipelines.gate import pass_gate, sections
        from pipelines.progress import progress
        from synth.data.prepared import Prepared
        from synth.data.seen import require_trained_on

        if self.nnunet:
            return self._nnunet()
        only = sections(self.only)
        synthetic, data = self._check(only)
        seen = seen_by_model(synthetic)
        prepared = Prepared.load(data)
        if seen is not None:
            prepared = prepared if seen.fold is None else prepared.at_fold(seen.fold)
            require_trained_on(prepared, seen)
        evidence = self._evidence(prepared, only, synthetic, seen)
        with progress("judging", steps_of(evidence, only)) as bar:
            report = judge(evidence, only=only, progress=lambda _: bar.advance())
        _say_whose(report, prepared, seen)
        report.judged = digests(synthetic)
        report.write(self.out)
        _say(report, self.out)
        return pass_gate(report, self.out, weights=self.model is not None) if self.gate else 0

    def _check(self, only: tuple[str, ...]) -> tuple[Path, Path]:
        """Return the set and the data. Errors: ConfigError, OutputError for options that do not go together."""
        from evaluation.sections import SECTIONS
        from synth.errors import ConfigError, OutputError, nearest

        if self.synthetic is None or self.data is None:
            raise ConfigError("evaluate needs --synthetic, the generated dataset, and --data, a prepared folder")
        if self.out.exists() and any(self.out.iterdir()) and not self.overwrite:
            raise OutputError(f"{self.out} is not empty; give --overwrite or another --out")
        if self.judge_steps < 0:
            raise ConfigError(f"--judge-steps is {self.judge_steps}; give 0 or more")
        for name in only:
            if name not in SECTIONS:
                raise ConfigError(f"--only: no section of a report is called {name!r}; {nearest(name, SECTIONS)}")
        for name, given in (("--gate", self.gate), ("--model", self.model is not None)):
            if given and only and "privacy" not in only:
                raise ConfigError(f"{name} rests on the privacy section; add privacy to --only, or leave {name} out")
        return self.synthetic, self.data

    def _evidence(
        self, prepared: "Prepared", only: tuple[str, ...], synthetic: Path, seen: "Seen | None"
    ) -> "Evidence":
        """Return what is judged; a judge is trained only where a section asks for one."""
        from evaluation.evidence import Evidence
        from evaluation.sections import SEGMENTING
        from pipelines.judges import class_attribute, find_bench
        from pipelines.whitebox import denoising_losses, model_of_set

        schema = prepared.schema
        bench = find_bench(self.judge, schema)
        known = bench.segmenter.config.attribute if bench.segmenter is not None else class_attribute(schema)
        made = synthetic_set(synthetic, schema, attribute=known)
        asked = not only or bool(SEGMENTING & set(only))
        if bench.segmenter is None and self.judge is None and self.judge_steps and asked:
            bench = self._trained(prepared)
        loss = None
        if self.model is not None:
            loss = denoising_losses(self.model, schema, made_by=model_of_set(synthetic), seed=self.seed)
        asking = replace(self, utility=True) if "utility" in only else self
        scores = asking.utility_scores(prepared, made, seen, synthetic=synthetic, out=self.out)
        return Evidence(
            made,
            list(real_set(prepared, prepared.split("train"))),
            list(real_set(prepared, prepared.held_out)),
            schema.population,
            labels=tuple(label.name for label in schema.labels),
            spacing_mm=schema.spacing_mm,
            bench=bench,
            seed=self.seed,
            loss=loss,
            real_masks_allowed=self.allow_real_masks,
            utility=scores,
        )

    def _nnunet(self) -> int:
        from pipelines.utility import nnunet_report

        _say(nnunet_report(self.nnunet, self.out, data=self.data, seed=self.seed, overwrite=self.overwrite), self.out)
        return 0

    def _trained(self, prepared: "Prepared") -> "Bench":
        """Train a judge on the real training volumes; where there are too few, say why there is none."""
        from evaluation.evidence import Bench
        from evaluation.segmenter import save_judge
        from pipelines.judges import bench_of, train_bench
        from pipelines.progress import progress
        from synth.errors import DataError

        try:
            with progress("training a judge", self.judge_steps) as bar:
                model, facts = train_bench(
                    prepared, steps=self.judge_steps, seed=self.seed, report=lambda done, *_: bar.advance(done)
                )
        except DataError as error:
            return Bench(why_not=str(error))
        if self.save_judge is not None:
            save_judge(model, self.save_judge, facts=facts)
        return bench_of(model, facts)


def steps_of(evidence: "Evidence", only: Sequence[str]) -> int:
    """Return how many volumes' worth of work a judgement is, about: features, agreement, comparisons, losses."""
    made, train, held = (len(side) for side in (evidence.synthetic, evidence.training, evidence.holdout))
    steps = 2 * made + train + held
    if not only or "privacy" in only:
        steps += 2 * (made + held) + (train + held if evidence.loss is not None else 0)
    return steps


def _say(report: "Report", out: Path) -> None:
    """Print what a report says."""
    for note in report.notes:
        print(f"note: {note}")
    for name, verdict in sorted(report.verdicts.items()):
        print(f"{name}: {verdict.why}")
    for name, why in sorted(report.not_computed.items()):
        print(f"not computed: {name}: {why}")
    print(f"report in {out / 'index.html'}")


def seen_by_model(folder: Path) -> "Seen | None":
    """Return whom the model of a generated set saw; None where the set does not say.

    Errors: DataError where it tells of another model than the manifest names.
    """
    from synth.data.seen import SEEN_FILE, read_seen
    from synth.errors import DataError

    seen = read_seen(folder)
    if seen is not None and {row["model"]["sha256"] for row in manifest_rows(folder)} != {seen.model}:
        raise DataError(
            f"{folder / SEEN_FILE} is of another model than manifest.jsonl names; generate the set again or remove both"
        )
    return seen


def manifest_rows(folder: Path) -> "list[dict[str, Any]]":
    """Return the lines of a set's manifest; none without one. Errors: DataError where it is broken."""
    import json

    from synth.errors import DataError

    manifest = folder / "manifest.jsonl"
    try:
        rows = [json.loads(line) for line in manifest.read_text().splitlines()] if manifest.is_file() else []
        for row in rows:
            _ = row["case"], row["condition"]["attributes"].get, row["model"]["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{manifest} is broken ({error}); generate the set again or remove the manifest") from error
    return rows


def _say_whose(report: "Report", prepared: "Prepared", seen: "Seen | None") -> None:
    """Say in the report what its figures rest on: whose the cases are, and whom the model saw."""
    from evaluation.privacy.verdict import NO_GUARANTEE
    from evaluation.report import Verdict

    report.patients_assumed = prepared.patients_assumed
    if prepared.fold is not None:
        report.notes.append(f"judged on fold {prepared.fold}: the validation patients count as held out")
    if prepared.patients_assumed:
        report.notes.append("each case was taken as its own patient: assumed, nothing said whose the cases are")
    chose = len(prepared.split("holdout"))
    if chose and any(name.startswith("privacy.") for name in report.metrics):
        report.notes.append(
            f"{chose} of the {len(prepared.held_out)} held-out cases chose the checkpoint of a model trained here: the "
            "privacy audit takes them for unseen"
        )
    if seen is None:
        report.notes.append("whom the model was trained on is not recorded with the set: judged as claimed")
    elif seen.source is not None or seen.gap:
        whom = "does not record whom it saw" if seen.gap else "saw others"
        report.notes.append(f"fine-tuned from a model that {whom}: of those nothing here tells how private they stay")
    if len({case.patient for case in prepared.cases}) == 1:
        reason = "one patient only: nothing can be held apart; add patients, three at least"
        for name in [*report.metrics, *report.not_computed]:
            if name.split(".")[0] in ("privacy", "utility"):
                report.metrics.pop(name, None)
                report.not_computed[name] = reason
        for name in [name for name in report.verdicts if name.startswith("privacy.")]:
            report.verdicts[name] = Verdict(None, f"undecidable: {reason}; {NO_GUARANTEE}")


def real_set(prepared: "Prepared", cases: "Sequence[PreparedCase]") -> "Iterator[Judged]":
    """Yield prepared cases as the judge takes them."""
    from evaluation.evidence import Judged

    for case in cases:
        yield Judged(
            case.case,
            prepared.image(case),
            prepared.mask(case),
            patient=case.patient,
            attributes=case.attributes,
            text=case.text,
        )


def synthetic_set(folder: Path, schema, *, attribute: str) -> "list[Judged]":  # noqa: ANN001 - Schema
    """Return a generated dataset as the judge takes it: on the real data's working grid, mapped, labels by name."""

    from evaluation.evidence import Judged
    from synth.data.preparation import working_pair
    from synth.data.reading import read_image, read_mask
    from synth.errors import DataError
    from synth.formats import read as read_dataset
    from synth.formats.cases import values_of

    dataset = read_dataset(folder)
    rows = manifest_rows(folder)
    told = {row["case"]: row for row in rows}
    names = [label.name for label in schema.labels]
    strange = {label.value: label.name for label in dataset.labels if label.name not in names}
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
        mask = read_mask(case, dataset, native)
        # a fine-tuned model knows labels that its new data lacks, and may make none of them
        for value in strange.keys() & set(values_of(mask.data)) if strange else ():
            raise DataError(
                f"{folder}: label {strange[value]!r} of case {case.id} is not one of the real data's "
                f"({', '.join(names)}); judge like with like"
            )
        image, labels, _ = working_pair(native, mask, schema)
        row = told.get(case.id, {"condition": {"attributes": {}}})
        condition = row["condition"]
        out.append(
            Judged(
                case.id,
                image,
                labels,
                str(condition["attributes"].get(attribute, "")),
                attributes=condition["attributes"],
                text=condition.get("text"),
                mask_origin=row.get("mask_origin"),
                native_grid=native.grid,
                native_spacing_mm=tuple(float(step) for step in native.spacing_mm),
                asked_grid=tuple(condition.get("size") or ()),
                asked_spacing_mm=tuple(condition.get("spacing_mm") or ()),
            )
        )
    return out


def digests(folder: Path) -> dict[str, str]:
    """Return {path relative to the folder: sha256} of a dataset's images and masks, in whatever layout."""
    import os

    from synth.formats import read
    from synth.formats.nnunet import sha256_of

    named = {path for case in read(folder).cases for path in (*case.images, case.mask) if path is not None}
    files = {file for path in named for file in (path.iterdir() if path.is_dir() else [path]) if file.is_file()}
    return {Path(os.path.relpath(path, folder)).as_posix(): sha256_of(path) for path in sorted(files)}
