"""Wall time of codec training to a given PSNR: ours against MONAI's AutoencoderKL, side by side in one process.

python -m benchmarks.codec_speed PREPARED OUT.json [--ours SECONDS] [--monai SECONDS] [--threads N]

Both have 4x / 16-channel latents, parameters within 20 %, and see the same crops in the same order, with the
same losses, AdamW and schedule of the rate. They train in turns, a slice of seconds each; scoring is not
counted, the fit of our linear start is. PSNR: in the brain of hold-out cases, against the noise-free truth,
range 1. A codec that ends its seconds below a PSNR has null there, and the speed-up is a lower bound.
"""

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

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

CHANNELS = 16
TARGETS = (24.0, 26.0, 28.0, 29.0, 30.0, 31.0, 32.0, 33.0)
RATE = 1.0e-3
WARM = 10
LINEAR_VOLUMES = 24


class Runner:
    """One codec in training, with its own clock and curve of (seconds, steps, PSNR)."""

    def __init__(self, name: str, model: Autoencoder | MonaiAutoencoder, pixels: Pixels, budget: float) -> None:
        self.name, self.model, self.pixels, self.budget = name, model, pixels, budget
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
        self.training = CodecTraining(fit=FitConfig(steps=1), crop=32, batch=4)
        self.seconds, self.steps = 0.0, 0
        self.curve: list[dict[str, float]] = []

    def start(self) -> None:
        """Fit the linear start; only ours has one."""
        begin = time.perf_counter()
        if isinstance(self.model, Autoencoder):
            self.model.start_from(linear(self.pixels))
        self.seconds += time.perf_counter() - begin
        self.score()

    def train(self, slice_seconds: float) -> None:
        """Train for a slice of wall time, then score off the clock."""
        begin, before = time.perf_counter(), self.seconds
        while self.seconds - before < slice_seconds and self.seconds < self.budget:
            batch = self.pixels.crops(self.training, self.steps, 0)
            progress = min(self.seconds / self.budget, 1.0)
            rate = RATE * min((self.steps + 1) / WARM, 1.0) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast("cpu", torch.bfloat16):
                terms = self.model.loss(batch, torch_rng(0, "noise", self.steps))
            self.optimizer.zero_grad()
            torch.stack(list(terms.values())).sum(dim=0).mean().backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.steps += 1
            self.seconds = before + time.perf_counter() - begin
        self.score()

    def score(self) -> None:
        """Append a point of the curve."""
        point = {"seconds": round(self.seconds, 2), "steps": self.steps, "psnr_db": psnr(self.model, self.pixels)}
        self.curve.append(point)
        print(self.name, point, flush=True)

    def reached(self, target: float) -> float | None:
        """Return the seconds at the first point of at least `target` dB, None where there is none."""
        return next((point["seconds"] for point in self.curve if point["psnr_db"] >= target), None)


def linear(pixels: Pixels) -> PatchPCA:
    """Return the patch-PCA of the same latent shape."""
    pca = PatchPCA(PatchPCAConfig(channels=CHANNELS))
    pca.fit(pixels.tensor(case) for case in pixels.prepared.split("train")[:LINEAR_VOLUMES])
    return pca


@torch.no_grad()
def psnr(model: Codec, pixels: Pixels, *, count: int = 4) -> float:
    """Return the mean PSNR over hold-out cases, in the brain, against the noise-free truth, range 1."""
    values = []
    for case in pixels.prepared.split("holdout")[:count]:
        truth, brain = pixels.prepared.truth(case), pixels.prepared.mask(case) > 0
        assert truth is not None, "the cohort carries its truth"
        voxels = pixels.tensor(case)[None]
        decoded = model.decode(model.encode(voxels), grid=tuple(voxels.shape[2:]))[0, 0].float().numpy()
        values.append(-10 * np.log10(np.square(decoded - truth[0])[brain].mean()))
    return round(float(np.mean(values)), 3)


def main(options: argparse.Namespace) -> None:
    """Train both in turns and write their curves and times to each PSNR."""
    torch.set_num_threads(options.threads)
    pixels = Pixels(Prepared.load(options.data), "image")
    torch.manual_seed(0)
    ours = codec.build(AutoencoderConfig(channels=CHANNELS, width=96, decoder_blocks=4, kl=1.0e-5))
    theirs = codec.build(MonaiConfig(channels=CHANNELS, widths=(32, 64, 128), kl=1.0e-5))
    assert isinstance(ours, Autoencoder) and isinstance(theirs, MonaiAutoencoder)
    runners = [Runner("ours", ours, pixels, options.ours), Runner("monai", theirs, pixels, options.monai)]
    for runner in runners:
        runner.start()
    while any(runner.seconds < runner.budget for runner in runners):
        for runner in runners:
            if runner.seconds < runner.budget:
                runner.train(options.slice)
    result = {
        "population": "simulated cohort",
        "command": f"python -m benchmarks.codec_speed {Path(options.data).name} {options.out} --ours {options.ours:g} "
        f"--monai {options.monai:g} --slice {options.slice:g} --threads {options.threads}",
        "environment": {
            "torch": torch.__version__,
            "threads": options.threads,
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[1], 1),  # above the cores: others were at work, clocks ran slow for both
        },
        "settings": {"crop": 32, "batch": 4, "rate": RATE, "precision": "bf16 autocast", "holdout_cases": 4},
        "patch_pca_psnr_db": psnr(linear(pixels), pixels),
        **{runner.name: _summary(runner) for runner in runners},
        "seconds_to_psnr": [_compared(runners, target) for target in TARGETS],
    }
    write_bytes(options.out, (json.dumps(result, indent=2) + "\n").encode())


def _summary(runner: Runner) -> dict[str, Any]:
    count = sum(parameter.numel() for parameter in runner.model.parameters())
    return {"parameters": count, "budget_seconds": runner.budget, "curve": runner.curve}


def _compared(runners: list[Runner], target: float) -> dict[str, Any]:
    ours, theirs = (runner.reached(target) for runner in runners)
    row: dict[str, Any] = {"psnr_db": target, "ours": ours, "monai": theirs}
    if ours is not None:
        row["speed_up"] = round((theirs if theirs is not None else runners[1].seconds) / ours, 1)
        row["speed_up_is_lower_bound"] = theirs is None
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--ours", type=float, default=120.0, help="seconds of training")
    parser.add_argument("--monai", type=float, default=600.0, help="seconds of training")
    parser.add_argument("--slice", type=float, default=10.0, help="seconds between scores")
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args())
