"""synth evaluate: judge a synthetic set against real volumes."""

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pipelines.measuring import FeatureOptions
from pipelines.real import RealOptions
from pipelines.utility import UtilityOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluation.evidence import Bench, Evidence
    from evaluation.report import Report
    from synth.data.prepared import Prepared
    from synth.data.seen import Seen


@dataclass(frozen=True, kw_only=True)
class Evaluate(RealOptions, FeatureOptions, UtilityOptions):
    """Write a report on SYNTHETIC: agreement with its control, fidelity, similarity, nearest neighbours, pictures."""

    synthetic: Path | None = None
    """The generated dataset."""
    out: Path
    """Folder of the report."""
    judge: str | None = None
    """A judge folder (segmenter trained on real volumes); by default the shipped one that fits, else one is trained."""
    judge_steps: int = 600
    """Steps of training a judge on the real training volumes, where no shipped one fits; 0 = judge without."""
    save_judge: Path | None = None
    """Folder to keep the judge in, for `synth generate --accept` and later evaluations (--judge). It holds data of real
    patients: OUT/internal/judge is a good place."""
    only: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Sections to write, such as fidelity,privacy (commas, or the flag again); all by default."""
    gate: bool = False
    """End with the privacy verdict's exit code, 3 failed or 4 undecidable, and list in drop.txt what to drop."""
    interactive: int = 0
    """Synthetic volumes to be turned in the page, from the best agreement to the worst; up to 12, in 2 MB and more."""
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
        from evaluation.judge import judge, steps
        from pipelines.acceptance import Tally, note_selection
        from pipelines.evidence import digests, require_unchanged, seen_by_model
        from pipelines.gate import pass_gate, sections
        from pipelines.judges import calibrated, keep_judge
        from pipelines.marks import note_marks
        from pipelines.progress import progress
        from pipelines.records import rows_beside

        only = sections(self.only)
        if self.nnunet:
            return self._nnunet()
        synthetic = self._check(only)
        judged = digests(synthetic)
        seen = seen_by_model(synthetic)
        rows = rows_beside(synthetic)
        accepted = Tally(rows)
        kept = None
        with self.real_side(seen, self.seed) as (prepared, unaudited):
            evidence = self._evidence(prepared, only, synthetic, seen, unaudited)
            evidence = replace(evidence, chosen=accepted.chosen)
            if self.save_judge is not None:
                kept = calibrated(evidence, prepared)
            with progress("judging", steps(evidence, only)) as bar:
                report = judge(evidence, only=only, progress=lambda _: bar.advance())
            _say_whose(report, prepared, seen, prepared_before=self.data is not None)
            _say_searched(report, prepared, seen, rows)
        require_unchanged(synthetic, judged)
        report.judged = judged
        note_selection(report, accepted)
        note_marks(report, rows)
        if report.volumes:
            report.viewer = viewer_source()
        report.write(self.out)
        if kept is not None and self.save_judge is not None:  # last: a run that was cut short can be repeated as it is
            keep_judge(kept, evidence.bench, self.save_judge)
        _say(report, self.out)
        return pass_gate(report, self.out, weights=self.model is not None) if self.gate else 0

    def _check(self, only: tuple[str, ...]) -> Path:
        """Return the set. Errors: ConfigError, OutputError for options that do not go together."""
        from pipelines.places import lie_together, require_apart
        from synth.errors import ConfigError, OutputError

        if self.synthetic is None:
            raise ConfigError("evaluate needs --synthetic, the generated dataset")
        self.check_real()
        if self.real is not None and lie_together(self.synthetic, self.real):
            raise ConfigError(f"--real {self.real} and the judged set lie in one another; give real volumes")
        if self.out.exists() and any(self.out.iterdir()) and not self.overwrite:
            raise OutputError(f"{self.out} is not empty; give --overwrite or another --out")
        require_apart(self.out, self.synthetic, self.data, self.real, self.training, self.holdout)
        self._check_judge()
        self._check_interactive(only)
        if self.judge_steps < 0:
            raise ConfigError(f"--judge-steps is {self.judge_steps}; give 0 or more")
        for name, given in (("--gate", self.gate), ("--model", self.model is not None)):
            if given and only and "privacy" not in only:
                raise ConfigError(f"{name} rests on the privacy section; add privacy to --only, or leave {name} out")
        return self.synthetic

    def _check_judge(self) -> None:
        """Errors: OutputError where the judge would replace something else, or lie among what is shared or judged."""
        from synth.errors import OutputError

        if self.save_judge is None:
            return
        place, out = self.save_judge.resolve(), self.out.resolve()
        given = (self.synthetic, self.data, self.real, self.training, self.holdout)
        if out in place.parents and out / "internal" not in place.parents:  # beside what is shared
            raise OutputError(f"--save-judge {self.save_judge} lies in {out}; give {self.out / 'internal/judge'}")
        for other in (one.resolve() for one in given if one is not None):
            if place == other or other in place.parents:
                raise OutputError(f"--save-judge {self.save_judge} lies in {other}; give {self.out / 'internal/judge'}")
        if place == out or place in out.parents:
            raise OutputError(f"--save-judge {self.save_judge} holds --out; give {self.out / 'internal/judge'}")
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            known = (place / "judge.json").is_file() or (place / "accept.json").is_file()
            if not (known and self.overwrite):
                mend = "give --overwrite or another folder" if known else "give another folder"
                raise OutputError(f"--save-judge {self.save_judge} is not empty; {mend}")

    def _check_interactive(self, only: tuple[str, ...]) -> None:
        """Errors: ConfigError for a number out of range, or without the section that shows volumes."""
        from evaluation.interactive import MOST
        from synth.errors import ConfigError

        if not 0 <= self.interactive <= MOST:
            raise ConfigError(f"--interactive is {self.interactive}; give 0 to {MOST}")
        if self.interactive and only and "pictures" not in only:
            raise ConfigError("--interactive is of the pictures section; add pictures to --only, or leave it out")

    def _evidence(
        self, prepared: "Prepared", only: tuple[str, ...], synthetic: Path, seen: "Seen | None", unaudited: str
    ) -> "Evidence":
        """Return what is judged; a judge is trained only where a section asks for one."""
        from evaluation.evidence import Evidence
        from evaluation.sections import SEGMENTING
        from pipelines.evidence import real_set, synthetic_set
        from pipelines.judges import class_attribute, find_bench
        from pipelines.whitebox import denoising_losses, model_of_set, selection

        schema = prepared.schema
        features = self.feature_settings(self.out, schema.spacing_mm)
        bench = find_bench(self.judge, schema, prepared)
        known = bench.segmenter.config.attribute if bench.segmenter is not None else class_attribute(schema)
        made = synthetic_set(synthetic, schema, attribute=known, masks={row.mask_digest for row in prepared.rows})
        self.require_others(prepared, made)
        asked = not only or bool(SEGMENTING & set(only)) or self.save_judge is not None
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
            intensities=schema.intensities,
            bench=bench,
            seed=self.seed,
            loss=loss,
            real_masks_allowed=self.allow_real_masks,
            selection=selection(prepared, seen, prepared_before=self.data is not None),
            interactive=self.interactive,
            unaudited=unaudited,
            utility=scores,
            **features,
        )

    def _nnunet(self) -> int:
        """Judge nnU-Net's scores alone. Errors: ConfigError for options that would be left undone."""
        from pipelines.utility import nnunet_report
        from synth.errors import ConfigError

        used = ("nnunet", "out", "data", "seed", "overwrite")
        for one in fields(self):
            if one.name not in used and getattr(self, one.name) != one.default:
                option = one.name.replace("_", "-")
                raise ConfigError(f"--nnunet judges nnU-Net's scores alone; leave --{option} out, or run it by itself")
        _say(nnunet_report(self.nnunet, self.out, data=self.data, seed=self.seed, overwrite=self.overwrite), self.out)
        return 0

    def _trained(self, prepared: "Prepared") -> "Bench":
        """Train a judge on the real training volumes; where there are too few, say why there is none."""
        from evaluation.evidence import Bench
        from pipelines.judges import bench_of, train_bench
        from pipelines.progress import progress
        from synth.data.seen import Seen
        from synth.errors import DataError

        try:
            with progress("training a judge", self.judge_steps) as bar:
                model, facts = train_bench(
                    prepared, steps=self.judge_steps, seed=self.seed, report=lambda done, *_: bar.advance(done)
                )
        except DataError as error:
            return Bench(why_not=error.unnamed)
        seen = Seen.of(prepared, seed=self.seed).trained()
        return bench_of(model, facts, seen, prepared)


