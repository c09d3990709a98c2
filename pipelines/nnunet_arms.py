"""The arms of a utility experiment as nnU-Net datasets: native volumes, splits, and the commands that train them.

A volume that several arms share is written once and linked (hard links; copies where the disk has none).
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.utility.arms import Volumes
    from evaluation.utility.config import UtilityConfig
    from synth.data.dataset import Dataset
    from synth.data.prepared import Prepared
    from synth.formats.nnunet import DatasetWriter

EXPORTED = ("R", "S", "RS", "RR", "T", "RT", "G")
"""Arms that differ in their volumes. The others differ in augmentation, which nnU-Net does for every arm."""
_VALIDATION = 0.1
PLANS = "nnUNetPlans"
_POOL = ".volumes"


@dataclass(frozen=True)
class Arm:
    """One arm: its number and name for nnU-Net, the cases it trains on (id in the arm, id of the volume)."""

    number: int
    name: str
    train: tuple[tuple[str, str], ...]

    @property
    def folder(self) -> str:
        """nnU-Net's name of the dataset."""
        return f"Dataset{self.number:03d}_{self.name}"


def export_arms(
    out: Path,
    config: "UtilityConfig",
    volumes: "Volumes",
    prepared: "Prepared",
    *,
    native: Path,
    synthetic: Path,
) -> list[Arm]:
    """Write the arms of the first fraction, ratio and seed of `config` to `out`, and return them.

    Every arm validates on the same real patients: those held out of the generator's training, or, where there are
    none, a tenth of its training patients, taken from every arm. Test cases are those of `volumes`.
    A fault or a kill leaves nothing under `out`.
    Errors: DataError for a native dataset that `prepared` was not made from, ids in both sets or too few patients;
    ConfigError without the arm R; OutputError where `out` holds something, or lies in one of the sets or around one.
    """
    from synth.formats import read
    from synth.io import write_bytes

    out = out.resolve()
    _require_free(out, (native, synthetic, prepared.folder))
    real, made = read(native), read(synthetic)
    validation, seen = _validation(prepared)
    test = [item.case for item in volumes.test]
    arms = _arms(config, volumes, held=set(validation) if seen else set())
    _check(prepared, real, made, validation, test)
    part = out.with_name(f".{out.name}.partial")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _write_arms(part, arms, (real, made, prepared), validation, test)
        shutil.rmtree(part / _POOL)
        write_bytes(part / "commands.sh", commands(arms, dims=len(prepared.schema.grid)).encode())
        write_bytes(part / "README.md", _readme(arms, config, volumes, len(validation), seen=seen).encode())
        if out.exists():
            out.rmdir()  # empty: checked above
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return arms


def _require_free(out: Path, sets: Iterable[Path]) -> None:
    """Errors: OutputError where `out` is a file, holds something, or shares a place with one of the sets."""
    from pipelines.places import require_apart
    from synth.errors import OutputError

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "not empty" if out.is_dir() else "a file"
        raise OutputError(f"{out} is {what}; give another --export-arms, or remove it")
    require_apart(out, *sets, option="--export-arms")


def _write_arms(
    out: Path,
    arms: Sequence[Arm],
    sets: "tuple[Dataset, Dataset, Prepared]",
    validation: Sequence[str],
    test: Sequence[str],
) -> None:
    """Write each volume once, and link it into every arm that has it."""
    from pipelines.progress import progress

    real, made, prepared = sets
    needed = dict.fromkeys([*(source for arm in arms for _, source in arm.train), *validation, *test])
    writer = _writer(out / _POOL, "volumes", real)
    with progress("exporting arms", len(needed)) as bar:
        for case in needed:
            _write_volume(writer, case, real, made, prepared)
            bar.advance()
    for arm in arms:
        _write_arm(out, arm, writer, real, validation, test)


