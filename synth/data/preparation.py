"""The work of `prepare`: check every case, learn the schema, write working arrays. All or nothing."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synth import config
from synth.data.dataset import Case, Dataset
from synth.data.folds import SPLITS_FILE, dump_folds
from synth.data.intensity import WIDEST_HU, IntensityMap, Percentiles, Window, foreground_top
from synth.data.placement import Placement, plane_of
from synth.data.prepared import Contents, Prepared, PreparedCase, learned, mask_digest, voxel_digest
from synth.data.reading import read_image, read_mask
from synth.data.schema import Schema
from synth.data.splits import Division
from synth.errors import ConfigError, DataError, OutputError
from synth.io import read
from synth.volume import Volume

LARGEST_GRID = 256**3
LARGEST_LABEL = 255
_CT = "ct"


@dataclass(frozen=True, kw_only=True)
class PreparationOptions:
    """Working geometry; None is learned from the data.

    voxels     most voxels of a working grid whose spacing is learned: finer axes are made coarser until it fits
    multiple   the grid is a multiple of it on every axis
    """

    spacing_mm: tuple[float, ...] | None = None
    grid: tuple[int, ...] | None = None
    voxels: int = 160**3
    multiple: int = 4

    def __post_init__(self) -> None:
        if self.spacing_mm is not None and not all(0 < step < np.inf for step in self.spacing_mm):
            raise ConfigError(f"--spacing is {self.spacing_mm}; give mm above 0")
        if self.grid is not None and any(n < 1 for n in self.grid):
            raise ConfigError(f"--size is {self.grid}; give sizes of at least 1")


@dataclass(frozen=True, eq=False)
class Checked:
    """One case, read and checked."""

    image: Volume
    mask: Volume
    truth: Volume | None


def read_case(case: Case, dataset: Dataset) -> Checked:
    """Return the voxels of a case, checked. Errors: DataError or GeometryError naming case and mend."""
    image = read_image(case, dataset)
    mask = read_mask(case, dataset, image)
    truth = None if case.truth is None else read(case.truth)
    if truth is not None:
        image.require_same_geometry(truth, case=case.id, what="truth")
    return Checked(image, mask, truth)


def prepare(
    dataset: Dataset,
    out: Path,
    *,
    division: Division,
    options: PreparationOptions,
    report: Callable[[str, int, int], None],
) -> Prepared:
    """Write the prepared folder and return it; a fault in any case leaves nothing behind.

    Errors: DataError, GeometryError for a faulty case, for equal voxels under two patients and for a dataset without
    labels; ConfigError for options or labels that do not fit; OutputError where `out` holds anything but prepared
    data, which is never replaced.
    """
    out = out.resolve()
    _require_replaceable(dataset, out)
    _require_labels(dataset)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    outline = _outline(dataset, options, report)
    try:
        for kind in ("images", "masks"):
            (partial / kind).mkdir(parents=True)
        rows: list[PreparedCase] = []
        for number, case in enumerate(dataset.cases, start=1):
            rows.append(_write_case(partial, case, dataset, outline, division))
            report("writing", number, len(dataset.cases))
        _require_one_patient_each(rows)
        contents = Contents(
            schema=learned(outline, outline.intensities, rows),
            stored=outline.intensities,
            patients_assumed=division.assumed,
        )
        (partial / "prepared.yaml").write_text(config.dump(contents))
        (partial / "cases.jsonl").write_text("".join(json.dumps(config.plain(row)) + "\n" for row in rows))
        if division.folds:
            (partial / SPLITS_FILE).write_bytes(dump_folds(division.folds))
        old = out.with_name(f".{out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            os.replace(out, old)
        os.replace(partial, out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror}); free room or give another --out") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Prepared.load(out)


def _require_labels(dataset: Dataset) -> None:
    """Errors: DataError without a label, since samples are pairs of image and mask; ConfigError for too many."""
    if not dataset.labels:
        raise DataError(
            f"{dataset.root} has no label but the background, and samples are images with labelled masks; give masks "
            "with labelled voxels, or name the labels in its dataset.json or labels.json"
        )
    if len(dataset.labels) > LARGEST_LABEL:
        raise ConfigError(f"the dataset has {len(dataset.labels)} labels, masks hold {LARGEST_LABEL}; merge some")


def _require_one_patient_each(rows: Sequence[PreparedCase]) -> None:
    """Raise DataError where two patients have cases of the same voxels: training on one shows the other."""
    first: dict[str, PreparedCase] = {}
    for row in rows:
        other = first.setdefault(row.digest, row)
        if other.patient != row.patient:
            raise DataError(
                f"cases {other.case!r} and {row.case!r} have the same voxels, but patients {other.patient!r} and "
                f"{row.patient!r}; remove one, or say with --patients that they are one patient's"
            )


def _require_replaceable(dataset: Dataset, out: Path) -> None:
    """Raise OutputError unless `out` is new, empty or prepared data, and apart from the source."""
    source = dataset.root.resolve()
    if source == out or source.is_relative_to(out) or out.is_relative_to(source):
        raise OutputError(f"{out} and the source {source} lie in one another; give another --out")
    if out.exists() and not (out.is_dir() and ((out / "prepared.yaml").is_file() or next(out.iterdir(), None) is None)):
        raise OutputError(f"{out} holds something other than prepared data, which is not replaced; give another --out")


def _outline(dataset: Dataset, options: PreparationOptions, report: Callable[[str, int, int], None]) -> Schema:
    """Read every case once, and return what the dataset says of itself: names, geometry, maps to store images by.

    Spacing (the median) and grid (what covers every case) are of all cases, held-out ones too: they must fit.
    """
    affine, spacings, sizes = _geometry(dataset, report)
    dims, native = sizes.shape[1], np.median(spacings, axis=0)
    spacing = tuple(float(s) for s in (options.spacing_mm or _within(native, sizes, options.voxels)))
    if len(spacing) != dims:
        raise ConfigError(f"--spacing gives {len(spacing)} values, the data is {dims}D; give {dims}")
    grid = options.grid or _grid(sizes, np.array(spacing), options.multiple)
    if len(grid) != dims or any(n < 1 for n in grid):
        raise ConfigError(f"--size gives {grid}, the data is {dims}D; give {dims} sizes of at least 1")
    if int(np.prod(grid)) > LARGEST_GRID:
        raise ConfigError(
            f"the working grid would be {'x'.join(map(str, grid))} voxels at {spacing} mm, too many for whole volumes; "
            "give a coarser --spacing or a smaller --size"
        )
    affine[:3, :dims] *= spacing
    affine[:3, 3] -= (affine[:3, :dims] * ((np.array(grid) - 1) / 2)).sum(axis=1)
    typical = np.rint(np.median(sizes, axis=0) / native).astype(int)
    coarser = bool((np.array(spacing) > native * (1 + 1e-3)).any())
    return Schema(
        population=dataset.population or str(dataset.extra.get("name", dataset.root.name)),
        channels=dataset.channels,
        labels=dataset.labels,
        grid=tuple(int(n) for n in grid),
        spacing_mm=spacing,
        affine=tuple(affine.ravel().tolist()),
        intensities=_maps(dataset),
        file_ending=dataset.file_ending,
        native_grid=tuple(int(n) for n in typical) if coarser else (),
        native_spacing_mm=tuple(float(step) for step in native) if coarser else (),
        directed=True,
    )


def _geometry(dataset: Dataset, report: Callable[[str, int, int], None]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (unit affine (4, 4) along which working axes run, spacings in mm, sizes in mm); a row a case, turned.

    Axes are RAS in 3D, in 2D those that most cases have. Errors: DataError for cases of other dimensions.
    """
    outlines: list[Volume] = []
    for number, case in enumerate(dataset.cases, start=1):
        image = read_case(case, dataset).image
        if outlines and image.spatial_dims != outlines[0].spatial_dims:
            dims = outlines[0].spatial_dims
            raise DataError(f"case {case.id!r} is {image.spatial_dims}D, others are {dims}D; split the dataset")
        outlines.append(image.replace(data=np.broadcast_to(np.zeros((), np.uint8), (1, *image.grid))))
        report("reading", number, len(dataset.cases))
    dims, affine, direction = outlines[0].spatial_dims, np.eye(4), None
    if dims == 2:
        ((plane, _),) = Counter(plane_of(outline) for outline in outlines).most_common(1)
        affine[:3, :2] = 0.0
        for axis, (world, sign) in enumerate(plane):
            affine[world, axis] = sign
        across = ({0, 1, 2} - {world for world, _ in plane}).pop()
        affine[:3, 2] = np.eye(3)[across]
        direction = affine[:3, :2].copy()
    spacings, sizes = [], []
    for outline in outlines:
        turned = Placement.of(outline, grid=(1,) * dims, spacing_mm=(1.0,) * dims, direction=direction)
        spacings.append(np.linalg.norm(turned.turned_affine[:3, :dims], axis=0))
        sizes.append(np.array(turned.turned_grid) * spacings[-1])
    return affine, np.array(spacings), np.array(sizes)


