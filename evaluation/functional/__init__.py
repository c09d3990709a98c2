"""Pure metric functions: torch or numpy in, float64 inside."""

from evaluation.functional.calibration import expected_calibration_error
from evaluation.functional.distribution import nearest_neighbours, sliced_wasserstein
from evaluation.functional.diversity import vendi_score
from evaluation.functional.frechet import FrechetInterval, frechet_distance, frechet_interval
from evaluation.functional.kernel import KernelTest, kernel_distance, kernel_interval, kernel_test
from evaluation.functional.manifold import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from evaluation.functional.paired import ms_ssim, ms_ssim_scales, psnr, ssim
from evaluation.functional.privacy import CopyTest, benjamini_hochberg, copy_test
from evaluation.functional.segmentation import dice, hd95, surface_dice
from evaluation.functional.spectrum import radial_power_spectrum, texture_deviation
from evaluation.functional.statistics import (
    clopper_pearson,
    cluster_bootstrap,
    grouped_jackknife,
    holm,
    paired_permutation,
    wilson,
)

__all__ = [
    "CopyTest",
    "DensityCoverage",
    "FrechetInterval",
    "KernelTest",
    "PrecisionRecall",
    "benjamini_hochberg",
    "clopper_pearson",
    "cluster_bootstrap",
    "copy_test",
    "density_coverage",
    "dice",
    "expected_calibration_error",
    "frechet_distance",
    "frechet_interval",
    "grouped_jackknife",
    "hd95",
    "holm",
    "kernel_distance",
    "kernel_interval",
    "kernel_test",
    "ms_ssim",
    "ms_ssim_scales",
    "nearest_neighbours",
    "paired_permutation",
    "precision_recall",
    "psnr",
    "radial_power_spectrum",
    "sliced_wasserstein",
    "ssim",
    "surface_dice",
    "texture_deviation",
    "vendi_score",
    "wilson",
]
