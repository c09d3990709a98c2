"""Seconds of codec training to a PSNR: ours against MONAI's AutoencoderKL, in turns in one process. JSON out.

python -m benchmarks.codec_speed PREPARED OUT.json --target DB --seconds SECONDS [--monai-rates RATE ...] [--threads N]

Alike on both sides: latents (4x smaller, 16 channels), parameters within 20 %, crops and their order, losses (L1,
finite differences, KL; none adversarial), AdamW, bf16 autocast, threads, and a warm-up to a constant rate with averaged
weights, so that no curve depends on when its budget ends. MONAI trains once with each rate given, ours with the
first; its best counts. Scoring is off the clock, the fit of our linear start is on it.

PSNR is of the averaged weights in fp32, range 1, in the labels of hold-out cases, against the noise-free truth where
PREPARED has one. MONAI's is the better of decoding whole volumes and decoding windows of the crops' size, as its group
norm sees other statistics in each. A side ends at its first score of at least the target, or with its seconds: then
it has null there, and the speed-up is a lower bound. Scores are SLICE seconds or a sixth of the clock apart.
"""

import argparse
import json
import math
import os
import platform
import time
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from synth import codec
from synth.codec.autoencoder import Autoencoder
from synth.codec.base import Codec
from synth.codec.config import AutoencoderConfig, MonaiConfig, PatchPCAConfig
from synth.codec.monai import MonaiAutoencoder
from synth.codec.patch_pca import PatchPCA
from synth.data.prepared import Prepared
from synth.io import write_bytes
from synth.recipe import CodecTraining
from synth.rng import torch_rng
from synth.training.codec_stage import Pixels
from synth.training.config import FitConfig
from synth.training.ema import MovingAverage

CHANNELS = 16
OURS = AutoencoderConfig(channels=CHANNELS, width=96, decoder_blocks=4, kl=1.0e-5)
MONAI = MonaiConfig(channels=CHANNELS, widths=(32, 64, 128), kl=1.0e-5)
FIT = FitConfig(warmup=10, ema=0.998, clip=1.0, weight_decay=0.01)
TRAINING = CodecTraining(fit=FIT, crop=32, batch=4)
LINEAR_VOLUMES = 24
SPACING = 1 / 6


class Runner:
    """One codec in training, with its own clock and curve of (seconds, steps, PSNR)."""

    def __init__(self, model: Autoencoder | MonaiAutoencoder, pixels: Pixels, rate: float, holdout: int) -> None:
        self.model, self.pixels, self.rate, self.holdout = model, pixels, rate, holdout
        self.seconds, self.processor_seconds, self.steps = 0.0, 0.0, 0
        self.curve: list[dict[str, float]] = []
        begin, computed = time.perf_counter(), time.process_time()
        if isinstance(model, Autoencoder):
            model.start_from(linear(pixels))
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=FIT.weight_decay)
        self.average = MovingAverage(model, FIT.ema)
        self._add_time(begin, computed)
        self.score()

    @property
    def best(self) -> float:
        """The highest PSNR so far."""
        return max(point["psnr_db"] for point in self.curve)

    def train(self, until: float) -> None:
        """Train until the clock says `until`, then score off the clock."""
        begin, computed, before = time.perf_counter(), time.process_time(), self.seconds
        while before + time.perf_counter() - begin < until:
            self._step()
        self._add_time(begin, computed)
        self.score()

    def score(self) -> None:
        """Append a point of the curve."""
        self.average.swap(self.model)
        figures = psnr(self.model, self.pixels, self.holdout)
        self.average.swap(self.model)
        self.curve.append(
            {
                "seconds": round(self.seconds, 2),
                "processor_seconds": round(self.processor_seconds, 2),
                "steps": self.steps,
                "psnr_db": max(figures.values()),
                **figures,
            }
        )
        print(type(self.model).__name__, self.rate, self.curve[-1], flush=True)

    def reached(self, target: float) -> dict[str, float] | None:
        """Return the first point of at least `target` dB, None where there is none."""
        return next((point for point in self.curve if point["psnr_db"] >= target), None)

    def _step(self) -> None:
        batch = self.pixels.crops(TRAINING, self.steps, 0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min((self.steps + 1) / FIT.warmup, 1.0)
        with torch.autocast("cpu", torch.bfloat16):
            terms = self.model.loss(batch, torch_rng(0, "noise", self.steps))
        self.optimizer.zero_grad()
        torch.stack(list(terms.values())).sum(dim=0).mean().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), FIT.clip)
        self.optimizer.step()
        self.average.update(self.model, self.steps)
        self.steps += 1

    def _add_time(self, begin: float, computed: float) -> None:
        self.seconds += time.perf_counter() - begin
        self.processor_seconds += time.process_time() - computed


