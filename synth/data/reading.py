"""The voxels of a case, whatever its files are: channels joined, the mask on the image's grid. Knows no layout."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from synth.data.dataset import Case, Dataset
from synth.errors import DataError
from synth.io import PICTURES, is_series, read, read_header
from synth.volume import Volume


def read_image(case: Case, dataset: Dataset, *, varied: bool = True) -> Volume:
    """Return all channels of a case; with `varied`, a constant one is a fault. Errors: DataError, GeometryError."""
    parts: list[Volume] = []
    for path in case.images:
        part = read(path)
        if parts:
            part = _in_place(part, path, parts[0])
            parts[0].require_same_geometry(part, case=case.id, what=path.name)
        if varied:
            _require_content(part, path)
        parts.append(part)
    count = sum(part.channels for part in parts)
    if count != len(dataset.channels):
        odd = next((n for n, part in enumerate(parts) if part.channels != 1), 0)
        raise DataError(
            f"{case.images[odd]} holds {parts[odd].channels} channels, which makes {count} for case {case.id!r}; the "
            f"dataset names {len(dataset.channels)} ({', '.join(dataset.channels)}): split the file or name all"
        )
    return parts[0].replace(data=np.concatenate([part.data for part in parts]))


def read_mask(case: Case, dataset: Dataset, image: Volume) -> Volume:
    """Return the mask of a case on the grid of its `image`, its labels named. Errors: DataError, GeometryError."""
    if case.mask is None:
        raise DataError(f"case {case.id!r} has no mask; prepare needs labelled cases")
    labels = dataset.label_values
    found = _segmentation(case.mask)
    if found is not None:
        from synth.dicom import Segmentation

        data = Segmentation.open(found).read(image.grid, image.affine, labels)
        mask = image.replace(data=data, labels=labels)
    else:
        mask = _in_place(read(case.mask, labels=labels), case.mask, image)
    if mask.channels != 1:
        raise DataError(f"{case.mask} holds {mask.channels} channels; a mask has one, of label values")
    image.require_same_geometry(mask, case=case.id)
    strange = sorted(value for value in np.unique(mask.data).tolist() if value not in {0, *labels.values()})
    if strange:
        known = sorted(labels.values())
        raise DataError(
            f"mask of case {case.id!r} has value {strange[0]:g}, the dataset knows {known}; "
            f"mend {case.mask} or the labels"
        )
    return mask


def read_labels(path: str | Path, labels: Mapping[str, int], series: str | Path | None = None) -> Volume:
    """Return a mask by `labels` (name -> value); a SEG lies on the grid of its `series`. Errors: as `read_mask`."""
    if series is None:
        return read(path, labels=labels)
    from synth.dicom import Segmentation, find_segmentation

    found = find_segmentation(Path(path))
    if found is None:
        raise DataError(f"{path} is no DICOM-SEG; give the mask as SEG or NIfTI")
    header = read_header(series)
    data = Segmentation.open(found).read(header.grid, header.affine, dict(labels))
    return Volume(np.ascontiguousarray(data), header.affine, labels)


def series_of(case: Case) -> str | None:
    """Return the series on whose grid the SEG of a case lies; None where its mask says its own grid."""
    if case.mask is None or _segmentation(case.mask) is None:
        return None
    return str(case.images[0])


def _in_place(part: Volume, path: Path, first: Volume) -> Volume:
    """A picture's grid is its whole geometry: where it agrees, its place is that of the picture beside it."""
    picture = path.name.lower().endswith(PICTURES)
    return part.replace(affine=first.affine) if picture and part.grid == first.grid else part


def _require_content(part: Volume, path: Path) -> None:
    """Errors: DataError for a constant channel; of a picture, all its colours are to be constant."""
    flat = [float(channel.min()) == float(channel.max()) for channel in part.data]
    if all(flat) or (any(flat) and not path.name.lower().endswith(PICTURES)):
        which = flat.index(True)
        where = f"channel {which} of {path}" if part.channels > 1 else str(path)
        raise DataError(
            f"{where} is constant ({float(part.data[which].flat[0]):g} everywhere); remove the case or mend the file"
        )


def _segmentation(path: Path) -> Path | None:
    if not is_series(path):
        return None
    from synth.dicom import find_segmentation

    return find_segmentation(path)
