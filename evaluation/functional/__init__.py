"""Pure metric functions: torch or numpy in, float64 inside."""

from evaluation.functional.blind_gate import BlindGate, blind_gate
from evaluation.functional.calibration import expected_calibration_error
from evaluation.functional.distribution import frechet_distance, kernel_distance, nearest_neighbours
from evaluation.functional.membership import Membership, density_ratio_test, membership_test
from evaluation.functional.paired import ms_ssim, ms_ssim_scales, psnr, ssim
from evaluation.functional.privacy import (
    CopyTest,
    benjamini_hochberg,
    conformal_p_values,
    copy_test,
    minimum_detectable_rate,
)
from evaluation.functional.segmentation import dice, hd95, surface_dice
from evaluation.functional.set_level import SetLevelTest, set_level_test
from evaluation.functional.spectrum import radial_power_spectrum, texture_deviation

__all__ = [
    "BlindGate",
    "CopyTest",
    "Membership",
    "SetLevelTest",
    "benjamini_hochberg",
    "blind_gate",
    "conformal_p_values",
    "copy_test",
    "density_ratio_test",
    "dice",
    "expected_calibration_error",
    "frechet_distance",
    "hd95",
    "kernel_distance",
    "membership_test",
    "minimum_detectable_rate",
    "ms_ssim",
    "ms_ssim_scales",
    "nearest_neighbours",
    "psnr",
    "radial_power_spectrum",
    "set_level_test",
    "ssim",
    "surface_dice",
    "texture_deviation",
]