def commands(arms: Sequence[Arm], *, dims: int, runs: int = 3) -> str:
    """Return the shell script that plans on R, trains every arm by R's plans, and compares them on the test cases.

    nnU-Net draws its own seeds, so that each run of the loop is another network.
    """
    first, configuration = arms[0], "2d" if dims == 2 else "3d_fullres"
    lines = [
        "#!/usr/bin/env bash",
        "# nnU-Net v2 on every arm; plans come from the real volumes alone, steps are the same for all",
        "# without a GPU: nnUNetv2_train and nnUNetv2_predict ... -device cpu",
        "set -euo pipefail",
        'cd "$(dirname "$0")"',
        'export nnUNet_raw="$PWD/nnUNet_raw" nnUNet_preprocessed="$PWD/nnUNet_preprocessed"',
        f"nnUNetv2_plan_and_preprocess -d {first.number} -c {configuration} --verify_dataset_integrity",
    ]
    for arm in arms[1:]:
        lines += [
            f"nnUNetv2_extract_fingerprint -d {arm.number} --verify_dataset_integrity",
            f"nnUNetv2_move_plans_between_datasets -s {first.number} -t {arm.number} -sp {PLANS} -tp {PLANS}",
            f"nnUNetv2_preprocess -d {arm.number} -plans_name {PLANS} -c {configuration}",
        ]
    lines += [f"for run in {' '.join(str(run) for run in range(runs))}; do", '  export nnUNet_results="$PWD/run_$run"']
    for arm in arms:
        raw, found = f"nnUNet_raw/{arm.folder}", f"predictions/{arm.name}/run_$run"
        lines += [
            f"  nnUNetv2_train {arm.number} {configuration} 0 -p {PLANS}",
            f"  nnUNetv2_predict -d {arm.number} -i {raw}/imagesTs -o {found} -c {configuration} -p {PLANS} -f 0",
            f"  nnUNetv2_evaluate_folder {raw}/labelsTs {found} -djfile {raw}/dataset.json "
            f"-pfile nnUNet_preprocessed/{first.folder}/{PLANS}.json",
        ]
    pairs = " ".join(f"{arm.name}=predictions/{arm.name}" for arm in arms)
    return "\n".join([*lines, "done", f"synth evaluate --nnunet {pairs} --out report", ""])


def _validation(prepared: "Prepared") -> tuple[list[str], bool]:
    """Return the cases that every arm validates on, and whether the generator was trained on their patients.

    Errors: DataError where no patient can be spared.
    """
    from synth.errors import DataError
    from synth.rng import numpy_rng

    held = [case.case for case in prepared.split("holdout")]
    if held:
        return held, False
    train = prepared.split("train")
    patients = sorted({case.patient for case in train})
    if len(patients) < 3:
        raise DataError(
            f"{len(patients)} real patients are too few to validate on one of them; add patients, 3 at least"
        )
    drawn = numpy_rng(0, "nnU-Net validation").permutation(len(patients))
    kept = {patients[i] for i in drawn[: max(1, round(_VALIDATION * len(patients)))]}
    return [case.case for case in train if case.patient in kept], True


def _arms(config: "UtilityConfig", volumes: "Volumes", *, held: set[str]) -> list[Arm]:
    """Return the arms; repeats of a volume have ids of their own."""
    from dataclasses import replace

    from evaluation.utility.arms import sides
    from synth.errors import ConfigError

    if "R" not in config.arms:
        raise ConfigError("--export-arms plans on real volumes; have R among --utility-arms")
    whole = config.fractions[0] == 1.0  # R has every patient itself
    names = sorted((arm for arm in config.arms if arm in EXPORTED and not (whole and arm == "G")), key=EXPORTED.index)
    left = replace(volumes, real=[item for item in volumes.real if item.case not in held])
    fraction, ratio = config.cells()[0]
    out = []
    for number, name in enumerate(names, start=1):
        job = replace(config.job(name, fraction, ratio, config.seeds[0]), task="segmentation")
        train: list[tuple[str, str]] = []
        counts: dict[str, int] = {}
        for item in sides(job, left, replace(config, rates=config.rates[:1])).train:
            count = counts[item.case] = counts.get(item.case, 0) + 1
            train.append((item.case if count == 1 else f"{item.case}_again{count}", item.case))
        out.append(Arm(number, name, tuple(train)))
    return out


def _check(
    prepared: "Prepared", real: "Dataset", made: "Dataset", validation: Iterable[str], test: Iterable[str]
) -> None:
    """Refuse sets that do not fit: ids in both, cases missing, other channels. Errors: DataError."""
    from synth.errors import DataError

    natives = {case.id for case in real.cases}
    both = sorted(natives & {case.id for case in made.cases})
    if both:
        raise DataError(f"case {both[0]!r} is in {real.root} and in {made.root}; generate under other ids")
    for case in (*(one.case for one in prepared.split("train")), *validation, *test):
        if case not in natives:
            raise DataError(
                f"{real.root} has no case {case!r} of {prepared.folder}; give the dataset it was prepared from"
            )
    if len(made.channels) != len(real.channels):
        raise DataError(
            f"{made.root} has {len(made.channels)} channels, {real.root} {len(real.channels)}; give like sets"
        )


