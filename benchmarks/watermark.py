"""The watermark: false alarms without it, detection after what happens to images, and what it does to them.

synth cohort --out COHORT --count 360 --seed 1
synth prepare COHORT --out DATA
python -m benchmarks.watermark WORK benchmarks/results/watermark.json --cohort COHORT --data DATA

Hosts: the cohort's brains (MR-like, float32, 2.6 mm) and abdomens of synth.simulate.phantoms (CT-like, int16 HU, 4 mm,
5 mm where they carry no mark, noise of 14 HU), one a seed: every volume is a subject of its own. Strength s is s HU in
CT and s/400 of the range (0.5 to 99.5 percent of the bundled model's data) in MR. p-values rank a key among 199 decoys.
Rates have Clopper-Pearson intervals of 95 %; times are CPU seconds.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.attacks import COMMON, FURTHER, Attack
from benchmarks.keeping import Kept, command_line, say, write_result
from evaluation import functional
from evaluation.functional.statistics import clopper_pearson
from evaluation.segmenter import Segmenter, load_judge
from pipelines.evidence import require_order
from synth.data.dataset import Dataset
from synth.data.intensity import Window
from synth.data.preparation import working_pair
from synth.data.prepared import Prepared
from synth.data.reading import read_image, read_mask
from synth.formats import read as read_dataset
from synth.generator import load
from synth.rng import numpy_rng
from synth.simulate.phantoms import abdomen_organs_ct
from synth.volume import Volume
from synth.watermark import Detector, Key, embed, p_value, peaks

ALPHA, DECOYS, WRONG = 0.01, 199, 5
CT_GRIDS = {4.0: (80, 72, 56), 5.0: (64, 60, 48)}
JUDGE = Path(__file__).parents[1] / "evaluation" / "assets" / "brain-tiny-judge"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure and write JSON; parts that are there are not measured again."""

    work: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    cohort: Path
    data: Path
    brains: int = 360
    """MR-like volumes without a mark, of the cohort."""
    phantoms: int = 680
    """CT-like volumes without a mark."""
    marked: int = 32
    """Volumes of each kind that are marked at strength 1 and 2."""
    curve: int = 16
    """At the other strengths, and for further attacks."""
    judged: int = 40
    strengths: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)


def keys(count: int, *name: int | str) -> list[Key]:
    """Return keys of a name: drawn here, so that the same command gives the same figures."""
    rng = numpy_rng(0, "watermark", *name)
    return [Key(rng.bytes(32)) for _ in range(count)]


@cache
def cohort_of(folder: Path) -> Dataset:
    """Return the cohort."""
    return read_dataset(folder)


@lru_cache(maxsize=64)
def brain(cohort: Path, index: int) -> Volume:
    """Return the image of a case of the cohort."""
    return read_image(cohort_of(cohort).cases[index], cohort_of(cohort))


@lru_cache(maxsize=64)
def abdomen(index: int, step_mm: float) -> Volume:
    """Return the image of a phantom."""
    return abdomen_organs_ct(index, grid=CT_GRIDS[step_mm], spacing_mm=(step_mm, step_mm, step_mm)).image


def hosts(kind: str, count: int, options: Options, *, step_mm: float = 4.0) -> Iterator[Volume]:
    """Yield volumes of one kind, each of a subject of its own."""
    for index in range(count):
        yield brain(options.cohort, index) if kind == "mr" else abdomen(index, step_mm)


@cache
def native(kind: str, strength: float) -> float:
    """Return a strength in the units of the voxels."""
    schema = load("brain-tiny").model.recipe.schema
    assert schema is not None
    return peaks([Window()] if kind == "ct" else schema.intensities, strength)[0]


def rate(hits: int, of: int) -> dict[str, Any]:
    """Return a share with its interval."""
    bounds = clopper_pearson(hits, of)
    return {"rate": hits / of, "interval": [bounds.low, bounds.high], "hits": hits, "n": of}


def p_values(scores: np.ndarray, wanted: int) -> list[float]:
    """Return the p-values of the first `wanted` keys, each among the decoys, which come last."""
    return [p_value(float(score), scores[wanted:]) for score in scores[:wanted]]