def linear(pixels: Pixels) -> PatchPCA:
    """Return the patch-PCA of the same latent shape."""
    pca = PatchPCA(PatchPCAConfig(channels=CHANNELS))
    pca.fit(pixels.tensor(case) for case in pixels.prepared.split("train")[:LINEAR_VOLUMES])
    return pca


@torch.no_grad()
def psnr(model: Codec, pixels: Pixels, count: int) -> dict[str, float]:
    """Return the mean PSNR over `count` hold-out cases, in their labels, range 1; in windows too without a halo."""
    values: dict[str, list[float]] = {}
    for case in pixels.prepared.split("holdout")[:count]:
        voxels, truth = pixels.tensor(case)[None], pixels.prepared.truth(case)
        clean = voxels[0].numpy() if truth is None else np.asarray(truth)
        inside = pixels.prepared.mask(case) > 0
        sides = {"whole_db": max(voxels.shape), **({"windows_db": TRAINING.crop} if model.halo is None else {})}
        for name, side in sides.items():
            error = (decoded(model, voxels, side).numpy() - clean)[:, inside]
            values.setdefault(name, []).append(-10 * math.log10(max(float(np.square(error).mean()), 1e-12)))
    return {name: round(float(np.mean(listed)), 3) for name, listed in values.items()}


def decoded(model: Codec, voxels: Tensor, side: int) -> Tensor:
    """Return voxels (1, channel, *grid) encoded and decoded in windows of `side` voxels: (channel, *grid)."""
    out = torch.empty_like(voxels)
    for corner in product(*([*range(0, n - side, side), max(n - side, 0)] for n in voxels.shape[2:])):
        place = (..., *(slice(first, first + side) for first in corner))
        window = voxels[place]
        out[place] = model.decode(model.encode(window), grid=tuple(window.shape[2:])).float()
    return out[0]


def race(sides: list[list[Runner]], *, target: float, budget: float, spacing: float) -> None:
    """Train all in turns, to the same clock each round, until each side has reached the target or spent the budget."""

    def behind(side: list[Runner]) -> bool:
        return max(runner.best for runner in side) < target

    clock = max(runner.seconds for side in sides for runner in side)
    while clock < budget and any(behind(side) for side in sides):
        clock = min(max(clock * (1 + SPACING), clock + spacing), budget)
        for runner in [runner for side in sides if behind(side) for runner in side]:
            if runner.seconds < clock:  # else its last step was a long one
                runner.train(clock)


def compared(ours: Runner, theirs: list[Runner], target: float, budget: float) -> dict[str, Any]:
    """Return seconds and steps of both to `target` dB; speed-ups are lower bounds where MONAI did not get there."""
    mine = ours.reached(target)
    points = [point for runner in theirs if (point := runner.reached(target)) is not None]
    peer = min(points, key=lambda point: point["seconds"], default=None)
    row: dict[str, Any] = {"psnr_db": target}
    for name, point in (("ours", mine), ("monai", peer)):
        kept = ("seconds", "processor_seconds", "steps")
        row[name] = None if point is None else {key: point[key] for key in kept}
    if mine is not None:
        row["speed_up"] = round((budget if peer is None else peer["seconds"]) / mine["seconds"], 2)
        row["speed_up_is_lower_bound"] = peer is None
    return row


