"""Fixtures with known answers on which peers go wrong: HD95, calibration error, MMD. JSON out; non-zero where ours do.

python -m benchmarks.peers_wrong OUT.json

HD95    ten of ten cases miss the structure: the worst there is, not 0 (MONAI's HausdorffDistanceMetric, issue 9095)
ECE     half the voxels are stated 0 and positive, half 0.95 and positive: |1 - 0| / 2 + |1 - 0.95| / 2 = 0.525.
        MetricsReloaded bins (l, u], in which 0 is in no bin: its rule is computed here, since it isn't on PyPI
MMD     equal means, three times the spread, unequal sizes: above what equal distributions show (MONAI's MMDMetric
        has a linear kernel by default, blind to spread, and refuses unequal sizes)
SSIM    a batch's other volumes must not change one's value (torchmetrics' data_range=None takes it from the batch)
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation import functional as F
from synth.io import write_bytes
from synth.rng import numpy_rng

_BINS = 10


def missed() -> dict[str, Any]:
    """HD95 of ten cases that all miss a cube."""
    from monai.metrics.hausdorff_distance import HausdorffDistanceMetric

    ref = torch.zeros(10, 1, 16, 16, 16)
    ref[:, :, 4:9, 4:9, 4:9] = 1
    peer = HausdorffDistanceMetric(include_background=True, percentile=95)
    peer(y_pred=torch.zeros_like(ref), y=ref)
    found = peer.aggregate()
    theirs = float(found[0] if isinstance(found, tuple) else found)  # pyright: ignore[reportArgumentType]
    asked: dict[str, Any] = {"labels": [1], "spacing_mm": (1.0, 1.0, 1.0)}
    ours = float(np.mean([F.hd95(0 * one[0], one[0], **asked)[0] for one in ref]))
    right = float(16 * np.sqrt(3))
    return {"right": right, "ours": ours, "monai": theirs, "ours_right": abs(ours - right) < 1e-6}


def zeros_and_ones() -> dict[str, Any]:
    """ECE where certainty is stated and wrong."""
    prob, target = np.array([0.0] * 50 + [0.95] * 50), np.ones(100)
    edges = np.linspace(0, 1, _BINS + 1)
    places = [(prob > low) & (prob <= high) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    gaps = [p.sum() * abs(target[p].mean() - prob[p].mean()) for p in places if p.any()]
    counted = sum(int(p.sum()) for p in places)
    theirs = float(sum(gaps) / counted)
    ours = F.expected_calibration_error(prob, target)
    return {"right": 0.525, "ours": ours, "half_open_bins": theirs, "ours_right": abs(ours - 0.525) < 1e-9}


def spread() -> dict[str, Any]:
    """MMD of sets that differ in spread only, 200 against 120 rows of 16 columns."""
    from monai.metrics.mmd import MMDMetric

    rng = numpy_rng(0, "spread")
    x, y = 3 * rng.standard_normal((200, 16)), rng.standard_normal((120, 16))
    null = [F.kernel_distance(rng.standard_normal((200, 16)), rng.standard_normal((120, 16))) for _ in range(40)]
    ours = F.kernel_distance(x, y)

    def linear(a: np.ndarray, b: np.ndarray) -> float | str:
        try:
            shaped = [torch.from_numpy(side).float()[:, None] for side in (a, b)]
            return float(torch.as_tensor(MMDMetric()(*shaped)).mean())
        except (ValueError, RuntimeError) as error:
            return f"refused: {str(error).splitlines()[0]}"

    # of equal sizes, at which MONAI computes at all: 3 times the spread against no difference
    even = [linear(3 * rng.standard_normal((120, 16)), y), linear(rng.standard_normal((120, 16)), y)]
    return {
        "ours": ours,
        "ours_of_equal_sets": [float(min(null)), float(max(null))],
        "monai": linear(x, y),
        "monai_at_equal_sizes": {"three_times_the_spread": even[0], "no_difference": even[1]},
        "ours_right": ours > max(null),
    }


def companions() -> dict[str, Any]:
    """SSIM of one volume, alone and beside another of a larger range."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    rng = numpy_rng(0, "companions")
    x = torch.from_numpy(rng.random((2, 1, 24, 24, 24)))
    y = x + 0.1 * torch.from_numpy(rng.standard_normal(x.shape))
    x[1], y[1] = 5 * x[1], 5 * y[1]

    def theirs(count: int) -> float:
        each = structural_similarity_index_measure(x[:count], y[:count], data_range=None, reduction="none")
        return float(torch.as_tensor(each)[0] if not isinstance(each, tuple) else each[0][0])

    ours = [float(F.ssim(x[:count], y[:count], data_range=1.0)[0]) for count in (1, 2)]
    return {"ours": ours, "torchmetrics": [theirs(1), theirs(2)], "ours_right": ours[0] == ours[1]}


def main(options: argparse.Namespace) -> None:
    """Measure all fixtures, write them, and fail where one of ours is wrong."""
    fixtures = {"hd95": missed(), "ece": zeros_and_ones(), "mmd": spread(), "ssim": companions()}
    result = {
        "command": f"python -m benchmarks.peers_wrong benchmarks/results/{options.out.name}",
        "fixtures": fixtures,
    }
    write_bytes(options.out, (json.dumps(result, indent=2) + "\n").encode())
    print(json.dumps(fixtures, indent=2))
    if not all(fixture["ours_right"] for fixture in fixtures.values()):
        raise SystemExit("a fixture came out wrong")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    main(parser.parse_args())