def viewer_source() -> str:
    """Return NiiVue with its licence, as pages take it in: links in its comments are cut, so that none leads out."""
    assets = Path(__file__).parent / "page" / "assets"
    source = f"/*\n{(assets / 'niivue.LICENSE').read_text()}\n*/\n{(assets / 'niivue.umd.js').read_text()}"
    return re.sub(r"https?://", "", source)


def _say(report: "Report", out: Path) -> None:
    """Print what a report says."""
    for note in report.notes:
        print(f"note: {note}")
    for name, verdict in sorted(report.verdicts.items()):
        print(f"{name}: {verdict.why}")
    families = [name for name in sorted(report.not_computed) if "." not in name]
    if families:
        print(f"not computed: {', '.join(families)}: {report.not_computed[families[0]]}")
    for name, why in sorted(report.not_computed.items()):
        if name not in families:
            print(f"not computed: {name}: {why}")
    if report.volumes:
        from evaluation.interactive import LARGEST_BYTES, fitting

        left = len(report.volumes) - len(fitting(report.volumes))
        if left:
            print(f"{left} volumes are left out of the page, which holds {LARGEST_BYTES >> 20} MiB of them")
        if any(one.inside for one in report.volumes):
            print("privacy was not judged, or did not pass: volumes to turn are in internal/ alone")
    print(f"report in {out / 'index.html'}")