def main(options: argparse.Namespace) -> None:
    """Train both in turns and write their curves and seconds to the target and to each half dB of the four below it."""
    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    pixels = Pixels(Prepared.load(options.data), "image")
    rates = options.monai_rates
    torch.manual_seed(0)
    ours, *theirs = (codec.build(OURS), *(codec.build(MONAI) for _ in rates))
    sizes = _alike(ours, theirs[0])
    runners = [
        Runner(cast("Autoencoder | MonaiAutoencoder", model), pixels, rate, options.holdout)
        for model, rate in zip((ours, *theirs), (rates[0], *rates), strict=True)
    ]
    race([runners[:1], runners[1:]], target=options.target, budget=options.seconds, spacing=options.slice)
    targets = [options.target - 0.5 * n for n in reversed(range(9))]
    result = {
        "population": pixels.prepared.schema.population,
        "command": _command(options),
        "environment": {
            "torch": torch.__version__,
            "threads": options.threads,
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "load_before": round(load, 1),  # above 0: others were at work, and clocks ran slow for both
        },
        "settings": {
            "crop": TRAINING.crop,
            "batch": TRAINING.batch,
            "precision": "bf16 autocast",
            "holdout": options.holdout,
        },
        **sizes,
        "patch_pca_psnr_db": psnr(linear(pixels), pixels, options.holdout)["whole_db"],
        "budget_seconds": options.seconds,
        "to_target": compared(runners[0], runners[1:], options.target, options.seconds),
        "to_each_psnr": [compared(runners[0], runners[1:], target, options.seconds) for target in targets],
        "curves": [
            {"codec": name, "rate": runner.rate, "curve": runner.curve}
            for name, runner in zip(("ours", *["monai"] * len(rates)), runners, strict=True)
        ],
    }
    write_bytes(options.out, (json.dumps(result, indent=2) + "\n").encode())
    print(json.dumps(result["to_target"], indent=2))


def _command(options: argparse.Namespace) -> str:
    words = [Path(options.data).name, options.out, "--target", options.target, "--seconds", options.seconds]
    words += ["--monai-rates", *options.monai_rates, "--slice", options.slice, "--holdout", options.holdout]
    words += ["--threads", options.threads]
    return " ".join(
        ["python -m benchmarks.codec_speed", *(f"{w:g}" if isinstance(w, float) else str(w) for w in words)]
    )


def _alike(ours: Codec, theirs: Codec) -> dict[str, Any]:
    """Return what makes the two comparable; they must have one latent shape and parameters within 20 %."""
    counts = {name: sum(p.numel() for p in model.parameters()) for name, model in (("ours", ours), ("monai", theirs))}
    with torch.no_grad():
        shapes = [tuple(model.encode(torch.zeros(1, 1, 16, 16, 16)).shape) for model in (ours, theirs)]
    assert shapes[0] == shapes[1], shapes
    assert abs(counts["monai"] / counts["ours"] - 1) < 0.2, counts
    return {"latents": {"channels": ours.channels, "stride": ours.stride}, "parameters": counts}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a folder of `synth prepare`")
    parser.add_argument("out", type=Path)
    parser.add_argument("--target", type=float, required=True, help="PSNR in dB; above that of the patch-PCA")
    parser.add_argument("--seconds", type=float, required=True, help="most training seconds of each run")
    parser.add_argument("--monai-rates", type=float, nargs="+", default=[1.0e-3, 3.0e-4], help="learning rates")
    parser.add_argument("--slice", type=float, default=5.0, help="fewest seconds between scores")
    parser.add_argument("--holdout", type=int, default=4, help="cases that the PSNR is the mean of")
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args())
