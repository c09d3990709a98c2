"""The utility part of `synth evaluate`: its options, its experiments run by processes of one thread, nnU-Net's scores.

Wires `evaluation.utility`; the statistics and the training are there.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from evaluation.evidence import Judged
    from evaluation.report import Report
    from evaluation.utility.arms import Known, Volumes
    from evaluation.utility.config import Job, UtilityConfig
    from evaluation.utility.run import UtilityScores
    from pipelines.progress import Progress
    from synth.data.prepared import Prepared, PreparedCase
    from synth.data.seen import Seen

_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class UtilityOptions:
    """Options that `synth evaluate` takes for downstream utility."""

    utility: bool = False
    """Train networks with and without the set and test them on real patients never trained on: takes minutes."""
    utility_tasks: tuple[Literal["segmentation", "classification"], ...] = ("segmentation",)
    """What the networks learn: masks, the first categorical attribute, or both."""
    utility_arms: tuple[str, ...] = ("R", "S", "RS", "RA", "RR", "G")
    """R real, S synthetic, RS both, RA real augmented, RR real repeated, RSA, RX CutMix, T and RT copies, G all real
    training patients at whatever fraction: those that the generator saw."""
    utility_fractions: tuple[float, ...] = (1.0,)
    """Shares of the real training patients; the first is the headline."""
    utility_ratios: tuple[float, ...] = ()
    """Synthetic to real volumes; none = the whole set."""
    utility_seeds: int = 3
    """Networks of each arm, seeds 0, 1, ...: their weights and which real patients a share takes."""
    utility_steps: int = 1000
    """Steps of training, the same for every arm."""
    utility_width: int = 16
    """Width of the network's first level, a multiple of 8."""
    utility_rates: tuple[float, ...] = (1e-2,)
    """Learning rates; of several, each network takes the best on training patients set apart: about twice the time."""
    utility_lesions: tuple[str, ...] = ()
    """Labels whose separate parts count as lesions; none = those whose names say so."""
    utility_folder: Path | None = None
    """Where the scores of each network are kept, so that a killed run goes on; by default beside --out."""
    utility_workers: int = 0
    """Processes of one thread each; 0 = one a core."""
    utility_device: str = "cpu"
    """Where the networks are trained: cpu, cuda, cuda:i or auto; several processes share a GPU."""
    export_arms: Path | None = None
    """Also write the arms as nnU-Net datasets here, with the commands to train them; needs --native."""
    native: Path | None = None
    """The dataset that --data was prepared from, for --export-arms."""
    nnunet: tuple[str, ...] = ()
    """Judge nnU-Net's own scores instead: R=FOLDER RS=FOLDER ..., each with its summary.json files."""

    def utility_configs(self) -> "list[UtilityConfig]":
        """Return one experiment a task. Errors: ConfigError with the field."""
        from evaluation.utility.config import UtilityConfig
        from pipelines.machine import device_of
        from synth.errors import ConfigError

        if self.utility_seeds < 1:
            raise ConfigError(f"--utility-seeds is {self.utility_seeds}; give at least 1, better 3")
        if self.utility_workers < 0:
            raise ConfigError(f"--utility-workers is {self.utility_workers}; give 0 or more")
        return [
            UtilityConfig(
                task=task,
                arms=self.utility_arms,
                fractions=self.utility_fractions,
                ratios=self.utility_ratios,
                seeds=tuple(range(self.utility_seeds)),
                steps=self.utility_steps,
                width=self.utility_width,
                rates=self.utility_rates,
                lesions=self.utility_lesions,
                device=str(device_of(self.utility_device, "--utility-device")),
            )
            for task in self.utility_tasks
        ]

    def utility_scores(
        self, prepared: "Prepared", made: "Sequence[Judged]", seen: "Seen | None", *, synthetic: Path, out: Path
    ) -> "list[UtilityScores]":
        """Export the arms and run the experiments that were asked for; where there are too few cases, say why.

        Errors: ConfigError for options, DataError and OutputError for arms that cannot be exported.
        """
        from evaluation.utility.run import UtilityScores
        from pipelines.records import rows_beside
        from synth.errors import ConfigError, DataError

        if not self.utility and self.export_arms is None:
            return []
        configs = self.utility_configs()
        if self.export_arms is not None and self.native is None:
            raise ConfigError("--export-arms writes native volumes; give --native, what --data was prepared from")
        if self.export_arms is not None and self.export_arms.resolve() == out.resolve():
            raise ConfigError(f"--export-arms and --out are both {out}; give each its own")
        try:
            require_no_patients(made)
            require_own_models(rows_beside(synthetic))
            test = unseen(prepared, seen)
        except DataError as error:
            if self.export_arms is not None:
                raise
            return [UtilityScores(config, (), why_not=error.unnamed) for config in configs]
        volumes = volumes_of(prepared, made, test, seen)
        if self.export_arms is not None and self.native is not None:
            from pipelines.nnunet_arms import export_arms

            export_arms(self.export_arms, configs[0], volumes, prepared, native=self.native, synthetic=synthetic)
            print(f"arms in {self.export_arms}: README.md says what they are, commands.sh trains them")
        folder = self.utility_folder or out.resolve().with_name(f"{out.resolve().name}-utility")
        wanted = configs if self.utility else []
        return [run_experiment(prepared, volumes, one, folder, workers=self.utility_workers) for one in wanted]


