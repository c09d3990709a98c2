"""Tiled against whole decoding: largest difference, peak memory, time, by the volume's size. JSON out.

python -m benchmarks.tiling benchmarks/results/tiling.json [--pixels 160 256 320,320,192] [--tile 16]

The codec is the one of brain-tiny. Each decoding runs in a process of its own, so that its peak is its own:
resident memory above that after a small decoding, which has loaded libraries and built kernels. The peak holds
the decoded pixels, which `peak_mb_beyond_pixels` leaves out.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synth import codec
from synth.codec.config import AutoencoderConfig
from synth.codec.tiled import decode_tiled, tiles
from synth.io import write_bytes

CONFIG = AutoencoderConfig(channels=16, width=96, decoder_blocks=4)
Grid = tuple[int, int, int]


def resident_mb(kind: str) -> float:
    """Return this process's resident memory in MB: VmRSS now, VmHWM at its highest since the last `forget`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) / 1024


def forget() -> None:
    """Set the highest resident memory back to what it is now."""
    Path("/proc/self/clear_refs").write_text("5")


@torch.no_grad()
def decode(pixels: Grid, tile: int | None, out: Path) -> None:
    """Decode random latents of a volume of `pixels` and write it and the measurements to `out`."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = codec.build(CONFIG).eval()
    for parameter in model.parameters():  # no layer silent: a seam anywhere would show
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=(1.0 / parameter[0].numel()) ** 0.5)
    latents = torch.randn(1, CONFIG.channels, *(n // CONFIG.stride for n in pixels))
    model.decode(latents[..., :4, :4, :4])
    forget()
    before, begin, computed = resident_mb("VmRSS"), time.perf_counter(), time.process_time()
    decoded = model.decode(latents) if tile is None else decode_tiled(model, latents, tile=tile)
    seconds, computed = time.perf_counter() - begin, time.process_time() - computed
    peak = resident_mb("VmHWM") - before
    figures = {
        "seconds": round(seconds, 1),
        "processor_seconds": round(computed, 1),  # of one thread: what an idle machine's clock would say
        "peak_mb": round(peak, 1),
        "peak_mb_beyond_pixels": round(peak - decoded.nbytes / 2**20, 1),
    }
    np.save(out / f"{tile}.npy", decoded.numpy())
    (out / f"{tile}.json").write_text(json.dumps(figures))


def compare(pixels: Grid, tile: int) -> dict[str, Any]:
    """Decode whole and in tiles, each in its own process, and compare."""
    figures, decoded = {}, {}
    words = [
        sys.executable,
        "-m",
        "benchmarks.tiling",
        "-",
        "--tile",
        str(tile),
        "--pixels",
        ",".join(map(str, pixels)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, number in (("whole", None), ("tiled", tile)):
            subprocess.run([*words, "--part", folder, "--how", name], check=True)
            figures[name] = json.loads((Path(folder) / f"{number}.json").read_text())
            decoded[name] = np.load(Path(folder) / f"{number}.npy", mmap_mode="r")
        scale = float(np.abs(decoded["whole"]).max())
        difference = float(np.abs(decoded["whole"] - decoded["tiled"]).max()) / scale
    halo = codec.build(CONFIG).halo
    assert halo is not None
    latent = [n // CONFIG.stride for n in pixels]
    windows = int(np.prod([len(tiles(n, tile=tile, halo=halo)) for n in latent]))
    window = [min(tile + 2 * halo, n) for n in latent]
    return {
        "pixels": list(pixels),
        "pixels_mb": round(int(np.prod(pixels)) * 4 / 2**20, 1),
        "latent_grid": latent,
        "windows": windows,
        "window": window,
        "latent_voxels_decoded_to_whole": round(windows * int(np.prod(window)) / int(np.prod(latent)), 2),
        **figures,
        "peak_whole_to_tiled": round(figures["whole"]["peak_mb"] / figures["tiled"]["peak_mb"], 2),
        "largest_difference_per_range": difference,
    }


def main(options: argparse.Namespace) -> None:
    """Compare at each size and write the JSON."""
    names = [",".join(map(str, sorted(set(p)) if len(set(p)) == 1 else p)) for p in options.pixels]
    result = {
        "command": f"python -m benchmarks.tiling {options.out} --pixels {' '.join(names)} --tile {options.tile}",
        "environment": {
            "torch": torch.__version__,
            "threads": 1,
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
        },
        "codec": {"channels": CONFIG.channels, "width": CONFIG.width, "decoder_blocks": CONFIG.decoder_blocks},
        "tile": options.tile,
        "halo": codec.build(CONFIG).halo,
        "sizes": [compare(pixels, options.tile) for pixels in options.pixels],
    }
    text = json.dumps(result, indent=2) + "\n"
    write_bytes(Path(options.out), text.encode())
    print(text, end="")


def grid_of(text: str) -> Grid:
    """Return the grid of "160" or "320,320,192", multiples of the codec's stride."""
    sides = [int(word) for word in text.split(",")]
    if len(sides) not in (1, 3) or any(n < 1 or n % CONFIG.stride for n in sides):
        raise argparse.ArgumentTypeError(f"{text} is not one or three multiples of {CONFIG.stride}")
    x, y, z = sides * 3 if len(sides) == 1 else sides
    return x, y, z


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    default = [(160, 160, 160), (256, 256, 256), (320, 320, 192)]
    parser.add_argument("--pixels", type=grid_of, nargs="+", default=default, help="sides: 160, or 320,320,192")
    parser.add_argument("--tile", type=int, default=16, help="latent voxels a side")
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--how", choices=("whole", "tiled"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part is None:
        main(given)
    else:
        decode(given.pixels[0], None if given.how == "whole" else given.tile, given.part)
