"""How long the feature extractors take, and how long a second run from the cache does. JSON out.

synth cohort --out COHORT --count 360 --seed 1
synth prepare COHORT --out DATA
python -m benchmarks.extractors DATA benchmarks/results/extractors.json

One thread; the median over `count` volumes, of wall time and of processor time.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro

from evaluation.extractors import Extractor, FeatureCache, radiomics_extractor
from evaluation.extractors.imagenet import imagenet_extractor
from synth.data.prepared import Prepared
from synth.errors import ConfigError
from synth.io import write_bytes


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure and write JSON."""

    data: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    count: int = 20


Pair = tuple[np.ndarray, np.ndarray]


def timed(call: Callable[[np.ndarray, np.ndarray], np.ndarray], pairs: list[Pair]) -> tuple[int, float, float]:
    """Return the length of the features, and the median wall and processor seconds of a volume."""
    spent = []
    for image, mask in pairs:
        began, cpu = time.perf_counter(), time.process_time()
        width = len(call(image, mask))
        spent.append((time.perf_counter() - began, time.process_time() - cpu, width))
    wall, used, width = np.median(np.array(spent), axis=0)
    return int(width), float(f"{wall:.4g}"), float(f"{used:.4g}")


def main(options: Options) -> None:
    """Measure and write JSON."""
    torch.set_num_threads(1)
    prepared = Prepared.load(options.data)
    pairs = [(np.array(prepared.image(c)), np.array(prepared.mask(c))) for c in prepared.cases[: options.count]]
    settings = {"labels": len(prepared.schema.labels), "spacing_mm": prepared.schema.spacing_mm}
    extractors: list[Extractor] = [radiomics_extractor()]
    missing = ""
    try:
        extractors.append(imagenet_extractor())
    except ConfigError as error:
        missing = str(error)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(folder)
        for extractor in extractors:
            extractor(*pairs[0], **settings)
            width, wall, used = timed(partial(extractor, **settings), pairs)
            timed(partial(cache.features, extractor, **settings), pairs)
            _, again, _ = timed(partial(cache.features, extractor, **settings), pairs)
            rows.append(
                {
                    "extractor": extractor.name,
                    "fingerprint": extractor.fingerprint(),
                    "features": width,
                    "seconds_a_volume": wall,
                    "cpu_seconds_a_volume": used,
                    "seconds_from_cache": again,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "command": f"python -m benchmarks.extractors DATA {options.out} --count {options.count}",
        "population": prepared.schema.population,
        "grid": list(prepared.schema.grid),
        "n": len(pairs),
        "not_measured": missing,
        "rows": rows,
    }
    write_bytes(options.out, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(tyro.cli(Options))
