"""Measure a brain model on its simulated cohort: speed, codec, sharpness, obedience, Fréchet distance, calls.

synth cohort --out COHORT --count 360 --seed 1
synth prepare COHORT --out DATA
synth cohort --out COHORT3 --count 400 --seed 3
synth prepare COHORT3 --out OTHER --holdout 0.5 --test 0
python -m benchmarks.brain_tiny --model MODEL --data DATA --other OTHER --out benchmarks/results/brain-tiny.json

DATA is what the model was trained on: codec and obedience are measured on its hold-out and test cases. OTHER is a
disjoint cohort in two halves: its training half is what synthetic pairs are asked to be like, its hold-out half what
they and the other half are measured against.
"""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from scipy import stats

from benchmarks.brain_samples import LABELS, Ask, Made, Volumes, make, start
from benchmarks.keeping import command_line
from evaluation.extractors import radiomics_extractor
from evaluation.functional import dice, frechet_distance, radial_power_spectrum, texture_deviation
from evaluation.segmenter import Segmenter
from pipelines.judges import find_bench
from synth.codec.config import PatchPCAConfig
from synth.codec.patch_pca import PatchPCA
from synth.data.prepared import Prepared, PreparedCase
from synth.generator import Generator, load
from synth.sampler import SamplerName

_CONTRASTS = ("T1", "T2", "FLAIR")
_TISSUES = (1, 2, 3)
_CALLS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure a brain model and write JSON."""

    model: str
    data: Path
    other: Path
    out: Path
    count: int = 72
    """Unseen masks to follow, and lesion volumes to ask for."""
    pairs: int = 200
    """Pairs on each side of the Fréchet distance."""
    curve: int = 8
    """Unseen masks behind each point of the curves over calls."""
    workers: int = 2
    """Processes of one thread each."""


def psnr_in_brain(decoded: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Return the PSNR against the noise-free truth inside the labels, range 1."""
    return float(-10 * np.log10(((decoded - truth)[mask > 0] ** 2).mean()))


@torch.inference_mode()
def codec_figures(generator: Generator, prepared: Prepared, cases: Sequence[PreparedCase]) -> dict[str, float]:
    """Return PSNR in the brain of the model's codec and of a patch-PCA of the same size."""
    codec = generator.model.image.codec
    pca = PatchPCA(PatchPCAConfig(stride=codec.stride, channels=codec.channels))
    pca.fit(torch.from_numpy(np.array(prepared.image(case))) for case in prepared.split("train")[:64])
    figures: dict[str, list[float]] = {"codec_psnr_db": [], "patch_pca_psnr_db": [], "image_psnr_db": []}
    for case in cases:
        pixels = torch.from_numpy(np.array(prepared.image(case)))[None]
        truth, mask = prepared.truth(case), prepared.mask(case)
        assert truth is not None
        for name, made in (("codec_psnr_db", codec), ("patch_pca_psnr_db", pca)):
            decoded = made.decode(made.encode(pixels), grid=tuple(pixels.shape[2:]))[0, 0].numpy()
            figures[name].append(psnr_in_brain(decoded, truth[0], mask))
        figures["image_psnr_db"].append(psnr_in_brain(pixels[0, 0].numpy(), truth[0], mask))
    return {name: float(np.mean(values)) for name, values in figures.items()}


def asks_of(volumes: Volumes, first_seed: int = 0) -> list[Ask]:
    """Return asks that follow the masks, contrasts and lesion contrasts of real cases."""
    wanted = ("contrast", "lesion_contrast")
    return [
        Ask({name: case.attributes[name] for name in wanted}, first_seed + index, mask=mask)
        for index, (case, _, mask) in enumerate(volumes)
    ]


