"""A generated set put into a real dataset as nnU-Net takes it, folds that judge fairly, and the commands to run."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.joining import whole_set
from pipelines.origins import as_given, shown_by_edit

if TYPE_CHECKING:
    from pipelines.merge import Merge
    from synth.data.dataset import Case, Dataset
    from synth.data.folds import Fold
    from synth.formats.nnunet import DatasetWriter
    from synth.volume import Volume

_DATASET = re.compile(r"Dataset(\d{3})_(\w+)")
ASKED, ROWS = "merge.json", "synthetic.jsonl"
REAL_SPLITS, ALL_SPLITS = "splits_real.json", "splits_nnunet.json"
"""The folds of the real cases alone; and those of every way to train, one after the other, as nnU-Net gets them."""
_SHOWN = 8


@dataclass(frozen=True)
class RealCase:
    """What counts of a real case: whose it is, and what tells it and its mask from others."""

    case: str
    patient: str
    digest: str
    mask_digest: str


def hand_over(how: "Merge") -> Iterator[str]:
    """Write the dataset of a merge with --into, and yield the lines to say.

    Errors: DataError for sets that are not whole, foreign channels or labels, and where the model saw every patient;
    ConfigError for options; OutputError where the folder holds something else.
    """
    from synth.data.orientation import Lie
    from synth.data.splits import patients_of
    from synth.errors import ConfigError, OutputError
    from synth.formats import read
    from synth.io import read_header, write_bytes, write_file

    (folder,), out = how.sets, how.out
    name = _DATASET.fullmatch(out.name)
    if name is None:
        raise ConfigError(f"--out is {out.name!r}; name it DatasetNNN_NAME, as nnU-Net has it (Dataset501_Mixed)")
    if not 0 < how.ratio <= 1000:
        raise ConfigError(f"--ratio is {how.ratio:g}; give a number above 0, at most 1000")
    if how.folds < 1:
        raise ConfigError(f"--folds is {how.folds}; give at least 1")
    assert how.into is not None
    rows, real, made = whole_set(folder), read(how.into), read(folder)
    patients, assumed = patients_of(real.cases, how.patients)
    wanted = round(how.ratio * len(real.cases))
    chosen = _chosen(rows, wanted, real, made)
    writer, as_stored = _writer(out, real, made)
    order = _channels(real, made)
    write_asked(out, how, rows, real)
    headers = [read_header(case.images[0]) for case in real.cases]
    lie = Lie.of([header.affine for header in headers], len(headers[0].grid))
    cases = [_take_real(writer, case, real, patients, as_stored) for case in _shown("real cases", real.cases)]
    shown: set[str] = set()
    lines: list[bytes] = []
    by_id = {case.id: case for case in made.cases}
    for row in _shown("synthetic cases", chosen):
        files, digest = _take_made(writer, by_id[row["case"]], made, lie, order, row.get("mask_affine"))
        shown |= {digest} if row.get("mask_origin") != "generated" and digest else set()
        shown |= shown_by_edit(row, cases)
        lines.append((json.dumps({**row, "files": files}, sort_keys=True) + "\n").encode())
    folds = fair_folds(cases, [row["case"] for row in chosen], how, shown)
    write_file(out / ROWS, lines)
    _write_splits(out, folds)
    info = {"synthetic_cases": len(chosen)}
    if as_stored:
        stored = {key: value for key, value in real.extra.items() if key != "dataset"}
        content = {**stored, **info, "numTraining": len(cases) + len(chosen)}
        write_bytes(out / "dataset.json", (json.dumps(content, indent=2) + "\n").encode())
    else:
        writer.extra.update(info)
        writer.finish(len(cases) + len(chosen))
    if not (out / "dataset.json").is_file():
        raise OutputError(f"{out} could not be completed; run the same command again")
    unseen = len({case for fold in folds for case in fold.val})
    yield f"{len(cases)} real and {len(chosen)} synthetic cases in {out}"
    many = "folds validate" if len(folds) > 1 else "fold validates"
    yield f"{len(folds)} {many} on {unseen} real cases, of patients the model never saw, and on no synthetic one"
    if assumed:
        yield "each real case was taken as its own patient (assumed; --patients says otherwise)"
    yield from commands(how.into.resolve(), out.absolute(), dims=len(lie.median), folds=len(folds))


def _chosen(rows: Sequence[dict[str, Any]], wanted: int, real: "Dataset", made: "Dataset") -> list[dict[str, Any]]:
    """Return the first rows of a set, as many as wanted. Errors: ConfigError, DataError."""
    from synth.errors import ConfigError, DataError

    taken = next((case.id for case in real.cases if case.id.startswith("syn_")), None)
    if taken is not None:
        raise DataError(f"{real.root} has case {taken!r}, which would be taken for a synthetic one; rename it")
    if wanted < 1 or wanted > len(rows):
        most = len(rows) / len(real.cases)
        raise ConfigError(
            f"--ratio asks for {wanted} synthetic cases beside {len(real.cases)} real ones, the set has {len(rows)}; "
            f"give up to {most:.4g}, or generate more"
        )
    there = {case.id for case in made.cases}
    if absent := [row["case"] for row in rows[:wanted] if row["case"] not in there]:
        raise DataError(f"{made.root}: case {absent[0]!r} stands in manifest.jsonl alone; generate the set again")
    return list(rows[:wanted])


def _writer(out: Path, real: "Dataset", made: "Dataset") -> tuple["DatasetWriter", bool]:
    """Return what writes into `out` by the real dataset's names, and whether its files can be copied as they are."""
    import sys

    from synth.errors import DataError, nearest
    from synth.formats.nnunet import ENDINGS, DatasetWriter, regions_of

    own, theirs = made.label_values, real.label_values
    for name in own:
        if name not in theirs:
            raise DataError(f"the set has label {name!r}, {real.root} has not; {nearest(name, theirs)}")
    lacking = [name for name in theirs if name not in own]
    if lacking:
        print(
            f"the set has no label {', '.join(lacking[:_SHOWN])}: synthetic masks call it background",
            file=sys.stderr,
        )
    files = [path for case in real.cases for path in (*case.images, case.mask) if path is not None]
    as_stored = real.layout == "nnU-Net" and all(path.name.endswith(real.file_ending) for path in files)
    writer = DatasetWriter(
        out,
        name=out.name,
        channels=real.channels,
        labels=theirs,
        file_ending=real.file_ending if real.file_ending in ENDINGS else ".nii.gz",
        extra={"population": real.population},
    )
    if as_stored and writer.values != theirs and not regions_of(real.extra):
        as_stored = False
    return writer, as_stored


