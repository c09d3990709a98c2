"""HU errors of the CT phantom by tissue: through the intensity map and the writer, through a model's codec as well.

Every way is the generator's: working grid, map, (codec, texture,) inverse map, native grid, type, nnU-Net writer; then
the file is read back by nibabel.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from scipy import ndimage

from benchmarks.real_datasets import CT_NOISE, TISSUES, ct_phantom, files_of
from synth.data.intensity import to_dtype
from synth.data.placement import Placement
from synth.data.prepared import Prepared
from synth.formats.nnunet import DatasetWriter
from synth.generator import Generator, load
from synth.io import read
from synth.rng import torch_rng
from synth.volume import Volume

WRITER, CODEC, TEXTURE = "map and writer", "codec, map and writer", "codec, texture, map and writer"
BIAS_LIMIT = 20.0
"""HU by which a smoke codec may shift the mean of a tissue's core; metal, which is clipped, apart."""


def measure(model: Path, prepared: Prepared, source: Path, folder: Path) -> dict[str, Any]:
    """Return the window, and by way, group of patients and tissue the errors in HU against the source's voxels."""
    generator = load(model)
    window = prepared.schema.intensities[0]
    ways = {WRITER: None, CODEC: _codec(generator, texture=False), TEXTURE: _codec(generator, texture=True)}
    errors: dict[str, list[np.ndarray]] = {}
    clipped: list[np.ndarray] = []
    for index, (image, _) in enumerate(files_of(source)):
        phantom = ct_phantom(index)
        group = "training" if prepared.cases[index].split == "train" else "unseen"
        for way, pixels in ways.items():
            made = _through(pixels, image, prepared, folder / way.replace(", ", "-").replace(" ", "-"), index)
            error = made.astype(np.float64) - phantom.image
            if way == WRITER:
                clipped.append(made[phantom.tissue == len(TISSUES) - 1])
            for tissue, name, inside in _parts(phantom.tissue):
                key = f"{way}|{'all' if way == WRITER else group}|{tissue}|{name}"
                errors.setdefault(key, []).append(error[inside])
    table: dict[str, Any] = {}
    for key, values in errors.items():
        way, group, tissue, part = key.split("|")
        place = table.setdefault(way, {}).setdefault(group, {}).setdefault(tissue, {})
        place[part] = _figures(np.concatenate(values))
    metal = np.concatenate(clipped)
    return {
        "window": {"low": window.low, "high": window.high},  # pyright: ignore
        "noise_sd_hu": CT_NOISE,
        "metal": {
            "in": TISSUES["metal"],
            "out": [int(metal.min()), int(metal.max())],
            "rule": "values beyond the window come back as its end",
        },
        "errors": table,
    }


def limits(figures: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Yield (what, found, limit) of what must hold."""
    plain = figures["errors"][WRITER]["all"]
    within = [plain[tissue]["whole"]["largest"] for tissue in TISSUES if tissue != "metal"]
    yield "largest HU error through map and writer inside the window", max(within), 0.5
    gap = max(abs(value - figures["window"]["high"]) for value in figures["metal"]["out"])
    yield "metal comes back as the window's end: largest gap in HU", gap, 0.5
    for group in ("training", "unseen"):
        cores = figures["errors"][TEXTURE][group]
        bias = max(abs(cores[tissue]["core"]["bias"]) for tissue in TISSUES if "core" in cores[tissue])
        yield f"largest shift of a tissue's mean through codec and writer, {group} patients, HU", bias, BIAS_LIMIT


def generated(source: Path, made: Path) -> dict[str, Any]:
    """Return the mean HU of each tissue's core in the source and in samples that follow its masks. Not a check."""
    means: dict[str, list[tuple[float, float]]] = {}
    for index, ((real, _), (image, _)) in enumerate(zip(files_of(source), files_of(made), strict=True)):
        pair = [np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj, dtype=np.float64) for path in (real, image)]
        for tissue, name, inside in _parts(ct_phantom(index).tissue):
            if name == "core" and inside.any():
                means.setdefault(tissue, []).append((float(pair[0][inside].mean()), float(pair[1][inside].mean())))
    rows = {tissue: np.mean(values, axis=0).round(1).tolist() for tissue, values in means.items()}
    return {tissue: {"source": values[0], "made": values[1]} for tissue, values in rows.items()}


def _codec(generator: Generator, *, texture: bool) -> Callable[[np.ndarray, int], np.ndarray]:
    part = generator.model.image

    @torch.inference_mode()
    def pixels(mapped: np.ndarray, index: int) -> np.ndarray:
        given = torch.from_numpy(np.array(mapped, dtype=np.float32))[None]
        decoded = part.codec.decode(part.codec.encode(given), grid=tuple(given.shape[2:]))[0]
        if texture and part.texture is not None:
            decoded = part.texture.finish(decoded, torch_rng("hounsfield", index))
        return decoded.numpy()

    return pixels


def _through(
    pixels: Callable[[np.ndarray, int], np.ndarray] | None, image: Path, prepared: Prepared, folder: Path, index: int
) -> np.ndarray:
    """Return the voxels of a case after the way there and back, as a reader of the written file sees them."""
    schema, native = prepared.schema, read(image)
    window = schema.intensities[0]
    placement = Placement.of(native, grid=schema.grid, spacing_mm=schema.spacing_mm)
    working = placement.to_working(native, fill=float(native.data.min()))
    mapped = np.stack([window.apply(working.data[0])])
    mapped = mapped if pixels is None else pixels(mapped, index)
    back = placement.to_native(Volume(window.invert(mapped), placement.affine), fill=-1024.0)
    writer = DatasetWriter(folder, name="Hounsfield", channels=schema.channels, labels=schema.label_values)
    case = f"case_{index:02d}"
    empty = Volume(np.zeros((1, *native.grid), dtype=np.uint8), native.affine)
    writer.add(case, back.replace(data=to_dtype(back.data, schema.dtype)), empty)
    return np.asarray(nibabel.Nifti1Image.from_filename(folder / writer.paths(case)[0]).dataobj)


def _parts(tissue: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield (tissue, "whole" or "core", where); the core leaves the outer voxel out, where edges are blurred."""
    for number, name in enumerate(TISSUES):
        whole = tissue == number
        yield name, "whole", whole
        core = ndimage.binary_erosion(whole, border_value=1)
        if name != "metal":
            yield name, "core", core


def _figures(error: np.ndarray) -> dict[str, float]:
    return {
        "voxels": int(error.size),
        "mean_absolute": round(float(np.abs(error).mean()), 2),
        "bias": round(float(error.mean()), 2),
        "largest": round(float(np.abs(error).max()), 2),
    }
