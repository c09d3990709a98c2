"""Measure a brain model on its simulated cohort: speed, codec, sharpness, obedience.

synth cohort --out COHORT --count 360 --seed 1
synth prepare COHORT --out DATA
python -m benchmarks.brain_tiny MODEL DATA N benchmarks/results/brain-tiny.json
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage, stats

from evaluation.functional import dice
from evaluation.segmenter import Segmenter
from pipelines.evaluate import find_bench
from synth.codec.config import PatchPCAConfig
from synth.codec.patch_pca import PatchPCA
from synth.data.intensity import Percentiles
from synth.data.prepared import Prepared, PreparedCase
from synth.generator import Generator, load
from synth.sample import Condition, Sample
from synth.volume import Volume


def psnr_in_brain(decoded: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Return the PSNR against the noise-free truth inside the labels, range 1."""
    return float(-10 * np.log10(((decoded - truth)[mask > 0] ** 2).mean()))


def codec_figures(generator: Generator, prepared: Prepared, cases: Sequence[PreparedCase]) -> dict[str, float]:
    """Return PSNR in the brain of the model's codec and of a patch-PCA of the same size."""
    codec = generator.model.image.codec
    pca = PatchPCA(PatchPCAConfig(stride=codec.stride, channels=codec.channels))
    pca.fit(torch.from_numpy(np.array(prepared.image(case))) for case in prepared.split("train")[:64])
    figures: dict[str, list[float]] = {"codec_psnr_db": [], "patch_pca_psnr_db": [], "image_psnr_db": []}
    with torch.inference_mode():
        for case in cases:
            pixels = torch.from_numpy(np.array(prepared.image(case)))[None]
            truth, mask = prepared.truth(case), prepared.mask(case)
            assert truth is not None
            for name, made in (("codec_psnr_db", codec), ("patch_pca_psnr_db", pca)):
                decoded = made.decode(made.encode(pixels), grid=tuple(pixels.shape[2:]))[0, 0].numpy()
                figures[name].append(psnr_in_brain(decoded, truth[0], mask))
            figures["image_psnr_db"].append(psnr_in_brain(pixels[0, 0].numpy(), truth[0], mask))
    return {name: float(np.mean(values)) for name, values in figures.items()}


def radial_spectrum(image: np.ndarray, bands: int = 16) -> np.ndarray:
    """Return the power of an image by radial frequency in `bands` up to Nyquist."""
    power = np.abs(np.fft.fftn(image - image.mean())) ** 2
    axes = np.meshgrid(*[np.fft.fftfreq(n) for n in image.shape], indexing="ij")
    band = (np.sqrt(sum(axis**2 for axis in axes)) / 0.5 * bands).astype(int)
    keep = band < bands
    return np.bincount(band[keep], power[keep], bands) / np.bincount(band[keep], minlength=bands)


