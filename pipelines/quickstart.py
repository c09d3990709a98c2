"""synth quickstart: eight pairs of the bundled model over its conditions, as a dataset with a report."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.generate import FormatName


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Generate 8 pairs with the bundled model and judge them with the judge that ships beside it."""

    out: Path
    """Folder to write: dataset/ and report/."""
    seed: int = 0
    """Seed of the set."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:i; auto takes a GPU where there is one."""
    workers: int = 0
    """Processes of one thread each; 0 = one a core, one in all on a GPU."""
    format: FormatName = "nnunet"
    """Layout of dataset/, one that is read as files: all but medmnist and webdataset."""
    prompts: bool = False
    """Also write prompts.jsonl and boxes.json: points, boxes, scribbles, captions, questions, measured on the masks."""

    def run(self) -> int:
        """Generate, then judge."""
        from evaluation.evidence import Evidence
        from evaluation.judge import judge, steps
        from pipelines.evidence import digests, require_unchanged, synthetic_set
        from pipelines.generate import Generate
        from pipelines.judges import class_attribute, find_bench
        from pipelines.progress import progress
        from synth.errors import ConfigError
        from synth.generator import load

        if self.format in ARCHIVES:
            raise ConfigError(
                f"--format {self.format} makes archives, which the judge does not read; generate them with "
                f"`synth generate {MODEL} --format {self.format}`, or give another --format"
            )
        self._require_own()
        dataset, report_folder = self.out / "dataset", self.out / "report"
        asked = {"seed": self.seed, "workers": self.workers, "device": self.device}
        asked |= {"format": self.format, "prompts": self.prompts}
        Generate(model=MODEL, out=dataset, count=COUNT, spread=("contrast",), **asked).run()
        schema = load(MODEL).model.recipe.schema
        assert schema is not None
        judged = digests(dataset)
        made = synthetic_set(dataset, schema, attribute=class_attribute(schema))
        bench = find_bench(None, schema)
        evidence = Evidence(
            made,
            [],
            [],
            schema.population,
            labels=tuple(label.name for label in schema.labels),
            spacing_mm=schema.spacing_mm,
            intensities=schema.intensities,
            bench=bench,
            seed=self.seed,
        )
        with progress("judging", steps(evidence)) as bar:
            report = judge(evidence, progress=lambda _: bar.advance())
        require_unchanged(dataset, judged)
        report.judged = judged
        report.write(report_folder)
        for name, verdict in sorted(report.verdicts.items()):
            print(f"{name}: {verdict.why}")
        print(f"dataset in {dataset}, report in {report_folder / 'index.html'}")
        return 0

    def _require_own(self) -> None:
        """Errors: OutputError where --out holds anything but what quickstart writes: a report would be replaced."""
        from pipelines.records import REQUEST
        from synth.errors import OutputError

        for folder, own in ((self.out, ("dataset", "report")), (self.out / "report", REPORT)):
            strange = sorted(one.name for one in folder.iterdir() if one.name not in own) if folder.is_dir() else []
            if strange:
                raise OutputError(f"{folder} holds {strange[0]!r}, which quickstart did not write; give another --out")
        if (self.out / "report").exists() and not (self.out / "dataset" / REQUEST).is_file():
            raise OutputError(f"{self.out / 'report'} is of no quickstart, whose dataset is gone; give another --out")


MODEL = "brain-tiny"
COUNT = 8
REPORT = ("report.json", "index.html", "share", "internal")
ARCHIVES = ("medmnist", "webdataset")
