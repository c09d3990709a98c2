"""Pure metric functions: torch or numpy in, float64 inside."""

from evaluation.functional.calibration import expected_calibration_error
from evaluation.functional.distribution import frechet_distance, kernel_distance, nearest_neighbours
from evaluation.functional.paired import ms_ssim, ms_ssim_scales, psnr, ssim
from evaluation.functional.privacy import CopyTest, benjamini_hochberg, copy_test
from evaluation.functional.radiomics import frechet_radiomics_distance
from evaluation.functional.segmentation import dice, hd95, surface_dice
from evaluation.functional.spectrum import radial_power_spectrum, texture_deviation

__all__ = [
    "CopyTest",
    "benjamini_hochberg",
    "copy_test",
    "dice",
    "expected_calibration_error",
    "frechet_distance",
    "frechet_radiomics_distance",
    "hd95",
    "kernel_distance",
    "ms_ssim",
    "ms_ssim_scales",
    "nearest_neighbours",
    "psnr",
    "radial_power_spectrum",
    "ssim",
    "surface_dice",
    "texture_deviation",
]