def _channels(real: "Dataset", made: "Dataset") -> list[int]:
    """Return which channel of the set each of the real dataset's is. Errors: DataError."""
    from synth.errors import DataError, nearest

    for name in real.channels:
        if name not in made.channels:
            raise DataError(f"{real.root} has channel {name!r}, the set has not; {nearest(name, made.channels)}")
    return [made.channels.index(name) for name in real.channels]


def write_asked(out: Path, how: "Merge", rows: Sequence[dict[str, Any]], real: "Dataset") -> None:
    """Keep the ask beside the output, so that only the same one goes on. Errors: OutputError."""
    import hashlib

    from synth.errors import OutputError
    from synth.io import write_bytes

    whole = hashlib.sha256(json.dumps([rows, [case.id for case in real.cases]], sort_keys=True).encode())
    asked = {"sha256": whole.hexdigest(), "ratio": how.ratio, "folds": how.folds, "seed": how.seed}
    content = (
        json.dumps({**asked, "patients": how.patients, "data": how.data is not None}, sort_keys=True) + "\n"
    ).encode()
    path = out / ASKED
    if out.is_dir() and any(found.name != f".{ASKED}.partial" for found in out.iterdir()):
        if not path.is_file() or path.read_bytes() != content:
            raise OutputError(f"{out} holds something else than this merge; give another --out")
        (out / "dataset.json").unlink(missing_ok=True)
    write_bytes(path, content)


def _take_real(
    writer: "DatasetWriter", case: "Case", real: "Dataset", patients: Mapping[str, str], as_stored: bool
) -> RealCase:
    """Write a real case, its files as they are where nnU-Net takes them so."""
    from synth.data.prepared import mask_digest, voxel_digest
    from synth.data.reading import read_image, read_mask
    from synth.formats.writing import copy_checked

    image = read_image(case, real)
    mask = read_mask(case, real, image)
    if as_stored:
        assert case.mask is not None
        for source, target in zip((*case.images, case.mask), writer.paths(case.id), strict=True):
            copy_checked(source, writer.folder / target)
    else:
        writer.add(case.id, image, mask)
    return RealCase(case.id, patients[case.id], voxel_digest(image.data), mask_digest(mask.data))


def _take_made(
    writer: "DatasetWriter", case: "Case", made: "Dataset", lie: Any, order: Sequence[int], given: Any
) -> tuple[dict[str, str], str]:
    """Write a synthetic case as the real ones lie; return its files with their sha256, and the digest of its mask.

    given   affine of the mask that it follows, whose voxels count as they lay then
    """
    from synth.data.prepared import mask_digest
    from synth.data.reading import read_image, read_mask

    image = read_image(case, made, varied=False)
    mask: Volume = read_mask(case, made, image)
    digest = mask_digest(as_given(mask, given).data)
    placed = lie.take(image.replace(data=image.data[list(order)]))
    return writer.add(case.id, placed, lie.take(mask)), digest


def fair_folds(cases: Sequence[RealCase], made: Sequence[str], how: "Merge", shown: set[str]) -> "list[Fold]":
    """Return folds that validate on patients whom neither the model saw nor the set shows.

    shown   digests of the masks that the set was given, and of images and masks that it has edits of
    Errors: DataError where every patient is one of those.
    """
    from synth.data.folds import Fold, make_folds
    from synth.errors import DataError

    known = known_patients(cases, how)
    known |= {case.patient for case in cases if {case.digest, case.mask_digest} & shown}
    free = {case.case: case.patient for case in cases if case.patient not in known}
    if not free:
        raise DataError(
            "the model saw every patient of --into, or the set shows their masks or images, so that nobody is left to "
            "validate on; train it on data prepared with --test or --folds"
        )
    count = min(how.folds, len(set(free.values())))
    held = [fold.val for fold in make_folds(free, count=count, seed=how.seed)] if count > 1 else [tuple(sorted(free))]
    return [Fold((*sorted(case.case for case in cases if case.case not in val), *made), val) for val in held]


