"""The work of `prepare`: check every case, learn the schema, write working arrays. All or nothing."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synth import config
from synth.data.dataset import Case, Dataset
from synth.data.intensity import IntensityMap, Percentiles, Window, apart
from synth.data.placement import Placement
from synth.data.prepared import Prepared, PreparedCase, Split
from synth.data.reading import read_image, read_mask
from synth.data.schema import Schema, infer_attributes
from synth.errors import ConfigError, DataError, OutputError
from synth.io import read
from synth.volume import Volume

LARGEST_GRID = 256**3
LARGEST_LABEL = 255
_CT = "ct"


@dataclass(frozen=True, kw_only=True)
class PreparationOptions:
    """Working geometry; None is learned from the data. `multiple`: the grid is a multiple of it on every axis."""

    spacing_mm: tuple[float, ...] | None = None
    grid: tuple[int, ...] | None = None
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
    patients: dict[str, str],
    splits: dict[str, Split],
    options: PreparationOptions,
    report: Callable[[str, int, int], None],
) -> Prepared:
    """Write the prepared folder and return it; a fault in any case leaves nothing behind.

    Errors: DataError, GeometryError for a faulty case; ConfigError for options or labels that do not fit;
    OutputError where `out` holds anything but prepared data, which is never replaced.
    """
    out = out.resolve()
    _require_replaceable(dataset, out)
    if len(dataset.labels) > LARGEST_LABEL:
        raise ConfigError(f"the dataset has {len(dataset.labels)} labels, masks hold {LARGEST_LABEL}; merge some")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    schema = _learn(dataset, splits, options, report)
    try:
        for kind in ("images", "masks"):
            (partial / kind).mkdir(parents=True)
        rows = []
        for number, case in enumerate(dataset.cases, start=1):
            row = _write_case(partial, case, dataset, schema, patient=patients[case.id], split=splits[case.id])
            rows.append(row)
            report("writing", number, len(dataset.cases))
        (partial / "prepared.yaml").write_text(config.dump(schema))
        (partial / "cases.jsonl").write_text("".join(json.dumps(config.plain(row)) + "\n" for row in rows))
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


def _require_replaceable(dataset: Dataset, out: Path) -> None:
    """Raise OutputError unless `out` is new, empty or prepared data, and apart from the source."""
    source = dataset.root.resolve()
    if source == out or source.is_relative_to(out) or out.is_relative_to(source):
        raise OutputError(f"{out} and the source {source} lie in one another; give another --out")
    if out.exists() and not (out.is_dir() and ((out / "prepared.yaml").is_file() or next(out.iterdir(), None) is None)):
        raise OutputError(f"{out} holds something other than prepared data, which is not replaced; give another --out")


def _learn(
    dataset: Dataset, splits: dict[str, Split], options: PreparationOptions, report: Callable[[str, int, int], None]
) -> Schema:
    """Read every case once, and return what the dataset is."""
    spacings, sizes, levels, dtypes = [], [], [], set()
    foreground: list[np.ndarray] = []
    dims = 0
    for number, case in enumerate(dataset.cases, start=1):
        checked = read_case(case, dataset)
        dims = dims if dims else checked.image.spatial_dims
        if checked.image.spatial_dims != dims:
            raise DataError(f"case {case.id!r} is {checked.image.spatial_dims}D, others are {dims}D; split the dataset")
        turned = Placement.of(checked.image, grid=(1,) * dims, spacing_mm=(1.0,) * dims)
        spacings.append(np.linalg.norm(turned.turned_affine[:3, :dims], axis=0))
        sizes.append(np.array(turned.turned_grid) * spacings[-1])
        levels.append([Percentiles().levels(channel) for channel in checked.image.data])
        dtypes.add(checked.image.data.dtype)
        inside = checked.image.data[:, checked.mask.data[0] > 0]
        foreground.append(inside[:, :: max(inside.shape[1] // 5000, 1)])
        report("reading", number, len(dataset.cases))
    spacing = tuple(float(s) for s in (options.spacing_mm or np.median(np.array(spacings), axis=0)))
    if len(spacing) != dims:
        raise ConfigError(f"--spacing gives {len(spacing)} values, the data is {dims}D; give {dims}")
    grid = options.grid or _grid(np.array(sizes), np.array(spacing), options.multiple)
    if len(grid) != dims or any(n < 1 for n in grid):
        raise ConfigError(f"--size gives {grid}, the data is {dims}D; give {dims} sizes of at least 1")
    if int(np.prod(grid)) > LARGEST_GRID:
        raise ConfigError(
            f"the working grid would be {'x'.join(map(str, grid))} voxels at {spacing} mm, too many for whole volumes; "
            "give a coarser --spacing or a smaller --size"
        )
    maps = tuple(
        _intensity(name, np.concatenate([values[channel] for values in foreground]), np.array(levels)[:, channel])
        for channel, name in enumerate(dataset.channels)
    )
    affine = np.eye(4)
    affine[range(dims), range(dims)] = spacing
    affine[:dims, 3] = [-s * (n - 1) / 2 for s, n in zip(spacing, grid, strict=True)]
    train = [case for case in dataset.cases if splits[case.id] == "train"]
    return Schema(
        population=dataset.population or str(dataset.extra.get("name", dataset.root.name)),
        channels=dataset.channels,
        labels=dataset.labels,
        attributes=infer_attributes([case.attributes for case in train]),
        grid=tuple(int(n) for n in grid),
        spacing_mm=spacing,
        affine=tuple(affine.ravel().tolist()),
        intensities=maps,
        dtype=str(np.result_type(*dtypes)),
        file_ending=dataset.file_ending,
        texts=any(case.text for case in train),
    )


def _grid(sizes_mm: np.ndarray, spacing: np.ndarray, multiple: int) -> tuple[int, ...]:
    voxels = np.ceil(sizes_mm.max(axis=0) / spacing - 1e-3)
    return tuple(int(-(-n // multiple) * multiple) for n in voxels)


def _intensity(channel: str, foreground: np.ndarray, levels: np.ndarray) -> IntensityMap:
    """CT: the labelled structures' range with air kept, at most -1024..3071 HU; else percentiles."""
    if channel.casefold() == _CT:  # as nnU-Net reads channel names
        high = float(np.quantile(foreground, 0.999)) if foreground.size else 1000.0
        return Window(low=-1024.0, high=float(np.clip(high + 200.0, 300.0, 3071.0)))
    low, high = apart(*(float(level) for level in np.median(levels, axis=0)))
    return Percentiles(low=low, high=high)


