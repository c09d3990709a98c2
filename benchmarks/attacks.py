"""What may happen to a marked volume on its way: cuts, grids, windows, noise, filters, files, a codec.

An attack takes a volume and a generator and returns what is left of it. Windows run from 0 to the 99.5th percentile of
an MR, from -160 to 240 HU of a CT; noise is told in percent of the range, of which 1 % is 10 HU in a CT.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from synth.data.orientation import on_spacing, turned_to
from synth.data.reading import read_image
from synth.formats import WRITERS
from synth.formats import read as read_dataset
from synth.formats.writing import Description
from synth.generator import load
from synth.io import read, write
from synth.volume import Label, Volume

Attack = Callable[[Volume, np.random.Generator], Volume]
CT_RANGE = 1000.0


def is_ct(volume: Volume) -> bool:
    """True for whole numbers that go below 0."""
    return volume.data.dtype.kind == "i" and int(volume.data.min()) < 0


def _floats(volume: Volume) -> np.ndarray:
    return volume.data.astype(np.float32)


def crop(share: float) -> Attack:
    """A box of so much of each axis, anywhere."""

    def attack(volume: Volume, rng: np.random.Generator) -> Volume:
        size = [max(round(share * n), 1) for n in volume.grid]
        begin = [int(rng.integers(0, n - k + 1)) for n, k in zip(volume.grid, size, strict=True)]
        affine = volume.affine.copy()
        affine[:3, 3] = (volume.affine @ [*begin, 1.0])[:3]
        part = tuple(slice(b, b + k) for b, k in zip(begin, size, strict=True))
        return Volume(np.ascontiguousarray(volume.data[(slice(None), *part)]), affine)

    return attack


def resample(factor: float) -> Attack:
    """Steps this much larger, by smoothing and linear interpolation as `prepare` and `merge` do."""
    return lambda volume, rng: on_spacing(volume, tuple(factor * step for step in volume.spacing_mm))


def window(volume: Volume, rng: np.random.Generator) -> Volume:
    """256 grey levels of a window."""
    low, high = (-160.0, 240.0) if is_ct(volume) else (0.0, float(np.quantile(volume.data, 0.995)))
    shown = np.clip((_floats(volume) - low) / (high - low), 0, 1)
    return volume.replace(data=np.rint(255 * shown).astype(np.uint8))


def gamma(volume: Volume, rng: np.random.Generator) -> Volume:
    """Intensities bent by a power of 0.8."""
    low, high = float(volume.data.min()), float(volume.data.max())
    return volume.replace(data=((_floats(volume) - low) / (high - low)) ** 0.8)


def noise(percent: float) -> Attack:
    """White noise, in the air too."""

    def attack(volume: Volume, rng: np.random.Generator) -> Volume:
        extent = CT_RANGE if is_ct(volume) else float(np.quantile(volume.data, 0.995))
        grain = rng.standard_normal(volume.data.shape, dtype=np.float32) * (percent / 100 * extent)
        return volume.replace(data=_floats(volume) + grain)

    return attack


def blur(sigma: float) -> Attack:
    """A Gaussian of so many voxels."""
    return lambda volume, rng: volume.replace(data=ndimage.gaussian_filter(_floats(volume), (0, *[sigma] * 3)))


def median(volume: Volume, rng: np.random.Generator) -> Volume:
    """The median of 3 voxels along each axis."""
    return volume.replace(data=ndimage.median_filter(_floats(volume), (1, 3, 3, 3)))


def mirror(volume: Volume, rng: np.random.Generator) -> Volume:
    """Two axes run backwards, and the affine does not say so."""
    return volume.replace(data=np.ascontiguousarray(volume.data[:, ::-1, :, ::-1]))


def reorient(volume: Volume, rng: np.random.Generator) -> Volume:
    """Axes in another order and direction, as the affine says."""
    return turned_to(volume, ("P", "S", "R"))


def rotate(degrees: float) -> Attack:
    """The patient turned in the plane, by interpolation."""

    def attack(volume: Volume, rng: np.random.Generator) -> Volume:
        fill = float(volume.data.min())
        turned = ndimage.rotate(_floats(volume), degrees, axes=(1, 2), reshape=False, order=1, cval=fill)
        return volume.replace(data=turned)

    return attack


def one_slice(volume: Volume, rng: np.random.Generator) -> Volume:
    """The middle slice, alone."""
    return Volume(np.ascontiguousarray(volume.data[..., volume.grid[2] // 2]), volume.affine)


def no_spacing(volume: Volume, rng: np.random.Generator) -> Volume:
    """The spacing lost: 1 mm is claimed."""
    return Volume(volume.data, np.eye(4))


def whole_numbers(volume: Volume, rng: np.random.Generator) -> Volume:
    """Voxels rounded and kept as int16 in a compressed NIfTI file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.nii.gz"
        write(volume.replace(data=np.rint(_floats(volume)).astype(np.int16)), path)
        return read(path)


def dicom(volume: Volume, rng: np.random.Generator) -> Volume:
    """Written as a DICOM series, and read again."""
    about = Description(name="attack", channels=("CT" if is_ct(volume) else "MR",), labels=(Label("all", 1),))
    with tempfile.TemporaryDirectory() as folder:
        writer = WRITERS["dicom"](Path(folder), about)
        writer.add("case", volume, volume.replace(data=np.ones((1, *volume.grid), np.uint8)))
        writer.finish(1)
        dataset = read_dataset(folder)
        return read_image(dataset.cases[0], dataset)


def encode_again(volume: Volume, rng: np.random.Generator) -> Volume:
    """Encoded and decoded by the bundled model's image codec, which keeps an eighth of the numbers or less."""
    model = load("brain-tiny").model
    schema = model.recipe.schema
    assert schema is not None
    torch.set_num_threads(1)
    units = schema.intensities[0]
    pixels = torch.from_numpy(units.apply(volume.data))[None]
    with torch.inference_mode():
        codec = model.image.codec
        decoded = codec.decode(codec.encode(pixels), grid=schema.grid)[0].numpy()
    return volume.replace(data=units.invert(decoded))


COMMON: Mapping[str, Attack] = {
    "none": lambda volume, rng: volume,
    "crop to 80 % of each axis": crop(0.8),
    "crop to 65 % of each axis": crop(0.65),
    "steps x 0.75": resample(0.75),
    "steps x 1.25": resample(1.25),
    "steps x 1.5": resample(1.5),
    "8-bit window": window,
    "noise 1 %": noise(1.0),
    "noise 2 %": noise(2.0),
    "blur 0.8 voxels": blur(0.8),
    "mirrored": mirror,
    "re-oriented": reorient,
    "int16 in NIfTI": whole_numbers,
}
"""Tried at every strength."""
FURTHER: Mapping[str, Attack] = {
    "steps x 2": resample(2.0),
    "blur 1.2 voxels": blur(1.2),
    "median of 3": median,
    "gamma 0.8": gamma,
    "DICOM series": dicom,
    "codec of the bundled model": encode_again,
    "rotated by 2 degrees": rotate(2.0),
    "rotated by 10 degrees": rotate(10.0),
    "one slice": one_slice,
    "spacing lost": no_spacing,
}
"""Tried at strength 1 and 2 alone, on fewer volumes: the codec on MR only."""
