"""Pure metric functions: torch or numpy in, float64 inside."""

from evaluation.functional.anatomy import (
    SetDistance,
    adjacency,
    boundary_alignment,
    label_intensities,
    label_volumes,
    set_distance,
    topology,
)
from evaluation.functional.authenticity import AuthenticityTest, authenticity_test
from evaluation.functional.blind_gate import BlindGate, blind_gate
from evaluation.functional.calibration import (
    CalibrationTest,
    brier_score,
    calibration_test,
    crps,
    expected_calibration_error,
    region_of_interest,
    reliability_curve,
    roi_calibration_error,
    roi_rows,
    volume_crps,
)
from evaluation.functional.distribution import mind, nearest_neighbours, sliced_wasserstein
from evaluation.functional.diversity import vendi_score
from evaluation.functional.frechet import FrechetInterval, frechet_distance, frechet_interval
from evaluation.functional.fsim import fsim, phase_congruency
from evaluation.functional.kernel import KernelTest, kernel_distance, kernel_interval, kernel_test
from evaluation.functional.manifold import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from evaluation.functional.membership import Membership, density_ratio_test, membership_test
from evaluation.functional.paired import mae, ms_ssim, ms_ssim_scales, ncc, psnr, ssim, window_sigma
from evaluation.functional.perceptual import perceptual_distance
from evaluation.functional.privacy import (
    CopyTest,
    conformal_p_values,
    copy_test,
    minimum_detectable_rate,
)
from evaluation.functional.radiomics import frechet_radiomics_distance
from evaluation.functional.raters import (
    RaterRegions,
    consensus_dice,
    dissensus_error,
    rater_agreement,
    rater_calibration_error,
    rater_regions,
)
from evaluation.functional.segmentation import Detection, Lesions, detection, dice, hd95, lesions, surface_dice
from evaluation.functional.set_level import SetLevelTest, set_level_test
from evaluation.functional.spectrum import radial_power_spectrum, texture_deviation
from evaluation.functional.statistics import (
    clopper_pearson,
    cluster_bootstrap,
    grouped_jackknife,
    holm,
    paired_permutation,
    wilson,
)
from synth.statistics import benjamini_hochberg

__all__ = [
    "AuthenticityTest",
    "BlindGate",
    "CalibrationTest",
    "CopyTest",
    "DensityCoverage",
    "Detection",
    "FrechetInterval",
    "KernelTest",
    "Lesions",
    "Membership",
    "PrecisionRecall",
    "RaterRegions",
    "SetDistance",
    "SetLevelTest",
    "adjacency",
    "authenticity_test",
    "benjamini_hochberg",
    "blind_gate",
    "boundary_alignment",
    "brier_score",
    "calibration_test",
    "clopper_pearson",
    "cluster_bootstrap",
    "conformal_p_values",
    "consensus_dice",
    "copy_test",
    "crps",
    "density_coverage",
    "density_ratio_test",
    "detection",
    "dice",
    "dissensus_error",
    "expected_calibration_error",
    "frechet_distance",
    "frechet_interval",
    "frechet_radiomics_distance",
    "fsim",
    "grouped_jackknife",
    "hd95",
    "holm",
    "kernel_distance",
    "kernel_interval",
    "kernel_test",
    "label_intensities",
    "label_volumes",
    "lesions",
    "mae",
    "membership_test",
    "mind",
    "minimum_detectable_rate",
    "ms_ssim",
    "ms_ssim_scales",
    "ncc",
    "nearest_neighbours",
    "paired_permutation",
    "perceptual_distance",
    "phase_congruency",
    "precision_recall",
    "psnr",
    "radial_power_spectrum",
    "rater_agreement",
    "rater_calibration_error",
    "rater_regions",
    "region_of_interest",
    "reliability_curve",
    "roi_calibration_error",
    "roi_rows",
    "set_distance",
    "set_level_test",
    "sliced_wasserstein",
    "ssim",
    "surface_dice",
    "texture_deviation",
    "topology",
    "vendi_score",
    "volume_crps",
    "wilson",
    "window_sigma",
]
