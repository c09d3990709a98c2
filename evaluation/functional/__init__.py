"""Pure metric functions: torch or numpy in, float64 inside."""

from evaluation.functional.distribution import frechet_distance, nearest_neighbours
from evaluation.functional.paired import ms_ssim, psnr, ssim
from evaluation.functional.segmentation import dice, hd95

__all__ = ["dice", "frechet_distance", "hd95", "ms_ssim", "nearest_neighbours", "psnr", "ssim"]