def known_patients(cases: Sequence[RealCase], how: "Merge") -> set[str]:
    """Return the patients of real cases that the model saw: by their voxels, and by name in --data.

    Standard error is told where that is not known, and where no case is found again.
    """
    import sys

    from pipelines.evidence import seen_by_model
    from synth.data.prepared import Prepared

    folder = how.sets[0]
    seen = seen_by_model(folder)
    if seen is None:
        print(f"{folder} does not record whom its model saw: taken as no patient of --into", file=sys.stderr)
        return set()
    if seen.gap:
        print(f"its model was fine-tuned from {seen.gap}, which does not record whom it saw", file=sys.stderr)
    prepared = None if how.data is None else Prepared.load(how.data)
    rows = () if prepared is None else prepared.rows
    names = {row.case for row in rows if prepared is not None and seen.has(prepared.digest(row))}
    known = {case.patient for case in cases if case.case in names or seen.has(case.digest)}
    if not known:
        print(
            "no case of --into is one that the model saw, by its voxels: where it was trained on them in another form "
            "(converted, resampled), give --data with its prepared data",
            file=sys.stderr,
        )
    return known


def _write_splits(out: Path, folds: "Sequence[Fold]") -> None:
    """Write the folds, those of the real cases alone, and all that nnU-Net trains.

    The last are the folds of both, as many of the real cases alone, and one of the synthetic cases alone, which
    validates on all whom those validate on.
    """
    from synth.data.folds import SPLITS_FILE, Fold, dump_folds
    from synth.io import write_bytes

    alone = [Fold(tuple(case for case in fold.train if not case.startswith("syn_")), fold.val) for fold in folds]
    made = tuple(case for case in folds[0].train if case.startswith("syn_"))
    pretrained = Fold(made, tuple(sorted({case for fold in folds for case in fold.val})))
    write_bytes(out / SPLITS_FILE, dump_folds(folds))
    write_bytes(out / REAL_SPLITS, dump_folds(alone))
    write_bytes(out / ALL_SPLITS, dump_folds([*folds, *alone, pretrained]))


def _shown(label: str, items: Sequence[Any]) -> Iterator[Any]:
    from pipelines.progress import progress

    with progress(label, len(items)) as bar:
        for item in items:
            yield item
            bar.advance()


def commands(real: Path, out: Path, *, dims: int, folds: int) -> Iterator[str]:
    """Yield nnU-Net's commands: trained on both by the plans of the real data alone, or on one after the other.

    Of the real dataset nnU-Net makes a fingerprint and plans; cases, folds and networks are those of `out` alone, so
    that no fold or network that is there already is overwritten.
    """
    known, own = _DATASET.fullmatch(real.name), _DATASET.fullmatch(out.name)
    assert own is not None
    source, target = known[1] if known else "NNN", own[1]
    kind = "3d_fullres" if dims == 3 else "2d"
    plans = f"nnUNetPlans_of_{source}"
    place = f'"$nnUNet_preprocessed/{out.name}'
    trained = f'"$nnUNet_results/{out.name}/nnUNetTrainer__{plans}__{kind}/fold_{2 * folds}/checkpoint_final.pth"'
    both, alone = (" ".join(map(str, range(first, first + folds))) for first in (0, folds))
    train = f"nnUNetv2_train {target} {kind} $fold -p {plans}"
    yield ""
    yield f"# {out.parent} is nnUNet_raw; planned on the real data alone"
    yield "# without a GPU: nnUNetv2_train ... -device cpu"
    if not known or real.parent != out.parent.resolve():
        yield f"# put the real dataset there as {real.name if known else 'DatasetNNN_NAME'}, nnU-Net v2 raw, first"
    yield f"nnUNetv2_extract_fingerprint -d {source} --verify_dataset_integrity"
    yield f"nnUNetv2_plan_experiment -d {source}"
    yield f"nnUNetv2_extract_fingerprint -d {target} --verify_dataset_integrity"
    yield f"nnUNetv2_move_plans_between_datasets -s {source} -t {target} -sp nnUNetPlans -tp {plans}"
    # planning would copy dataset.json, and is not done for this dataset
    for name, copied in (("dataset.json", "dataset.json"), (ALL_SPLITS, "splits_final.json")):
        yield f'cp {shlex.quote(str(out / name))} {place}/{copied}"'
    yield f"nnUNetv2_preprocess -d {target} -plans_name {plans} -c {kind}"
    yield "# real and synthetic together"
    yield f"for fold in {both}; do {train}; done"
    yield "# or pretrained on the synthetic cases, fine-tuned on the real ones, in folds that validate as those above"
    yield f"nnUNetv2_train {target} {kind} {2 * folds} -p {plans}"
    yield f"for fold in {alone}; do {train} -pretrained_weights {trained}; done"
