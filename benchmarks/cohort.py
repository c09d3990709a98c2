"""Measure the simulated cohort: time a subject, warps between subjects, margins, noise. JSON out.

python -m benchmarks.cohort 24 benchmarks/results/cohort.json
"""

import itertools
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

from synth.io import write_bytes
from synth.simulate import Subject
from synth.simulate.brain import subject_warp
from synth.simulate.cohort import COHORT_VERSION, cohort_subject, subject_seed
from synth.simulate.template import GRID, SPACING_MM
from synth.simulate.warp import jacobian, residual_rms_mm

SEED = 1
PAIRED = 12
FAINT = 0.1


def main(count: int, out: Path) -> None:
    """Simulate `count` subjects on one thread and write what was measured to `out`."""
    torch.set_num_threads(1)
    cohort_subject(SEED, 0)  # the template is read once a process
    subjects, clock, busy = [], [], []
    for index in range(count):
        start, work = time.perf_counter(), time.process_time()
        subjects.append(cohort_subject(SEED, index))
        clock.append(time.perf_counter() - start)
        busy.append(time.process_time() - work)
    result = {
        "population": "simulated cohort",
        "command": f"python -m benchmarks.cohort {count} {out}",
        "simulator": COHORT_VERSION,
        "subjects": count,
        "environment": {"processor": platform.machine(), "torch": torch.__version__, "numpy": np.__version__},
        "seconds_per_subject": {"wall": _spread(clock), "processor": _spread(busy)},
        **_warps(min(count, PAIRED)),
        "margin_mm": {
            "labels": _spread([_margin_mm(s.mask.data[0] > 0) for s in subjects]),
            "signal_above_tenth": _spread([_margin_mm(_bright(s)) for s in subjects]),
        },
        "noise_per_range": {
            name: _spread([_noise(s) for s in subjects if s.attributes["contrast"] == name])
            for name in sorted({str(s.attributes["contrast"]) for s in subjects})
        },
        "lesion_count": np.bincount([int(s.attributes["lesion_count"]) for s in subjects]).tolist(),
    }
    text = json.dumps(result, indent=2) + "\n"
    write_bytes(out, text.encode())
    print(text, end="")


def _spread(values: list[float]) -> dict[str, float]:
    return {name: round(float(of(values)), 4) for name, of in (("min", min), ("median", np.median), ("max", max))}


def _warps(count: int) -> dict[str, object]:
    """Return the smallest Jacobian, and the displacement between subjects beyond an affine map, over the brain."""
    inside = cohort_subject(SEED, 0).mask.data[0] > 0
    axes = [(np.arange(n) - (n - 1) / 2) * SPACING_MM for n in GRID]
    places = np.stack(np.meshgrid(*axes, indexing="ij"))
    points, determinants = [], []
    for index in range(count):
        displacement, scale = subject_warp(subject_seed(SEED, index))
        determinants.append(float(jacobian(displacement, SPACING_MM).min()))
        points.append((places + displacement.numpy())[:, inside] / scale[:, None])
    residuals = [residual_rms_mm(a, b) for a, b in itertools.combinations(points, 2)]
    mean_square = float(np.sqrt(np.mean(np.square(residuals))))
    return {
        "jacobian_min": _spread(determinants),
        "residual_between_subjects_mm": {"pairs": len(residuals), "rms": round(mean_square, 4), **_spread(residuals)},
    }


def _margin_mm(inside: np.ndarray) -> float:
    places = np.argwhere(inside)
    return float(min(places.min(), (np.array(inside.shape) - 1 - places.max(axis=0)).min())) * SPACING_MM


def _bright(subject: Subject) -> np.ndarray:
    truth = subject.truth.data[0]
    return truth > FAINT * np.percentile(truth, 99.5)


def _noise(subject: Subject) -> float:
    image, truth = subject.image.data, subject.truth.data
    low, high = np.percentile(image, [0.5, 99.5])
    return float((image - truth)[subject.mask.data > 0].std() / (high - low))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
