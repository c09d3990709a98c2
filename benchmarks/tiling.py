"""Tiled against whole decoding: largest difference, peak memory, time. JSON out.

python -m benchmarks.tiling benchmarks/results/tiling.json [--side 192] [--tile 16]

Each way of decoding runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from synth import codec
from synth.codec.config import AutoencoderConfig
from synth.codec.tiled import decode_tiled
from synth.io import write_bytes

CONFIG = AutoencoderConfig(channels=16, width=96, decoder_blocks=4)


def peak_mb() -> float:
    """Return the peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def decode(side: int, tile: int | None, out: Path) -> None:
    """Decode random latents of a side of `side` pixels and write pixels and measurements to `out`."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = codec.build(CONFIG).eval()
    for parameter in model.parameters():  # no layer silent: a seam anywhere would show
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=(1.0 / parameter[0].numel()) ** 0.5)
    latents = torch.randn(1, CONFIG.channels, *([side // CONFIG.stride] * 3))
    before, begin = peak_mb(), time.perf_counter()
    pixels = model.decode(latents) if tile is None else decode_tiled(model, latents, tile=tile)
    figures = {"seconds": round(time.perf_counter() - begin, 2), "peak_mb_above_start": round(peak_mb() - before, 1)}
    np.save(out / f"{tile}.npy", pixels.numpy())
    (out / f"{tile}.json").write_text(json.dumps(figures))


def main(options: argparse.Namespace) -> None:
    """Decode whole and in tiles and compare."""
    figures, pixels = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, tile in (("whole", None), ("tiled", options.tile)):
            words = ["--side", str(options.side), "--part", folder, *(["--tile", str(tile)] if tile else ["--whole"])]
            subprocess.run([sys.executable, "-m", "benchmarks.tiling", str(options.out), *words], check=True)
            figures[name] = json.loads((Path(folder) / f"{tile}.json").read_text())
            pixels[name] = np.load(Path(folder) / f"{tile}.npy")
    scale = float(np.abs(pixels["whole"]).max())
    halo = codec.build(CONFIG).halo
    result = {
        "command": f"python -m benchmarks.tiling {options.out} --side {options.side} --tile {options.tile}",
        "environment": {"torch": torch.__version__, "threads": 1, "processor": platform.machine()},
        "pixels": [options.side] * 3,
        "latent_side": options.side // CONFIG.stride,
        "tile": options.tile,
        "halo": halo,
        **figures,
        "largest_difference_per_range": float(np.abs(pixels["whole"] - pixels["tiled"]).max()) / scale,
    }
    text = json.dumps(result, indent=2) + "\n"
    write_bytes(options.out, text.encode())
    print(text, end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, default=192, help="pixels a side")
    parser.add_argument("--tile", type=int, default=16, help="latent voxels a side")
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part is None:
        main(given)
    else:
        decode(given.side, None if given.whole else given.tile, given.part)
