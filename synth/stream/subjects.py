"""TorchIO: a stream's items as Subjects, by number, for SubjectsLoader and Queue. Samples nothing itself."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from synth.errors import ConfigError, SynthError
from synth.stream.dataset import Stream


class SynthSubjects(Dataset[Any]):
    """This rank's items of the stream's epoch as Subjects with `image`, `mask`, `case`, `synthetic` and `index`.

    A map-style dataset, so that SubjectsLoader (shuffle=False) and Queue take it; do not give it to a
    DistributedSampler too, which would share items out twice. The affine holds the stream's spacing; 2D items get a
    third axis of one voxel. `transform` draws from torch's generator, which the item alone seeds.

    Errors: ConfigError for a stream that has a transform of its own, SynthError where TorchIO is not installed.
    """

    def __init__(self, stream: Stream, transform: Callable[[Any], Any] | None = None) -> None:
        if stream.transform is not None:
            raise ConfigError("the stream has a transform of its own; give it to SynthSubjects alone")
        self.stream = copy.copy(stream)  # shares epoch and buffer with it
        self.stream.transform = self._transformed
        self._transform = transform

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, index: int) -> Any:
        """Return a Subject; waits for its sample where that is not there yet."""
        number = int(index)
        if not 0 <= number < len(self):
            raise IndexError(f"item {number} of {len(self)}")
        return self.stream.item(self.stream.epoch, self.stream.place_of(number))

    def dry_iter(self) -> range:
        """Return what a Queue counts: one entry an item, without any image."""
        return range(len(self))

    def subject(self, item: dict[str, Any]) -> Any:
        """Return an item as a Subject."""
        try:
            import torchio
        except ImportError as error:
            raise SynthError("SynthSubjects needs TorchIO; pip install torchio") from error
        image, mask = (item[name] if item[name].ndim == 4 else item[name][..., None] for name in ("image", "mask"))
        steps = self.stream.space.spacing_mm or (1.0,)
        affine = np.diag([*(steps + (1.0, 1.0, 1.0))[:3], 1.0])
        return torchio.Subject(
            image=torchio.ScalarImage(tensor=image, affine=affine),
            mask=torchio.LabelMap(tensor=mask, affine=affine),
            **{name: item[name] for name in ("case", "synthetic", "group", "index")},
        )

    def _transformed(self, item: dict[str, Any]) -> Any:
        subject = self.subject(item)
        return subject if self._transform is None else self._transform(subject)