def _maps(dataset: Dataset) -> tuple[IntensityMap, ...]:
    """Return the maps by which channels are stored: CT is what is called so, as in nnU-Net, or says so in its files."""
    modalities = dataset.modalities or ("",) * len(dataset.channels)
    return tuple(
        WIDEST_HU if _CT in (name.casefold(), modality.casefold()) else Percentiles()
        for name, modality in zip(dataset.channels, modalities, strict=True)
    )


def _within(native: np.ndarray, sizes_mm: np.ndarray, voxels: int) -> np.ndarray:
    """Return a spacing at which the largest case has at most `voxels`: the finest axes give way first.

    spacing = max(native, s) with the least s that suffices, so that thick slices stay as they are.
    """
    largest = sizes_mm.max(axis=0)
    if np.prod(largest / native) <= voxels * (1 + 1e-6):
        return native
    low, high = float(native.min()), float(largest.max())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if np.prod(largest / np.maximum(native, middle)) <= voxels else (middle, high)
    scale = 10.0 ** (2 - np.floor(np.log10(high)))  # up to three digits: a hundredth of a millimetre at 1 to 10 mm
    return np.maximum(native, np.ceil(high * scale) / scale)


def voxels_for(budget_s: float) -> int:
    """Return the voxels of a working grid that two cores train well in `budget_s`: 417 thousand for two hours.

    They grow with the square root of the time: half of it goes into more voxels, half into more steps.
    """
    return int(np.clip(417_000 * (budget_s / 7200) ** 0.5, 32**3, LARGEST_GRID))