def _writer(folder: Path, name: str, real: "Dataset") -> "DatasetWriter":
    """Return a writer that spells channels, labels and regions as the native dataset does."""
    from synth.formats.nnunet import ENDINGS, DatasetWriter, regions_of

    extra = real.extra if isinstance(real.extra.get("labels"), dict) else {"labels": {}}
    return DatasetWriter(
        folder,
        name=name,
        channels=real.channels,
        labels=real.label_values,
        file_ending=real.file_ending if real.file_ending in ENDINGS else ".nii.gz",
        regions=regions_of(extra),
    )


def _write_volume(writer: "DatasetWriter", case: str, real: "Dataset", made: "Dataset", prepared: "Prepared") -> None:
    """Write one native volume with its mask. Errors: DataError where its voxels are not those that were prepared."""
    from synth.data.prepared import voxel_digest
    from synth.data.reading import read_image, read_mask
    from synth.errors import DataError

    dataset, found = next((d, c) for d in (real, made) for c in d.cases if c.id == case)
    image = read_image(found, dataset, varied=False)
    known = {row.case: row.digest for row in prepared.rows}.get(case, "") if dataset is real else ""
    if known and voxel_digest(image.data) != known:
        raise DataError(
            f"case {case!r} of {dataset.root} is not the one in {prepared.folder}; give what it was prepared from"
        )
    writer.add(case, image, read_mask(found, dataset, image))


def _write_arm(
    out: Path, arm: Arm, pool: "DatasetWriter", real: "Dataset", validation: Sequence[str], test: Sequence[str]
) -> None:
    """Link an arm's volumes, and write its dataset.json and splits where nnU-Net looks for them."""
    from synth.data.folds import SPLITS_FILE, Fold, dump_folds
    from synth.io import write_bytes

    folder = out / "nnUNet_raw" / arm.folder
    writer = _writer(folder, arm.name, real)
    for case, source in (*arm.train, *((name, name) for name in validation)):
        for old, new in zip(pool.paths(source), writer.paths(case), strict=True):
            _link(pool.folder / old, folder / new)
    for case in test:
        for path in pool.paths(case):
            _link(pool.folder / path, folder / path.parent.name.replace("Tr", "Ts") / path.name)
    writer.finish(len(arm.train) + len(validation))
    splits = dump_folds([Fold(tuple(case for case, _ in arm.train), tuple(validation))])
    preprocessed = out / "nnUNet_preprocessed" / arm.folder
    preprocessed.mkdir(parents=True, exist_ok=True)
    for place in (folder, preprocessed):
        write_bytes(place / SPLITS_FILE, splits)
    # planning copies dataset.json there; arms that get their plans from R are not planned
    write_bytes(preprocessed / "dataset.json", (folder / "dataset.json").read_bytes())


def _link(old: Path, new: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)


def _readme(arms: Sequence[Arm], config: "UtilityConfig", volumes: "Volumes", validation: int, *, seen: bool) -> str:
    """Return what the folder holds, in words."""
    from evaluation.utility.config import ARMS
    from evaluation.utility.knowledge import knowledge_of

    (known,) = knowledge_of(volumes, config.fractions[:1], config.seeds[:1])
    test = len(volumes.test)
    rows = "\n".join(f"| {arm.folder} | {ARMS[arm.name]} | {len(arm.train)} |" for arm in arms)
    left = [arm for arm in config.arms if arm not in EXPORTED]
    whom = f"{known.words[0].upper()}{known.words[1:]}"
    whose = (
        "from the patients that the generator was trained on, taken out of every arm: there were no others. Validation "
        "scores of arms with synthetic volumes may be too good; compare test scores alone"
        if seen
        else "of patients that the generator was not trained on"
    )
    return f"""# Arms as nnU-Net datasets

| dataset | trained on | training volumes |
|---|---|---|
{rows}

Each trains for the same number of steps by the plans of the real volumes, and is tested on the same {test} real
volumes (imagesTs, labelsTs), of patients that neither generator nor any arm was trained on. `splits_final.json` has one
fold: it validates on {validation} real volumes {whose}. No arm validates on a
synthetic volume; use fold 0, not `all`. {whom}.
{f"Not here: {', '.join(left)}, which differ in augmentation, and nnU-Net augments every arm." if left else ""}

`bash commands.sh` plans, trains three networks an arm, predicts, evaluates and ends in

    synth evaluate --nnunet {" ".join(f"{arm.name}=predictions/{arm.name}" for arm in arms)} --out report

which gives paired differences per case with 95 % intervals over patients, sign-flip tests and Holm's adjustment.
Holds real volumes: keep it inside.
"""
