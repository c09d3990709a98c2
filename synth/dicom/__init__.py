"""DICOM: a series of slices as one volume, and DICOM-SEG masks on its grid. Knows no Volume and no dataset layout.

Headers come from pydicom (the extra `dicom`), compressed pixels that it cannot decode from GDCM in SimpleITK.
Writing (`synth.dicom.writing`) needs highdicom for SEG. No path, and no name, that stands inside a file is ever opened.
"""

from synth.dicom.headers import find_segmentation, holds_dicom
from synth.dicom.segmentation import Segmentation
from synth.dicom.series import Series

__all__ = ["Segmentation", "Series", "find_segmentation", "holds_dicom"]