def _grid(sizes_mm: np.ndarray, spacing: np.ndarray, multiple: int) -> tuple[int, ...]:
    voxels = np.ceil(sizes_mm.max(axis=0) / spacing - 1e-3)
    return tuple(int(-(-n // multiple) * multiple) for n in voxels)


def _write_case(folder: Path, case: Case, dataset: Dataset, outline: Schema, division: Division) -> PreparedCase:
    checked = read_case(case, dataset)
    placement = _placement(checked.image, outline)
    placement.require_inside(checked.mask, f"case {case.id!r}")
    image, mask, levels = working_pair(checked.image, checked.mask, outline)
    np.save(folder / "images" / f"{case.id}.npy", image)
    np.save(folder / "masks" / f"{case.id}.npy", mask)
    if checked.truth is not None:
        (folder / "truth").mkdir(exist_ok=True)
        truth = placement.to_working(checked.truth, fill=float(checked.truth.data.min()))
        np.save(folder / "truth" / f"{case.id}.npy", _apply(outline.intensities[0], truth.data[0], levels[0])[None])
    return PreparedCase(
        case=case.id,
        patient=division.patients[case.id],
        split=division.splits[case.id],
        attributes=case.attributes,
        text=case.text,
        levels=levels,
        foreground=tuple(foreground_top(channel, checked.mask.data[0]) for channel in checked.image.data),
        dtype=str(checked.image.data.dtype),
        digest=voxel_digest(checked.image.data),
        mask_digest=mask_digest(checked.mask.data),
        native_grid=checked.image.grid,
        native_affine=tuple(checked.image.affine.ravel().tolist()),
    )


def _placement(image: Volume, schema: Schema) -> Placement:
    return Placement.of(image, grid=schema.grid, spacing_mm=schema.spacing_mm, direction=schema.direction)


def working_pair(
    image: Volume, mask: Volume, schema: Schema
) -> tuple[np.ndarray, np.ndarray, tuple[tuple[float, float], ...]]:
    """Return a native pair as models and judges see it: mapped image (channel, *grid), labels (*grid) 0..K, levels.

    Both lie on the schema's working grid; the mask's labels are matched by name, those the schema lacks become 0.
    """
    placement = _placement(image, schema)
    mapped, levels = [], []
    for rule, native in zip(schema.intensities, image.data, strict=True):
        own = Percentiles().levels(native)
        levels.append(own)
        # each channel is padded with its own lowest value: air is -1000 in CT and 0 in the MR beside it
        moved = placement.to_working(image.replace(data=native[None]), fill=float(native.min()))
        mapped.append(_apply(rule, moved.data[0], own))
    placed, values = placement.to_working(mask).data[0], mask.labels or schema.label_values
    labels = np.zeros(placed.shape, dtype=np.uint8)
    for number, label in enumerate(schema.labels, start=1):
        if label.name in values:
            labels[placed == values[label.name]] = number
    return np.stack(mapped), labels, tuple(levels)


def _apply(rule: IntensityMap, data: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    return rule.apply(data) if isinstance(rule, Window) else rule.apply(data, levels)


def label_volumes(prepared: Prepared) -> dict[str, float]:
    """Return label -> median over cases of its volume in ml (of its area in cm2 for 2D data)."""
    unit = float(np.prod(prepared.schema.spacing_mm)) / 10.0 ** len(prepared.schema.spacing_mm)
    size = len(prepared.schema.labels) + 1
    counts = np.array([np.bincount(prepared.mask(case).ravel(), minlength=size)[:size] for case in prepared.cases])
    medians = np.median(counts, axis=0) * unit
    return {label.name: float(medians[n]) for n, label in enumerate(prepared.schema.labels, start=1)}
