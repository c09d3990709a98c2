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
from evaluation.functional.distribution import frechet_distance, kernel_distance, nearest_neighbours
from evaluation.functional.fsim import fsim, phase_congruency
from evaluation.functional.paired import mae, ms_ssim, ms_ssim_scales, ncc, psnr, ssim, window_sigma
from evaluation.functional.perceptual import perceptual_distance
from evaluation.functional.privacy import CopyTest, benjamini_hochberg, copy_test
from evaluation.functional.raters import (
    RaterRegions,
    consensus_dice,
    dissensus_error,
    rater_agreement,
    rater_calibration_error,
    rater_regions,
)
from evaluation.functional.segmentation import Detection, detection, dice, hd95, surface_dice
from evaluation.functional.spectrum import radial_power_spectrum, texture_deviation

__all__ = [
    "CalibrationTest",
    "CopyTest",
    "Detection",
    "RaterRegions",
    "SetDistance",
    "adjacency",
    "benjamini_hochberg",
    "boundary_alignment",
    "brier_score",
    "calibration_test",
    "consensus_dice",
    "copy_test",
    "crps",
    "detection",
    "dice",
    "dissensus_error",
    "expected_calibration_error",
    "frechet_distance",
    "fsim",
    "hd95",
    "kernel_distance",
    "label_intensities",
    "label_volumes",
    "mae",
    "ms_ssim",
    "ms_ssim_scales",
    "ncc",
    "nearest_neighbours",
    "perceptual_distance",
    "phase_congruency",
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
    "ssim",
    "surface_dice",
    "texture_deviation",
    "topology",
    "volume_crps",
    "window_sigma",
]
