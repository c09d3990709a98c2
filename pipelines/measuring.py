"""The feature part of `synth evaluate`: which extractor, where features are kept, how many processes measure them.

Wires `evaluation.extractors`; knows no section.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from evaluation.evidence import Judged
    from evaluation.extractors import Extractor, FeatureCache


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """Options that `synth evaluate` takes for features."""

    extractor: str = "radiomics"
    """What features are measured with: radiomics (weight-free), imagenet, or a network whose file you have, such as
    inception-2015, radimagenet-resnet50, dinov2-vitl14, medicalnet-resnet50."""
    extractor_file: Path | None = None
    """The network's TorchScript file; nothing is downloaded."""
    extractor_sha256: str = ""
    """What that file must hash to, where none is published."""
    cache: Path | None = None
    """Folder where features are kept by content, so that a second run is quick; by default OUT-features, beside --out.
    They tell of real volumes: keep it inside."""
    jobs: int = 1
    """Processes of one thread each that measure features; the report is the same for any number."""

    def feature_settings(self, out: Path, spacing_mm: Sequence[float]) -> dict[str, Any]:
        """Return what the evidence takes: extractor, cache, and a way to measure in processes where asked.

        Errors: ConfigError, DataError for an extractor that is unknown, lacks its file or is another than expected.
        """
        from evaluation.extractors import FeatureCache
        from synth.errors import ConfigError

        if self.jobs < 1:
            raise ConfigError(f"--jobs is {self.jobs}; give at least 1")
        made = self._made()
        cache = FeatureCache(self.cache or out.resolve().with_name(f"{out.resolve().name}-features"))
        found: dict[str, Any] = {"extractor": made(), "cache": cache}
        if self.jobs > 1:
            found["measuring"] = in_processes(self.jobs, made, cache, tuple(spacing_mm))
        return found

    def _made(self) -> "Callable[[], Extractor]":
        """Return what makes the extractor, here and in other processes."""
        from functools import partial

        from evaluation.extractors import find_extractor

        return partial(find_extractor, self.extractor, file=self.extractor_file, sha256=self.extractor_sha256)


def in_processes(
    jobs: int, made: "Callable[[], Extractor]", cache: "FeatureCache", spacing_mm: tuple[float, ...]
) -> "Callable[[Sequence[Judged], int], Iterator[np.ndarray]]":
    """Return what measures features of volumes in `jobs` processes, in order."""

    def measure(items: "Sequence[Judged]", labels: int) -> "Iterator[np.ndarray]":
        from pipelines.workers import run_all

        job = (made, cache, labels, spacing_mm)
        pairs = ((item.image, item.mask) for item in items)
        count = min(jobs, len(items))
        return run_all(_measure, pairs, workers=count, start=_start, job=job, ahead=2 * jobs) if items else iter(())

    return measure


_WORKER: dict[str, Any] = {}


def _start(job: "tuple[Callable[[], Extractor], FeatureCache, int, tuple[float, ...]]") -> None:
    made, cache, labels, spacing_mm = job
    _WORKER.update(extractor=made(), cache=cache, asked={"labels": labels, "spacing_mm": spacing_mm})


def _measure(pair: "tuple[np.ndarray, np.ndarray]") -> "np.ndarray":
    return _WORKER["cache"].features(_WORKER["extractor"], *pair, **_WORKER["asked"])