def _say_whose(report: "Report", prepared: "Prepared", seen: "Seen | None", *, prepared_before: bool) -> None:
    """Say in the report what its figures rest on: whose the cases are, and whom the model saw.

    prepared_before   `synth prepare` made the sides, so that a model trained on it has its checkpoint chosen by one
    """
    from evaluation.privacy.verdict import NO_GUARANTEE
    from evaluation.report import Verdict
    from pipelines.origins import seen_beside

    report.patients_assumed = prepared.patients_assumed
    if prepared.fold is not None:
        report.notes.append(f"judged on fold {prepared.fold}: the validation patients count as held out")
    if prepared.patients_assumed:
        report.notes.append("each case was taken as its own patient: assumed, nothing said whose the cases are")
    chose = len(prepared.split("holdout")) if prepared_before else 0
    if chose and any(name.startswith("privacy.") for name in report.metrics):
        report.notes.append(
            f"{chose} of the {len(prepared.held_out)} held-out cases chose the checkpoint of a model trained here: the "
            "audit of the images takes them for unseen, that of the weights leaves them out"
        )
    if seen is None:
        report.notes.append("whom the model was trained on is not recorded with the set: judged as claimed")
    elif seen_beside(seen, [prepared.digest(case) for case in prepared.split("train")]):
        whom = "does not record whom it saw" if seen.gap else "saw others"
        report.notes.append(f"fine-tuned from a model that {whom}: of those nothing here tells how private they stay")
    if len({case.patient for case in prepared.cases}) == 1:
        reason = "one patient only: nothing can be held apart; add patients, three at least"
        for name in [*report.metrics, *report.not_computed]:
            if name.startswith(("privacy.", "utility.")):
                report.metrics.pop(name, None)
                report.not_computed[name] = reason
        for name in [name for name in report.verdicts if name.startswith("privacy.")]:
            report.verdicts[name] = Verdict(None, f"undecidable: {reason}; {NO_GUARANTEE}")


def _say_searched(
    report: "Report", prepared: "Prepared", seen: "Seen | None", rows: "Sequence[Mapping[str, Any]]"
) -> None:
    """Say in the privacy verdicts among whom copies were looked for, where samples may show others too."""
    from pipelines.origins import not_searched

    if not any(name.startswith("privacy.") for name in report.metrics):
        return
    told = not_searched(seen, [prepared.digest(case) for case in prepared.split("train")], rows)
    for name, verdict in report.verdicts.items():
        if told and name.startswith("privacy."):
            report.verdicts[name] = replace(verdict, why=f"{verdict.why}; {told}")
