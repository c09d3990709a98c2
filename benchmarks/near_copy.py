"""What `--accept` rejects as a near copy, by distance to training alone and by leaning to it; and whom exposure finds.

synth cohort --out COHORT --count 360 --seed 1
synth prepare COHORT --out DATA
python -m benchmarks.near_copy --data DATA --out benchmarks/results/near-copy.json

Each split draws training, held-out and further subjects. Shares with p <= 0.05 of: further subjects as they are; copies
of training subjects; the same done to further subjects, which copies nobody; further subjects moved towards the mean of
training, as of a generator that varies less than subjects do.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

from benchmarks.keeping import command_line
from evaluation.evidence import Judged
from evaluation.functional.privacy import conformal_p_values, leaning, nearest_others
from evaluation.privacy import plants
from evaluation.privacy.search import References, cell_grid, cells
from pipelines.evidence import real_set
from pipelines.progress import Progress, progress
from synth.data.prepared import Prepared
from synth.io import write_bytes
from synth.rng import numpy_rng

LEVEL = 0.05
WARPS = (2.0, 3.0)
MIXED = 0.5
SPREADS = (0.9, 0.7, 0.5)
EXPOSED = 60
Shares = dict[str, dict[str, list[float]]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure the near-copy test and exposure, and write JSON."""

    data: Path
    """A prepared cohort; every case of it is used, whatever its split, as no model is involved."""
    out: Path
    splits: int = 20
    training: int = 200
    holdout: int = 79
    each: int = 5
    """Copies of each kind in a split."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Of samples: distances to training (n,), to the nearest held-out subject (n,), to every subject (n, t + h)."""

    near: np.ndarray
    beside: np.ndarray
    rows: np.ndarray

    def scores(self) -> dict[str, np.ndarray]:
        """Return what each way of scoring gives (n,)."""
        return {"distance": self.near, "leaning": leaning(self.near, self.beside)}


def warped(item: Judged, rms: float, rng: np.random.Generator) -> Judged:
    """Return a volume under the elastic disguise with displacements of so many voxels."""
    image, mask = plants.elastic(np.asarray(item.image, dtype=np.float64), item.mask, rng, rms_voxels=rms)
    return replace(item, image=image, mask=mask)


def altered(
    items: Sequence[Judged], partners: Sequence[Judged], grid: Sequence[int], each: int, *, seed: int
) -> dict[str, list[np.ndarray]]:
    """Return cells of `each` volumes of every kind: in each disguise, warped further, mixed with a partner."""
    rng = numpy_rng("benchmark near copy", seed)
    out: dict[str, list[np.ndarray]] = defaultdict(list)
    for one in plants.plant(items, each * len(plants.DISGUISES), seed=seed):
        out[one.kind].append(cells(one.item.image, grid))
    for rms in WARPS:
        for index in rng.permutation(len(items))[:each]:
            out[f"elastic, {rms:g} voxels"].append(cells(warped(items[index], rms, rng).image, grid))
    for index, other in zip(rng.permutation(len(items))[:each], rng.permutation(len(partners))[:each], strict=True):
        first, second = (cells(one.image, grid) for one in (items[index], partners[other]))
        out["mean of two subjects"].append(MIXED * first + (1 - MIXED) * second)
    return out


def split(items: Sequence[Judged], options: Options, run: int, found: Shares, exposed: Shares, bar: Progress) -> None:
    """Add what one split finds."""
    order = [items[i] for i in numpy_rng("benchmark near copy splits", run).permutation(len(items))]
    count, edge = options.training, options.training + options.holdout
    train, others = order[:count], order[edge:]
    grid = cell_grid(train[0].image.shape[1:])
    reduced = [cells(item.image, grid) for item in order]
    known = References(np.stack(reduced[:edge]).astype(np.float32))

    def measured(queries: Sequence[np.ndarray], *, own: bool = False) -> Measured:
        rows, near = [], []
        for index, query in enumerate(queries):
            beside = [i for i in range(count, edge) if not own or i != count + index]
            row, least = known.compare(query, [slice(0, count), np.array(beside)])
            rows.append(row)
            near.append(least)
            bar.advance()
        nearest, aside = np.array(near).T
        return Measured(nearest, aside, np.array(rows))

    control = measured(reduced[count:edge], own=True)

    def add(name: str, of: Measured) -> None:
        for by, scores in of.scores().items():
            p = conformal_p_values(scores, control.scores()[by])
            found[name][by].append(float((p <= LEVEL).mean()))

    clean = measured(reduced[edge:])
    add("further subjects", clean)
    mean = np.mean(reduced[:count], axis=0)
    for spread in SPREADS:
        some = reduced[edge : edge + options.each]
        add(f"spread {spread:g}", measured([spread * one + (1 - spread) * mean for one in some]))
    sources = [plant.source for plant in plants.plant(train, options.each * len(plants.DISGUISES), seed=run)]
    copies = {kind: measured(some) for kind, some in altered(train, others, grid, options.each, seed=run).items()}
    for kind, some in copies.items():
        add(f"copies: {kind}", some)
    for kind, some in altered(others, others[::-1], grid, options.each, seed=run).items():
        add(f"of further subjects: {kind}", measured(some))
    planted = np.concatenate([copies[kind].rows for kind in plants.DISGUISES])
    _add_exposure(clean.rows[:EXPOSED], control.rows, np.zeros(0, int), exposed, count)
    _add_exposure(np.concatenate([clean.rows[:EXPOSED], planted]), control.rows, np.array(sources), exposed, count)


def _add_exposure(samples: np.ndarray, held: np.ndarray, copied: np.ndarray, exposed: Shares, count: int) -> None:
    """Add the shares of copied and other training subjects with p <= 0.05, by distance and over that to held-out."""
    nearest = samples.min(axis=0)
    beside = np.concatenate([held[:, :count].min(axis=0), nearest_others(held[:, count:].T)])
    for by, scores in (("distance", nearest), ("leaning", leaning(nearest, beside))):
        p = conformal_p_values(scores[:count], scores[count:])
        is_copied = np.isin(np.arange(count), copied)
        if len(copied):
            exposed["copied subjects"][by].append(float((p[is_copied] <= LEVEL).mean()))
            exposed["others beside copies"][by].append(float((p[~is_copied] <= LEVEL).mean()))
        else:
            exposed["where nobody is copied"][by].append(float((p <= LEVEL).mean()))


def _means(shares: Shares) -> dict[str, dict[str, float]]:
    return {
        name: {by: round(float(np.mean(values)), 4) for by, values in ways.items()} for name, ways in shares.items()
    }


def main(options: Options) -> None:
    """Measure and write JSON."""
    torch.set_num_threads(1)
    prepared = Prepared.load(options.data)
    items = list(real_set(prepared, prepared.cases))
    found: Shares = defaultdict(lambda: defaultdict(list))
    exposed: Shares = defaultdict(lambda: defaultdict(list))
    kinds = len(plants.DISGUISES) + len(WARPS) + 1
    queries = len(items) - options.training + (len(SPREADS) + 2 * kinds) * options.each
    with progress("splits", options.splits * queries) as bar:
        for run in range(options.splits):
            split(items, options, run, found, exposed, bar)
    result = {
        "command": command_line("near_copy", DATA=options.data),
        "subjects": {
            "training": options.training,
            "holdout": options.holdout,
            "further": len(items) - options.training - options.holdout,
        },
        "splits": options.splits,
        "of_each_kind": options.splits * options.each,
        "share_with_p_at_most_5": _means(found),
        "exposed_at_5": _means(exposed),
    }
    write_bytes(options.out, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options))