def require_no_patients(made: "Sequence[Judged]") -> None:
    """Errors: DataError where samples are edits of images of patients, who may be those to test on."""
    from synth.errors import DataError

    if count := sum(item.edits_patient for item in made):
        raise DataError(
            f"{count} of {len(made)} samples are edits of images not known to be synthetic, whose patients may be "
            "those to test on; give edits of generated samples"
        )


def require_own_models(rows: Sequence[Mapping[str, Any]]) -> None:
    """Errors: DataError where samples are edits of samples of another model, which may have seen those to test on."""
    from pipelines.origins import other_models
    from synth.errors import DataError

    count = sum(bool(other_models([row])) for row in rows)
    if count:
        raise DataError(
            f"{count} of {len(rows)} samples are edits of samples of another model, and whom that saw is not told "
            "here: it may be those to test on; give edits of samples of the model itself"
        )


def unseen(prepared: "Prepared", seen: "Seen | None") -> "tuple[PreparedCase, ...]":
    """Return the real cases to test on, of patients that neither trained the generator nor chose its checkpoint.

    Errors: DataError where there are none, or one patient only; it stands in reports, and names no folder.
    """
    from synth.data.seen import unseen_cases
    from synth.errors import DataError

    if len({case.patient for case in prepared.cases}) == 1:
        raise DataError("one patient only: nothing can be held apart; add patients, three at least")
    view = prepared if seen is None or seen.fold is None else prepared.at_fold(seen.fold)
    if not view.split("test" if view.fold is None else "val"):
        raise DataError(
            "no real test patients; give --data that `synth prepare --test` made, or --training and --holdout with "
            "further patients in --real"
        )
    return unseen_cases(prepared, seen)


def volumes_of(
    prepared: "Prepared", made: "Sequence[Judged]", test: "Sequence[PreparedCase]", seen: "Seen | None" = None
) -> "Volumes":
    """Return training, synthetic and test volumes of an experiment. Errors: DataError where a side is empty."""
    from evaluation.utility.arms import Volumes
    from pipelines.evidence import real_set
    from pipelines.judges import class_attribute

    attribute = class_attribute(prepared.schema)
    return Volumes(
        list(real_set(prepared, prepared.split("train"))),
        list(made),
        list(real_set(prepared, test)),
        labels=tuple(label.name for label in prepared.schema.labels),
        spacing_mm=prepared.schema.spacing_mm,
        attribute=attribute,
        levels=next((a.levels for a in prepared.schema.attributes if a.name == attribute), ()),
        generator=known_of(prepared, seen),
    )


def known_of(prepared: "Prepared", seen: "Seen | None") -> "Known":
    """Return which training patients the generator saw, and what else, as its set records it."""
    from evaluation.utility.arms import Known
    from pipelines.origins import seen_beside

    if seen is None:
        return Known()
    digests = {prepared.digest(case): case.patient for case in prepared.split("train")}
    trained = frozenset(patient for digest, patient in digests.items() if seen.trained().has(digest))
    return Known(trained, len(seen.holdout), " and ".join(seen_beside(seen, digests)))


@dataclass(frozen=True, eq=False)
class _Work:
    """What a worker process needs: real volumes are read from `data` again, synthetic ones travel.

    done, stop   shared by all processes: how many steps and cases are done, and whether to stop
    """

    data: Path
    fold: int | None
    made: "list[Judged]"
    test: tuple[str, ...]
    config: "UtilityConfig"
    folder: Path
    digest: str
    done: Any
    stop: Any


