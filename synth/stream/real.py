"""The real cases of a stream: a prepared folder, a dataset folder, or the user's own dataset of dicts. No sampling.

Cases of a prepared folder are those that train (of a fold, where one is chosen): held-out patients never enter.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np

from synth.data.dataset import Dataset
from synth.data.intensity import IntensityMap
from synth.data.prepared import Prepared
from synth.errors import ConfigError, DataError
from synth.stream.buffer import Stored
from synth.stream.space import Scale, Space, grid_at, standardised
from synth.volume import Volume

KEPT = 32
"""Real cases of a dataset folder that a process keeps in the loop's space; decoding is slow."""
_MASKS = ("mask", "label", "seg", "target")


class Real(Protocol):
    """Labelled cases, and what they say of the loop's space; None where they say nothing."""

    @property
    def labels(self) -> Mapping[str, int] | None: ...

    @property
    def channels(self) -> tuple[str, ...] | None: ...

    @property
    def told(self) -> dict[str, Any] | None:
        """How the producer opens them to follow their masks."""
        ...

    def __len__(self) -> int: ...

    def space(self) -> Space | None: ...

    def load(self, number: int, space: Space) -> tuple[Stored, str]: ...


class PreparedCases:
    """The training cases of a prepared folder; voxels are read where a patch needs them."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared, self.cases = prepared, prepared.split("train")
        if not self.cases:
            raise DataError(f"{prepared.folder} has no training case; run `synth prepare` again")
        schema = prepared.schema
        self.labels = {label.name: number for number, label in enumerate(schema.labels, start=1)}
        self.channels = schema.channels
        self.told = {"kind": "prepared", "folder": str(prepared.folder.resolve()), "fold": prepared.fold}

    def __len__(self) -> int:
        return len(self.cases)

    def space(self) -> Space:
        """Return the space in which the folder holds its cases."""
        schema = self.prepared.schema
        direction = schema.direction
        return Space(
            grid=schema.grid,
            spacing_mm=schema.spacing_mm,
            direction=None if direction is None else tuple(tuple(float(v) for v in row) for row in direction),
            scale="unit",
            maps=schema.intensities,
            labels=self.labels,
        )

    def load(self, number: int, space: Space) -> tuple[Stored, str]:
        """Return a case in `space`, which differs from the folder's in spacing or z-score alone."""
        case, own = self.cases[number], self.space()
        image, mask = self.prepared.image(case), self.mask(number)
        if space.spacing_mm != own.spacing_mm:
            moved = Space(grid=space.grid, spacing_mm=space.spacing_mm, direction=own.direction, labels=space.labels)
            stored = moved.place(Volume(image, mask.affine), mask)
        else:
            stored = Stored(np.asarray(image, dtype=np.float32), space.numbered(mask))
        return Stored(standardised(stored.image) if space.scale == "zscore" else stored.image, stored.mask), case.case

    def mask(self, number: int) -> Volume:
        """Return the mask of a case, its labels named."""
        data = np.asarray(self.prepared.mask(self.cases[number]))[None]
        return Volume(data, self.prepared.schema.reference_affine, self.labels)


class FolderCases:
    """The cases of a dataset folder in any layout, brought into the loop's space as they are read."""

    def __init__(self, dataset: Dataset) -> None:
        if not dataset.cases:
            raise DataError(f"{dataset.root} has no case; give a dataset with cases")
        bare = next((case.id for case in dataset.cases if case.mask is None), None)
        if bare is not None:
            raise DataError(f"{dataset.root}: case {bare!r} has no mask; give it one, or leave it out")
        self.dataset = dataset
        self.labels, self.channels = dataset.label_values, dataset.channels
        self.told = {"kind": "dataset", "folder": str(dataset.root.resolve())}
        self.kept: OrderedDict[tuple[int, str], Stored] = OrderedDict()

    def __len__(self) -> int:
        return len(self.dataset.cases)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "kept": OrderedDict()}

    def space(self) -> None:
        """Return None: the files say nothing of the loop."""

    def load(self, number: int, space: Space) -> tuple[Stored, str]:
        """Return a case in `space`. Errors: DataError, GeometryError for faulty files."""
        from synth.data.reading import read_image, read_mask

        case, key = self.dataset.cases[number], (number, repr(space))
        if key not in self.kept:
            image = read_image(case, self.dataset)
            self.kept[key] = space.place(image, read_mask(case, self.dataset, image))
            if len(self.kept) > KEPT:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key], case.id

    def mask(self, number: int) -> Volume:
        """Return the mask of a case, its labels named."""
        from synth.data.reading import read_image, read_mask

        case = self.dataset.cases[number]
        return read_mask(case, self.dataset, read_image(case, self.dataset))


