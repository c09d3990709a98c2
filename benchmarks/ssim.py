"""Seconds of 3D SSIM: ours against MONAI and torchmetrics, in turns in one process, one thread. JSON out.

python -m benchmarks.ssim OUT.json [--size 128] [--rounds 7] [--threads 1]

All compare the same two volumes (noise smoothed at sigma 2, and the same with noise of a tenth of the range) with the
true data_range and a Gaussian window of sigma 1.5, 11 voxels. Ours and scikit-image take float64; MONAI and
torchmetrics float32, which is what they compute in. A ratio is the median over rounds of theirs / ours in that round.
Equality is with scikit-image's gaussian_weights=True, use_sample_covariance=False, for grids that are even, odd, flat
and 2D, and for volumes in HU far from 0.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from evaluation import functional as F
from synth.io import write_bytes
from synth.rng import numpy_rng

GRIDS = ((40, 41, 42), (24, 64, 12), (65, 50))
OFFSET_HU, RANGE_HU = 3000.0, 500.0


def pair(grid: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return two volumes (*grid) of range 1."""
    rng = numpy_rng(0, "ssim", *grid)
    x = ndimage.gaussian_filter(rng.standard_normal(grid), 2.0)
    x = (x - x.min()) / np.ptp(x)
    return x, x + 0.1 * rng.standard_normal(grid)


def ways(x: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], float]]:
    """Return each library's way to the mean SSIM of two volumes."""
    from monai.metrics.regression import SSIMMetric
    from torchmetrics.functional.image import structural_similarity_index_measure

    batch = (x[None, None], y[None, None])
    a, b = (torch.from_numpy(v).float() for v in batch)
    monai = SSIMMetric(spatial_dims=x.ndim, data_range=1.0, win_size=11, kernel_sigma=1.5)

    def torchmetrics_way() -> float:
        found = structural_similarity_index_measure(a, b, data_range=1.0, sigma=1.5, kernel_size=11)
        return float(found[0] if isinstance(found, tuple) else found)

    return {
        "ours": lambda: float(F.ssim(*batch, data_range=1.0)[0]),
        "monai": lambda: float(torch.as_tensor(monai(a, b)).mean()),
        "torchmetrics": torchmetrics_way,
    }


def race(x: np.ndarray, y: np.ndarray, rounds: int) -> dict[str, Any]:
    """Return values, median seconds and median ratios to ours, once each is warm."""
    each = ways(x, y)
    values = {name: way() for name, way in each.items()}
    seconds: dict[str, list[float]] = {name: [] for name in each}
    for number in range(rounds):
        order = list(each) if number % 2 == 0 else list(each)[::-1]
        for name in order:
            begin = time.perf_counter()
            each[name]()
            seconds[name].append(time.perf_counter() - begin)
        print({name: round(found[-1], 3) for name, found in seconds.items()}, flush=True)
    ours = np.array(seconds["ours"])
    return {
        "values": values,
        "seconds_median": {name: round(float(np.median(found)), 4) for name, found in seconds.items()},
        "times_ours": {
            name: round(float(np.median(np.array(found) / ours)), 2)
            for name, found in seconds.items()
            if name != "ours"
        },
    }


def differences() -> list[dict[str, Any]]:
    """Return how far ours is from scikit-image's on every grid, and MONAI's in HU."""
    from monai.metrics.regression import SSIMMetric
    from skimage.metrics import structural_similarity

    rows = []
    for grid in GRIDS:
        for offset, data_range in ((0.0, 1.0), (OFFSET_HU, RANGE_HU)):
            x, y = (offset + data_range * volume for volume in pair(grid))
            asked: dict[str, Any] = {"gaussian_weights": True, "use_sample_covariance": False}
            value: Any = structural_similarity(x, y, data_range=data_range, **asked)
            theirs = float(value)
            ours = float(F.ssim(x[None, None], y[None, None], data_range=data_range)[0])
            peer = SSIMMetric(spatial_dims=x.ndim, data_range=data_range, win_size=11, kernel_sigma=1.5)
            monai = float(
                torch.as_tensor(peer(torch.from_numpy(x)[None, None], torch.from_numpy(y)[None, None])).mean()
            )
            row = {"grid": grid, "offset": offset, "data_range": data_range, "scikit_image": theirs}
            rows.append({**row, "ours_off_by": abs(ours - theirs), "monai_off_by": abs(monai - theirs)})
    return rows


def main(options: argparse.Namespace) -> None:
    """Race, compare and write."""
    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    x, y = pair((options.size,) * 3)
    rows = differences()
    result = {
        "command": f"python -m benchmarks.ssim benchmarks/results/{options.out.name} --size {options.size} "
        f"--rounds {options.rounds} --threads {options.threads}",
        "environment": {
            "torch": torch.__version__,
            "threads": options.threads,
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "load_before": round(load, 1),  # above 0: others were at work, and clocks ran slow for all
        },
        "size": options.size,
        **race(x, y, options.rounds),
        "ms_ssim": {
            "value": float(F.ms_ssim(x[None, None], y[None, None], data_range=1.0)[0]),
            "scales": F.ms_ssim_scales(x.shape),
            "scales_at_32": F.ms_ssim_scales((32, 32, 32)),
        },
        "largest_difference_from_scikit_image": max(row["ours_off_by"] for row in rows),
        "equality": rows,
    }
    write_bytes(options.out, (json.dumps(result, indent=2) + "\n").encode())
    print(json.dumps({key: result[key] for key in ("seconds_median", "times_ours")}, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=128, help="voxels along each axis")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args())
