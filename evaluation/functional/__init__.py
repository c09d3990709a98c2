"""Pure metric functions: torch or numpy in, float64 inside."""

from evaluation.functional.calibration import expected_calibration_error
from evaluation.functional.distribution import frechet_distance, kernel_distance, nearest_neighbours
from evaluation.functional.paired import mae, ms_ssim, ms_ssim_scales, ncc, psnr, ssim, window_sigma
from evaluation.functional.privacy import CopyTest, benjamini_hochberg, copy_test
from evaluation.functional.segmentation import Detection, detection, dice, hd95, surface_dice
from evaluation.functional.spectrum import radial_power_spectrum, texture_deviation

__all__ = [
    "CopyTest",
    "Detection",
    "benjamini_hochberg",
    "copy_test",
    "detection",
    "dice",
    "expected_calibration_error",
    "frechet_distance",
    "hd95",
    "kernel_distance",
    "mae",
    "ms_ssim",
    "ms_ssim_scales",
    "ncc",
    "nearest_neighbours",
    "psnr",
    "radial_power_spectrum",
    "ssim",
    "surface_dice",
    "texture_deviation",
    "window_sigma",
]