class OwnCases:
    """A map-style dataset of dicts: image, and mask, label, seg or target; channel first, in the loop's space."""

    labels: Mapping[str, int] | None = None
    channels: tuple[str, ...] | None = None
    told: dict[str, Any] | None = None

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        if len(dataset) < 1:
            raise DataError("real holds no item; give a dataset with cases")

    def __len__(self) -> int:
        return len(self.dataset)

    def space(self) -> None:
        """Return None: which spacing and scale the arrays have is the user's to say."""

    def load(self, number: int, space: Space) -> tuple[Stored, str]:
        """Return an item as arrays. Errors: DataError for other items, and for tensors on a GPU."""
        item = self.dataset[number]
        if not isinstance(item, Mapping) or "image" not in item:
            raise DataError(f"real[{number}] is {type(item).__name__} without 'image'; give dicts with image and mask")
        name = next((key for key in _MASKS if key in item), None)
        if name is None:
            raise DataError(f"real[{number}] has no mask; name it one of {', '.join(_MASKS)}")
        image, mask = (_array(item[key], f"real[{number}][{key!r}]") for key in ("image", name))
        if mask.ndim == image.ndim - 1:
            mask = mask[None]
        if mask.shape != (1, *image.shape[1:]):
            raise DataError(f"real[{number}]: mask {mask.shape} does not lie on image {image.shape}; give (1, *grid)")
        return Stored(image.astype(np.float32), mask.astype(space.dtype)), str(item.get("case", f"real_{number:05d}"))


def open_real(given: Any) -> "PreparedCases | FolderCases | OwnCases":
    """Return the cases of a prepared folder (or an opened Prepared), a dataset folder, or a map-style dataset.

    Errors: DataError for folders that are none, ConfigError for other values.
    """
    if isinstance(given, Prepared):
        return PreparedCases(given)
    if isinstance(given, Dataset):
        return FolderCases(given)
    if isinstance(given, (str, Path)):
        if (Path(given) / "prepared.yaml").is_file():
            return PreparedCases(Prepared.load(given))
        from synth.formats import read

        return FolderCases(read(given))
    if hasattr(given, "__getitem__") and hasattr(given, "__len__") and not isinstance(given, (Mapping, bytes)):
        return OwnCases(given)
    raise ConfigError(f"real is a {type(given).__name__}; give a folder, or a dataset with len() and items by number")


def reopen(told: Mapping[str, Any]) -> "PreparedCases | FolderCases":
    """Return the cases that `told` says how to open."""
    if told["kind"] == "dataset":
        from synth.formats import read

        return FolderCases(read(told["folder"]))
    prepared = Prepared.load(told["folder"])
    return PreparedCases(prepared if told["fold"] is None else prepared.at_fold(int(told["fold"])))


def space_of(
    real: Real | None,
    *,
    spacing_mm: tuple[float, ...] | None,
    intensity: "Scale | IntensityMap | None",
    maps: tuple[IntensityMap, ...],
    labels: Mapping[str, int],
) -> Space:
    """Return the loop's space: what the real cases say, and the options on top. `maps` are the model's.

    Errors: ConfigError where the real cases are in a space that was not said, or that cannot be made theirs.
    """
    own = real.space() if real is not None else None
    if not isinstance(intensity, (str, IntensityMap, type(None))):
        raise ConfigError(f"intensity is {intensity!r}; give one of {', '.join(get_args(Scale))}, or an intensity map")
    if isinstance(intensity, str) and intensity not in get_args(Scale):
        raise ConfigError(f"intensity is {intensity!r}; give one of {', '.join(get_args(Scale))}, or an intensity map")
    if own is None:
        if isinstance(real, OwnCases) and intensity is None:
            raise ConfigError(
                "intensity is not said; give the scale of the images in `real`: 'native', 'unit' or 'zscore'"
            )
        given = () if intensity is None or isinstance(intensity, str) else (intensity,) * len(maps)
        scale: Scale = "unit" if given else intensity or "native"  # pyright: ignore[reportAssignmentType]
        kept = given or (maps if scale == "unit" else ())
        return Space(spacing_mm=spacing_mm, scale=scale, maps=kept, labels=dict(labels))
    if intensity not in (None, "unit", "zscore"):
        raise ConfigError(f"intensity is {intensity!r}, prepared cases hold unit intensities; take 'unit' or 'zscore'")
    if spacing_mm is None:
        return replace(own, scale=intensity or "unit")
    assert own.grid is not None and own.spacing_mm is not None
    if len(spacing_mm) != len(own.grid):
        raise ConfigError(f"spacing is {spacing_mm}, the data have {len(own.grid)} axes; give one number each")
    grid = grid_at(own.grid, own.spacing_mm, spacing_mm)
    return replace(own, grid=grid, spacing_mm=spacing_mm, scale=intensity or "unit")


def _array(value: Any, what: str) -> np.ndarray:
    """Return a tensor, array or Volume as an array. Errors: DataError for tensors on a GPU."""
    if isinstance(value, Volume):
        return value.data
    device = getattr(value, "device", None)
    if device is not None and getattr(device, "type", "cpu") != "cpu":
        raise DataError(f"{what} is on {device}; give CPU tensors: a DataLoader's workers cannot share a GPU")
    return np.asarray(value)