def texture_sd(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the spread of the high-passed image in CSF, grey and white matter."""
    fine = image - ndimage.gaussian_filter(image, 1.5)
    return np.array([fine[mask == label].std() for label in (1, 2, 3)])


def mapped(sample: Sample) -> np.ndarray:
    """Return the sample's image mapped by its own percentiles (*grid)."""
    return Percentiles().apply(sample.image.data)[0]


def follow(
    generator: Generator, prepared: Prepared, cases: Sequence[PreparedCase], judge: Segmenter
) -> dict[str, object]:
    """Generate on unseen masks; return speed, sharpness against the same cases, agreement and contrast recognised."""
    labels = [1, 2, 3, 4]
    seconds, ratios, textures, right = [], [], [], []
    found, masks, own = [], [], []
    for index, case in enumerate(cases):
        real, mask = np.array(prepared.image(case)), np.array(prepared.mask(case))
        affine = prepared.schema.reference_affine
        ask = Condition(
            mask=Volume(mask[None], affine, {name: i for i, name in enumerate(("csf", "gm", "wm", "lesion"), start=1)}),
            attributes={"contrast": case.attributes["contrast"], "lesion_contrast": case.attributes["lesion_contrast"]},
        )
        started = time.perf_counter()
        image = mapped(next(generator.generate([ask], seeds=[index])))
        seconds.append(time.perf_counter() - started)
        ratios.append(10 * np.log10(radial_spectrum(image) / radial_spectrum(real[0])))
        textures.append(texture_sd(image, mask) / texture_sd(real[0], mask))
        labelled, name = judge.label(image[None])
        found.append(labelled)
        masks.append(mask)
        right.append(name == case.attributes["contrast"])
        own.append(_dice(judge.label(real)[0], mask, labels))
    matched = np.nanmean([_dice(f, m, labels) for f, m in zip(found, masks, strict=True)], axis=0)
    permuted = np.nanmean([_dice(f, m, labels) for f, m in zip(found, [*masks[1:], masks[0]], strict=True)], axis=0)
    real_dice = np.nanmean(own, axis=0)
    below = np.median(np.array(ratios), axis=0)[: int(0.7 * 16)]
    return {
        "seconds_per_image_one_thread": float(np.median(seconds)),
        "spectrum_gap_db_up_to_0.7_nyquist": [round(float(v), 3) for v in below],
        "spectrum_gap_db_worst": float(np.abs(below).max()),
        "texture_sd_ratio_csf_gm_wm": [round(float(v), 4) for v in np.median(np.array(textures), axis=0)],
        "dice_synthetic": [round(float(v), 4) for v in matched],
        "dice_real_same_cases": [round(float(v), 4) for v in real_dice],
        "agreement": float(matched.mean() / real_dice.mean()),
        "permuted": float(permuted.mean() / real_dice.mean()),
        "contrast_recognised": float(np.mean(right)),
    }


def _dice(found: np.ndarray, mask: np.ndarray, labels: list[int]) -> np.ndarray:
    present = [bool((mask == label).any()) for label in labels]
    return np.where(present, dice(found, mask, labels=labels), np.nan)


def lesions(generator: Generator, count: int, judge: Segmenter) -> dict[str, float | None]:
    """Ask for lesion volumes without masks; return their rank correlation with what the judge finds, and the time."""
    rng = np.random.default_rng(0)
    asked, found, seconds = [], [], []
    for index in range(count):
        volume = float(rng.uniform(0.2, 12.0))
        contrast = ("T1", "T2", "FLAIR")[index % 3]
        attributes = {"contrast": contrast, "lesion_volume_ml": volume, "lesion_contrast": "strong"}
        started = time.perf_counter()
        sample = next(generator.generate([Condition(attributes=attributes)], seeds=[10_000 + index]))
        seconds.append(time.perf_counter() - started)
        labelled, _ = judge.label(mapped(sample)[None])
        asked.append(volume)
        found.append(float((labelled == 4).sum()) * float(np.prod(sample.image.spacing_mm)) / 1000)
    # a judge that finds no lesion anywhere gives no ranks
    rank = float(stats.spearmanr(asked, found).statistic) if len(set(found)) > 1 else None
    return {
        "lesion_volume_spearman": rank,
        "seconds_per_pair_one_thread": float(np.median(seconds)),
    }


def main(model: str, data: str, count: int, out: str) -> None:
    """Measure and write JSON."""
    torch.set_num_threads(1)
    generator, prepared = load(model), Prepared.load(data)
    names = [label.name for label in prepared.schema.labels]
    judge = find_bench(None, names, prepared.schema.channels).segmenter
    assert judge is not None, "no judge fits these labels"
    cases = [*prepared.split("test"), *prepared.split("holdout")][:count]
    result = {
        "command": f"python -m benchmarks.brain_tiny MODEL DATA {count} {out}",
        "model_sha256": generator.model.sha256,
        "population": prepared.schema.population,
        "n": len(cases),
        **codec_figures(generator, prepared, cases),
        **follow(generator, prepared, cases, judge),
        **lesions(generator, count, judge),
    }
    Path(out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
