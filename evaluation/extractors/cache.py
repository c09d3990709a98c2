"""Features on disk by content: the same voxels, mask and extractor are measured once. Knows no extractor."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.extractors.base import Extractor
from synth.io import write_bytes


class FeatureCache:
    """A folder of feature vectors, named by the sha256 of what they were measured on; no pickle, atomic writes.

    Files that cannot be read, or hold no finite vector, are measured again. Several processes may share a folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def features(
        self,
        extractor: Extractor,
        image: np.ndarray,
        mask: np.ndarray | None = None,
        *,
        labels: int = 0,
        spacing_mm: Sequence[float] = (),
    ) -> np.ndarray:
        """Return `extractor(image, mask, ...)`, from the folder where it is there. Errors: those of the extractor."""
        path = self.folder / f"{_key(extractor, image, mask, labels, spacing_mm)}.npy"
        kept = _read(path)
        if kept is not None:
            return kept
        row = extractor(image, mask, labels=labels, spacing_mm=spacing_mm)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, _npy(row))
        return row


def _key(
    extractor: Extractor, image: np.ndarray, mask: np.ndarray | None, labels: int, spacing_mm: Sequence[float]
) -> str:
    whole = hashlib.sha256(f"{extractor.fingerprint()}|{labels}|{[float(step) for step in spacing_mm]}".encode())
    for array in (image, mask):
        if array is None:
            whole.update(b"|none")
            continue
        whole.update(f"|{array.dtype.str} {array.shape}|".encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def _read(path: Path) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        row = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    good = row.dtype == np.float64 and row.ndim == 1 and np.isfinite(row).all()
    return row if good else None


def _npy(row: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, row, allow_pickle=False)
    return buffer.getvalue()
