"""Writing compressed NIfTI: synth.io.write beside nibabel's default, in one process, turn by turn.

    python benchmarks/nifti.py --out benchmarks/results/nifti.json

Volumes are 256 x 256 x 256: smooth anatomy inside a ball, correlated texture, Rician background noise.
Seconds are medians over paired runs; a ratio is the median of the ratios of pairs. Both write to one folder.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import nibabel
import numpy as np
from nibabel.openers import Opener
from scipy import ndimage

from synth import io
from synth.volume import Volume

AFFINE = np.array([[-1.0, 0, 0, 128], [0, 1.0, 0, -128], [0, 0, 1.0, -90], [0, 0, 0, 1]])


def head(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a textured, noisy image (float32) and labels 0..4 on a cube of `size` voxels a side."""
    rng = np.random.default_rng(0)
    coarse = ndimage.gaussian_filter(rng.normal(size=(size // 4,) * 3), 2)
    smooth = np.asarray(ndimage.zoom(coarse / coarse.std(), 4, order=1), dtype=np.float32)
    texture = ndimage.gaussian_filter(rng.normal(size=(size,) * 3).astype(np.float32), 1)
    square = np.linspace(-1, 1, size, dtype=np.float32) ** 2
    inside = square[:, None, None] + square[None, :, None] + square[None, None, :] < 0.75
    clean = inside * (1000 + 200 * smooth + 60 * texture / texture.std())
    noise = rng.normal(scale=20, size=(2, *inside.shape)).astype(np.float32)
    image = np.hypot(clean + noise[0], noise[1]).astype(np.float32)
    labels = inside * (1 + np.digitize(smooth, [-0.7, 0.0, 0.7]))
    return image, labels.astype(np.uint8)


def seconds(act: Callable[[], object]) -> float:
    """Return how long `act` takes."""
    return both(act)[0]


def both(act: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that `act` takes and those its threads compute, which a busy machine changes less."""
    started, computed = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - started, time.process_time() - computed


def compare(data: np.ndarray, folder: Path, pairs: int) -> dict[str, object]:
    """Return medians, ratios and sizes for one volume, and whether each library reads back what was written."""
    ours, theirs = folder / "synth.nii.gz", folder / "nibabel.nii.gz"
    volume = Volume(data[None], AFFINE)
    image = nibabel.Nifti1Image(data, AFFINE)
    rows: list[tuple[float, float, float]] = []
    computed: list[float] = []
    for number in range(pairs + 1):
        peer, peer_computed = both(lambda: nibabel.save(image, theirs))
        own, own_computed = both(lambda: io.write(volume, ours))
        with mock.patch("os.cpu_count", return_value=1):
            single = seconds(lambda: io.write(volume, ours))
        if number:  # the first turn warms files and imports
            rows.append((peer, own, single))
            computed.append(peer_computed / own_computed)
    back, crossed = io.read(ours), nibabel.Nifti1Image.from_filename(ours)
    equal = np.array_equal(back.data[0], data) and np.array_equal(np.asarray(crossed.dataobj), data)
    middle = [statistics.median(column) for column in zip(*rows, strict=True)]
    ratios = [peer / own for peer, own, _ in rows]
    return {
        "seconds": {"nibabel": middle[0], "synth": middle[1], "synth one core": middle[2]},
        "faster": {
            "synth": statistics.median(ratios),
            "synth lowest, highest": [min(ratios), max(ratios)],
            "synth one core": statistics.median(peer / single for peer, _, single in rows),
            "synth in processor seconds": statistics.median(computed),
        },
        "size of synth to nibabel": ours.stat().st_size / theirs.stat().st_size,
        "read seconds": {
            "nibabel": seconds(lambda: np.asarray(nibabel.load(theirs).dataobj)),  # pyright: ignore[reportAttributeAccessIssue]
            "synth": seconds(lambda: io.read(theirs)),
        },
        "read back equal": bool(equal and back.same_geometry(volume)),
        "pairs": len(rows),
    }


def main() -> None:
    """Run and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/nifti.json"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=7)
    options = parser.parse_args()
    image, labels = head(options.size)
    kinds = {"image int16": np.rint(image).astype(np.int16), "image float32": image, "mask uint8": labels}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        results = {name: compare(data, Path(folder), options.pairs) for name, data in kinds.items()}
    report = {
        "command": f"python benchmarks/nifti.py --out {options.out} --size {options.size} --pairs {options.pairs}",
        "volume": f"{options.size}^3 voxels, textured and noisy",
        "results": results,
        "software": {
            "python": platform.python_version(),
            "nibabel": nibabel.__version__,
            "nibabel gzip level": Opener.default_compresslevel,
            "numpy": np.__version__,
            "compressor": io.compressor(),
        },
        "cores": os.cpu_count(),
        "load before": round(load, 1),
    }
    io.write_bytes(options.out, (json.dumps(report, indent=2) + "\n").encode())
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