def sharpness(made: Sequence[Made], volumes: Volumes) -> dict[str, object]:
    """Return how spectra and texture of samples stand to those of the real images with the same masks."""
    spacing = made[0].spacing_mm
    spectra = [[], []]
    textures = []
    frequencies = np.zeros(0)
    for sample, (_, image, mask) in zip(made, volumes, strict=True):
        for rows, volume in zip(spectra, (sample.image, image), strict=True):
            frequencies, power = radial_power_spectrum(volume, spacing_mm=spacing, bins=20)
            rows.append(power)
        synthetic, real = (texture_deviation(v, mask, labels=_TISSUES) for v in (sample.image, image))
        textures.append(synthetic / real)
    gap = 10 * np.log10(np.mean(spectra[0], axis=0) / np.mean(spectra[1], axis=0))
    below = gap[frequencies <= 0.7 * 0.5 / max(spacing)]
    return {
        "spectrum_gap_db_up_to_0.7_nyquist": [round(float(v), 3) for v in below],
        "spectrum_gap_db_worst": float(np.abs(below).max()),
        "texture_sd_ratio_csf_gm_wm": [round(float(v), 4) for v in np.nanmean(textures, axis=0)],
    }


def dice_by_label(found: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean Dice of each label over the masks that have it."""
    labels = [1, 2, 3, 4]
    rows = [
        np.where([bool((mask == label).any()) for label in labels], dice(f, mask, labels=labels), np.nan)
        for f, mask in zip(found, masks, strict=True)
    ]
    return np.nanmean(rows, axis=0)


def obedience(made: Sequence[Made], volumes: Volumes, judge: Segmenter) -> dict[str, object]:
    """Return agreement with the masks against the judge's Dice on the same real cases, and contrasts recognised."""
    judged = [judge.label(sample.image[None]) for sample in made]
    found, masks = [labels for labels, _ in judged], [mask for _, _, mask in volumes]
    matched, permuted = dice_by_label(found, masks), dice_by_label(found, [*masks[1:], masks[0]])
    own = dice_by_label([judge.label(image[None])[0] for _, image, _ in volumes], masks)
    right = [name == case.attributes["contrast"] for (_, name), (case, _, _) in zip(judged, volumes, strict=True)]
    return {
        "dice_synthetic": [round(float(v), 4) for v in matched],
        "dice_real_same_cases": [round(float(v), 4) for v in own],
        "agreement": float(matched.mean() / own.mean()),
        "permuted": float(permuted.mean() / own.mean()),
        "contrast_recognised": float(np.mean(right)),
    }


def lesion_asks(count: int) -> list[Ask]:
    """Return asks for strong lesions of 0.2 to 12 ml, the contrasts in turn, without masks."""
    rng = np.random.default_rng(0)
    return [
        Ask(
            {
                "contrast": _CONTRASTS[index % 3],
                "lesion_volume_ml": float(rng.uniform(0.2, 12.0)),
                "lesion_contrast": "strong",
            },
            10_000 + index,
        )
        for index in range(count)
    ]


def lesions(asks: Sequence[Ask], made: Sequence[Made], judge: Segmenter) -> dict[str, object]:
    """Return ranks of the lesion volume asked against those of the mask made and found, and masks without any."""
    asked = [float(ask.attributes["lesion_volume_ml"]) for ask in asks]
    voxel = float(np.prod(made[0].spacing_mm)) / 1000
    in_mask = [float((sample.mask == 4).sum()) * voxel for sample in made]
    judged = [judge.label(sample.image[None]) for sample in made]
    found = [float((labels == 4).sum()) * voxel for labels, _ in judged]
    right = [name == ask.attributes["contrast"] for (_, name), ask in zip(judged, asks, strict=True)]
    by_contrast = {contrast: _rank(asked[index::3], found[index::3]) for index, contrast in enumerate(_CONTRASTS)}
    return {
        "n": len(asks),
        **obeyed(asked, in_mask),
        "spearman_asked_found": _rank(asked, found),
        "spearman_mask_found": _rank(in_mask, found),
        "spearman_asked_found_by_contrast": by_contrast,
        "contrast_recognised": float(np.mean(right)),
        "seconds_per_pair_one_thread": float(np.median([sample.seconds for sample in made])),
    }


def obeyed(asked: Sequence[float], in_mask: Sequence[float]) -> dict[str, float | None]:
    """Return how the lesion volumes of masks stand to those that were asked for."""
    return {
        "masks_without_a_lesion": float(np.mean([volume == 0 for volume in in_mask])),
        "mask_over_asked_median": float(np.median(np.array(in_mask) / np.array(asked))),
        "spearman_asked_mask": _rank(asked, in_mask),
    }


def _rank(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return Spearman's correlation; None where one side is constant and gives no ranks."""
    if min(len(set(x)), len(set(y))) < 2:
        return None
    found: Any = stats.spearmanr(x, y)
    return float(found.statistic)


def frechet(made: Sequence[Made], like: Volumes, against: Volumes) -> dict[str, object]:
    """Return the plain Fréchet distance of synthetic pairs to one half of a cohort, beside that of the other half."""
    features = partial(radiomics_extractor(), labels=len(LABELS), spacing_mm=like.prepared.schema.spacing_mm)
    synthetic = np.array([features(sample.image[None], sample.mask) for sample in made])
    halves = [np.array([features(i[None], m) for _, i, m in half]) for half in (like, against)]
    scale = np.concatenate(halves).std(axis=0) + 1e-6
    return {
        "n": [len(synthetic), len(halves[1])],
        "features": synthetic.shape[1],
        "synthetic_to_half": frechet_distance(synthetic / scale, halves[1] / scale),
        "half_to_half": frechet_distance(halves[0] / scale, halves[1] / scale),
    }


def curve_points() -> list[tuple[SamplerName, int, int]]:
    """Return (sampler, steps, calls) of the curves; Heun has no point at one call."""
    return [*(("euler", calls, calls) for calls in _CALLS), *(("heun", calls // 2, calls) for calls in _CALLS[1:])]


def main(options: Options) -> None:
    """Measure and write JSON."""
    generator, prepared, other = load(options.model), Prepared.load(options.data), Prepared.load(options.other)
    judge = find_bench(None, prepared.schema).segmenter
    assert judge is not None, "no judge fits these labels"
    cases = [*prepared.split("test"), *prepared.split("holdout")][: options.count]
    unseen = Volumes(prepared, cases)
    few = Volumes(prepared, cases[: options.curve])
    like, against = (Volumes(other, other.split(half)[: options.pairs]) for half in ("train", "holdout"))
    lesion = lesion_asks(options.count)
    like_asks = [Ask(dict(case.attributes), 20_000 + index, text=case.text) for index, case in enumerate(like.cases)]
    context = get_context("spawn")
    with ProcessPoolExecutor(options.workers, context, start, (options.model,)) as pool:
        followed = list(pool.map(make, asks_of(unseen)))
        result = {
            "command": command_line("brain_tiny", DATA=options.data, OTHER=options.other),
            "model_sha256": generator.model.sha256,
            "population": prepared.schema.population,
            "n": len(cases),
            **codec_figures(generator, prepared, cases),
            "seconds_per_image_one_thread": float(np.median([sample.seconds for sample in followed])),
            **sharpness(followed, unseen),
            **obedience(followed, unseen, judge),
        }
        print(json.dumps(result, indent=1), flush=True)
        started = time.perf_counter()
        pairs = list(pool.map(make, lesion))
        per_pair = (time.perf_counter() - started) / len(pairs)
        result["lesions"] = {**lesions(lesion, pairs, judge), f"seconds_per_pair_{options.workers}_workers": per_pair}
        print(json.dumps(result["lesions"], indent=1), flush=True)
        result["frechet"] = frechet(list(pool.map(make, like_asks)), like, against)
        print(json.dumps(result["frechet"], indent=1), flush=True)
        curves = []
        for sampler, steps, calls in curve_points():
            made = list(pool.map(make, [ask.by(sampler, steps) for ask in asks_of(few)]))
            seconds = float(np.median([sample.seconds for sample in made]))
            point = {"sampler": sampler, "calls": calls, "seconds_per_image": seconds}
            curves.append({**point, **sharpness(made, few), **obedience(made, few, judge)})
        result["calls"] = {"n": len(few.cases), "curves": curves}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["calls"], indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options))