def run_experiment(
    prepared: "Prepared", volumes: "Volumes", config: "UtilityConfig", folder: Path, *, workers: int = 0
) -> "UtilityScores":
    """Train and score what has no file yet in `folder`, by processes of one thread, and return all scores.

    Scores do not depend on the number of processes. Where the experiment cannot be done, the scores say why.
    Errors: ConfigError without MONAI.
    """
    import multiprocessing

    from evaluation.utility.run import UtilityScores, check, collected, digest_of, read_result, work_of
    from pipelines.progress import progress
    from pipelines.workers import cores
    from synth.errors import DataError

    try:
        jobs, left_out = check(volumes, config)
    except DataError as error:
        return UtilityScores(config, (), why_not=error.unnamed)
    digest = digest_of(volumes, config)
    place = folder / digest
    todo = [job for job in jobs if read_result(job, place, digest=digest) is None]
    shared = multiprocessing.get_context("spawn")
    test = tuple(item.case for item in volumes.test)
    done, stop = shared.Value("q", 0), shared.Value("b", 0)
    work = _Work(prepared.folder, prepared.fold, list(volumes.synthetic), test, config, place, digest, done, stop)
    if todo:
        label = f"utility ({config.task}), {len(todo)} of {len(jobs)} networks"
        with progress(label, len(todo) * work_of(volumes, config)) as bar:
            _train_all(work, volumes, todo, min(workers or cores(), len(todo)), bar)
    results = [read_result(job, place, digest=digest) for job in jobs]
    return collected([one for one in results if one is not None], volumes, config, left_out)


def _train_all(work: _Work, volumes: "Volumes", todo: "list[Job]", workers: int, bar: "Progress") -> None:
    """Run jobs, here or in worker processes, and show how far all are.

    The processes are waited for by a thread, so that an interruption reaches this one, and they stop at their next
    step instead of ending a network that takes minutes.
    """
    from pipelines.workers import run_all

    if workers == 1:
        _begin(work, volumes)
        for job in todo:
            _run(job, lambda: bar.advance(work.done.value))
        return
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            for _ in run_all(_run, todo, workers=workers, start=_start, job=work):
                pass
        except BaseException as error:
            failed.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    try:
        while waiting.is_alive():
            waiting.join(_EVERY_S)
            if bar.done != work.done.value:
                bar.advance(work.done.value)
    except BaseException:
        work.stop.value = 1
        waiting.join()
        raise
    if failed:
        raise failed[0]


_experiment: "dict[str, tuple[_Work, Volumes]]" = {}


def _start(work: _Work) -> None:
    """Read the real volumes again in a worker."""
    from synth.data.prepared import Prepared

    prepared = Prepared.load(work.data)
    prepared = prepared if work.fold is None else prepared.at_fold(work.fold)
    _begin(work, volumes_of(prepared, work.made, [prepared.case(name) for name in work.test]))


def _begin(work: _Work, volumes: "Volumes") -> None:
    _experiment["now"] = (work, volumes)


def _run(job: "Job", told: Callable[[], None] = lambda: None) -> None:
    """Train and score one job of the experiment at hand. Errors: Interrupted where it is told to stop."""
    from evaluation.utility.run import run_job
    from synth.errors import Interrupted

    work, volumes = _experiment["now"]

    def tell() -> None:
        if work.stop.value:
            raise Interrupted("interrupted; run the same command again to go on")
        with work.done.get_lock():
            work.done.value += 1
        told()

    run_job(job, volumes, work.config, work.folder, digest=work.digest, tell=tell)


def nnunet_report(pairs: Sequence[str], out: Path, *, data: Path | None, seed: int, overwrite: bool) -> "Report":
    """Write the report on nnU-Net's own scores of several arms, and return it.

    data   prepared folder that says whose the cases are; None: each is taken as its own patient
    Errors: ConfigError, DataError for arms that cannot be compared; OutputError where `out` holds something.
    """
    from evaluation.report import Report
    from evaluation.sections.utility import nnunet_figures
    from evaluation.utility.nnunet import arms_of, read_arms
    from pipelines.places import require_apart
    from synth.data.prepared import Prepared
    from synth.errors import DataError, OutputError

    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; give another --out")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise OutputError(f"{out} is not empty; give --overwrite or another --out")
    given = arms_of(pairs)
    require_apart(out, *(folder for folders in given.values() for folder in folders))
    prepared = None if data is None else Prepared.load(data)
    patients = None if prepared is None else {row.case: row.patient for row in prepared.rows}
    arms = read_arms(given, patients)
    trained = set() if prepared is None else {case.case for case in prepared.split("train")}
    known = sorted(set(next(iter(arms.values()))["dice"].cases) & trained)
    if known:
        raise DataError(
            f"--nnunet: case {known[0]!r} is of a training patient of {data}; give the scores of test cases, as "
            "nnUNetv2_evaluate_folder writes them, not those of nnU-Net's own validation"
        )
    report = Report("as nnU-Net was tested on" if prepared is None else prepared.schema.population)
    report.patients_assumed = True if prepared is None else prepared.patients_assumed
    if report.patients_assumed:
        report.notes.append("each case was taken as its own patient: assumed, nothing said whose the cases are")
    nnunet_figures(arms, report, seed=seed)
    report.write(out)
    return report
