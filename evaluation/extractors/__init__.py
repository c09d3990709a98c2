"""Feature extractors: a volume in, one vector out, with a fingerprint of how. Nothing here downloads.

radiomics_extractor()  weight-free, 2D and 3D, the default, always there
imagenet_extractor()   2.5D EfficientNet-Lite0 from the extra synthvol[imagenet]
from_file(SPECS[...])  Inception, RadImageNet, DINOv2, MedicalNet: input specifications without weights
"""

from evaluation.extractors.base import Extractor, InputSpec, mapped_windows
from evaluation.extractors.cache import FeatureCache
from evaluation.extractors.radiomics import radiomics_extractor, radiomics_table

__all__ = ["Extractor", "FeatureCache", "InputSpec", "mapped_windows", "radiomics_extractor", "radiomics_table"]