def _write_case(
    folder: Path, case: Case, dataset: Dataset, schema: Schema, *, patient: str, split: Split
) -> PreparedCase:
    checked = read_case(case, dataset)
    placement = Placement.of(checked.image, grid=schema.grid, spacing_mm=schema.spacing_mm)
    placement.require_inside(checked.mask, f"case {case.id!r}")
    image, mask, levels = working_pair(checked.image, checked.mask, schema)
    np.save(folder / "images" / f"{case.id}.npy", image)
    np.save(folder / "masks" / f"{case.id}.npy", mask)
    if checked.truth is not None:
        (folder / "truth").mkdir(exist_ok=True)
        truth = placement.to_working(checked.truth, fill=float(checked.truth.data.min()))
        np.save(folder / "truth" / f"{case.id}.npy", _apply(schema.intensities[0], truth.data[0], levels[0])[None])
    return PreparedCase(
        case=case.id,
        patient=patient,
        split=split,
        attributes=schema.seen_attributes(case.attributes),
        text=case.text,
        levels=levels,
        native_grid=checked.image.grid,
        native_affine=tuple(checked.image.affine.ravel().tolist()),
    )


def working_pair(
    image: Volume, mask: Volume, schema: Schema
) -> tuple[np.ndarray, np.ndarray, tuple[tuple[float, float], ...]]:
    """Return a native pair as models and judges see it: mapped image (channel, *grid), labels (*grid) 0..K, levels.

    Both lie on the schema's working grid; the mask's labels are matched by name, those the schema lacks become 0.
    """
    placement = Placement.of(image, grid=schema.grid, spacing_mm=schema.spacing_mm)
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


def what_it_can_show(prepared: Prepared) -> Sequence[tuple[str, str]]:
    """Return (figure, value) of what this data can decide.

    Dice gain: 2.8 SD / sqrt(n) with SD 0.1 (80 % power, paired, two-sided 5 %); copies: the share whose absence
    in n samples a one-sided 95 % bound excludes, 3 / n.
    """
    count = {name: len({case.patient for case in prepared.split(name)}) for name in ("train", "holdout", "test")}
    gain = (
        f"{2.8 * 0.1 / count['test'] ** 0.5:.3f}" if count["test"] >= 2 else "undecidable: fewer than 2 test patients"
    )
    share = f"{3.0 / count['holdout']:.3f}" if count["holdout"] >= 4 else "undecidable: fewer than 4 hold-out patients"
    return [
        *((f"patients, {name}", str(number)) for name, number in count.items()),
        ("smallest detectable Dice gain", gain),
        ("smallest detectable copy share", share),
    ]