def false_alarms(kind: str, count: int, options: Options) -> dict[str, Any]:
    """Return p-values of wrong keys on volumes without a mark: one and more of each volume's own, and fixed ones."""
    decoys = keys(DECOYS, "decoys", kind)
    own, fixed = [], []
    for number, volume in enumerate(hosts(kind, count, options, step_mm=5.0)):
        wrong = keys(WRONG, "wrong", kind, number)
        scores = Detector([*wrong, *decoys]).scores(volume)
        own.append(p_values(scores, WRONG))
        everyone = scores[WRONG:]  # each decoy as if it were a released key: among the best 2 of 199
        fixed.append([(everyone >= score).sum() <= round(ALPHA * len(everyone)) for score in everyone])
    return {"own": own, "fixed": np.array(fixed).sum(axis=0).tolist(), "volumes": count}


def told_false_alarms(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the rates of false alarms over all parts."""
    own = np.concatenate([np.array(part["own"]) for part in parts])
    fixed = np.concatenate([np.array(part["fixed"]) / part["volumes"] for part in parts])
    first, every = own[:, 0], own.ravel()
    return {
        "distinct_volumes": len(own),
        "nominal": ALPHA,
        "one_key_a_volume": rate(int((first <= ALPHA).sum()), first.size),
        "keys_a_volume": {"keys": WRONG, **rate(int((every <= ALPHA).sum()), every.size)},
        "at_5_percent": rate(int((every <= 0.05).sum()), every.size),
        "one_fixed_key_for_all_volumes": {
            "keys": fixed.size,
            "median": float(np.median(fixed)),
            "percentile_99": float(np.quantile(fixed, 0.99)),
            "largest": float(fixed.max()),
        },
    }


def detections(kind: str, strength: float, options: Options) -> dict[str, Any]:
    """Return how often the mark of one strength is found, by attack; and how often a wrong key is."""
    full = options.marked if strength >= 1.0 else options.curve
    tried: dict[str, tuple[Attack, int]] = {name: (attack, full) for name, attack in COMMON.items()}
    if strength >= 1.0:
        tried |= {name: (attack, options.curve) for name, attack in FURTHER.items()}
    if kind == "ct":
        tried.pop("codec of the bundled model", None)
    decoys, peak = keys(DECOYS, "decoys", kind), native(kind, strength)
    found: dict[str, list[float]] = {name: [] for name in tried}
    wrong_p: list[float] = []
    for number, volume in enumerate(hosts(kind, full, options)):
        key, wrong = keys(2, "true", kind, number)
        marked = embed(volume, key, peak)
        detector = Detector([key, wrong, *decoys])
        for name, (attack, count) in tried.items():
            if number < count:
                left = attack(marked, numpy_rng(0, "attack", kind, number, name))
                p, other = p_values(detector.scores(left), 2)
                found[name].append(p)
                wrong_p += [other] if name == "none" else []
    rates = {name: rate(sum(p <= ALPHA for p in each), len(each)) for name, each in found.items()}
    return {"rates": rates, "wrong_key_on_marked": [sum(p <= ALPHA for p in wrong_p), len(wrong_p)]}


def quality(kind: str, strength: float, options: Options) -> dict[str, Any]:
    """Return how far marking changes images: largest and root mean square change, PSNR and SSIM over the range."""
    peak = native(kind, strength)
    extent = 400.0 if kind == "ct" else native("mr", 400.0 / 40) * 40
    rows, spent = [], 0.0
    for number, volume in enumerate(hosts(kind, options.curve, options)):
        begun = time.process_time()
        marked = embed(volume, keys(1, "true", kind, number)[0], peak)
        spent += time.process_time() - begun
        x, y = (one.data.astype(np.float64) for one in (volume, marked))
        change = np.abs(y - x)
        background = volume.data == volume.data.min()
        rows.append(
            [
                change.max(),
                np.sqrt((change[~background] ** 2).mean()),
                change[background].max(initial=0.0),
                float(functional.psnr(x[None], y[None], data_range=extent)[0]),
                float(functional.ssim(x[None], y[None], data_range=extent)[0]),
            ]
        )
    largest, rms, outside, psnr, ssim = np.array(rows).T
    return {
        "unit": "HU" if kind == "ct" else "native",
        "asked": peak,
        "largest_change": float(largest.max()),
        "rms_change": float(rms.mean()),
        "largest_change_of_background": float(outside.max()),
        "range": extent,
        "psnr_db": [float(psnr.mean()), float(psnr.min())],
        "ssim": [float(ssim.mean()), float(ssim.min())],
        "n": len(rows),
        "embed_s": spent / len(rows),
    }


def downstream(strength: float, options: Options) -> dict[str, Any]:
    """Return the bundled judge's Dice on marked less that on unmarked volumes of patients it never saw, paired."""
    judge, schema = load_judge(JUDGE)[0], Prepared.load(options.data).schema
    dataset = cohort_of(options.cohort)
    require_order(options.cohort, dataset.channels, schema.channels)
    labels = list(range(1, len(judge.config.labels) + 1))
    rows = []
    for number, case in enumerate(dataset.cases[: options.judged]):
        image = read_image(case, dataset)
        mask = read_mask(case, dataset, image)
        marked = embed(image, keys(1, "true", "mr", number)[0], native("mr", strength))
        rows.append([_dice(judge, working_pair(one, mask, schema), labels) for one in (image, marked)])
    pairs = np.array(rows)
    gaps = np.nanmean(pairs[:, 1] - pairs[:, 0], axis=1)
    rng = numpy_rng(0, "bootstrap")
    means = [rng.choice(gaps, len(gaps)).mean() for _ in range(2000)]
    return {
        "n": len(rows),
        "labels": list(judge.config.labels),
        "dice_unmarked": float(np.nanmean(pairs[:, 0])),
        "dice_marked": float(np.nanmean(pairs[:, 1])),
        "difference": float(gaps.mean()),
        "interval": [float(level) for level in np.quantile(means, [0.025, 0.975])],
        "largest_difference_of_a_case": float(np.abs(gaps).max()),
        "by_label": {
            name: float(np.nanmean(pairs[:, 1, n] - pairs[:, 0, n])) for n, name in enumerate(judge.config.labels)
        },
    }


def _dice(judge: Segmenter, pair: Any, labels: list[int]) -> np.ndarray:
    image, truth, _ = pair
    found, _ = judge.label(image)
    here = functional.dice(found, truth, labels=labels)
    return np.where([(truth == label).any() for label in labels], here, np.nan)


def main(options: Options) -> None:
    """Measure each part and write JSON."""
    kept = Kept(options.work, options, "watermark")
    spent: dict[str, float] = {}

    def part(name: str, make: Any) -> Any:
        begun = time.process_time()
        found = kept.part(name, lambda: {"found": make(), "cpu_s": time.process_time() - begun})
        spent[name] = found["cpu_s"]
        return found["found"]

    counts = {"mr": options.brains, "ct": options.phantoms}
    alarms = {k: part(f"false alarms {k}", lambda k=k: false_alarms(k, counts[k], options)) for k in counts}
    curve = {
        kind: {
            f"{s:g}": part(f"{kind} at {s:g}", lambda k=kind, s=s: detections(k, s, options)) for s in options.strengths
        }
        for kind in counts
    }
    of_marked = np.array([one["wrong_key_on_marked"] for each in curve.values() for one in each.values()]).sum(axis=0)
    result = {
        "command": command_line("watermark", WORK=options.work, COHORT=options.cohort, DATA=options.data),
        "population": "simulated: the demo cohort's brains, abdomens of synth.simulate.phantoms",
        "hosts": f"{options.brains} brains and {options.phantoms} abdomens, each of a subject of its own",
        "strength": "1 is 1 HU, or 1/400 of the range",
        "alpha": ALPHA,
        "decoys": DECOYS,
        "false_alarms": {
            "all": told_false_alarms(list(alarms.values())),
            **{kind: told_false_alarms([one]) for kind, one in alarms.items()},
            "another_key_on_marked_volumes": rate(int(of_marked[0]), int(of_marked[1])),
        },
        "detection": {k: {s: one["rates"] for s, one in each.items()} for k, each in curve.items()},
        "quality": {
            k: {
                f"{s:g}": part(f"quality {k} {s:g}", lambda k=k, s=s: quality(k, s, options)) for s in options.strengths
            }
            for k in counts
        },
        "judge": {f"{s:g}": part(f"judge {s:g}", lambda s=s: downstream(s, options)) for s in (1.0, 2.0)},
        "cores": len(os.sched_getaffinity(0)),
        "cpu_s": {"whole": sum(spent.values()), **spent},
    }
    write_result(options.out, options.work, result)
    say(f"{sum(spent.values()):.0f} s of CPU in all; {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options))
