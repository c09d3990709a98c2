"""MONAI: a dict transform that puts samples of a stream in the place of real cases. Samples nothing itself."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch

from synth.errors import ConfigError, SynthError
from synth.stream.dataset import Stream

try:
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.transform import Randomizable, Transform
except ImportError as failure:
    raise SynthError('RandSynthesized needs MONAI; pip install "synthvol[monai]"') from failure


class RandSynthesized(Randomizable, Transform):
    """Replaces image and mask of a dict by a sample of the stream's window, with probability `prob`.

    Put it after what brings real cases to the stream's spacing and intensities, before random crops and the rest. The
    window moves by epoch: give the Stream the loop's `ratio` (prob), `batch` and `epoch_steps`, no `real`, and call
    `stream.set_epoch`. It only reads, so it may run in any DataLoader worker; which sample comes follows from MONAI's
    random state (`set_random_state`), not from the buffer's speed. Other keys stay, but for `case` and `synthetic`.

    Errors: ConfigError for a probability outside 0 to 1 and for items without the keys.

    >>> RandSynthesized(stream, prob=0.3)                                                      # doctest: +SKIP
    """

    def __init__(self, stream: Stream, *, prob: float = 0.3, image: str = "image", mask: str = "mask") -> None:
        if not 0 <= prob <= 1:
            raise ConfigError(f"prob is {prob}; give a probability from 0 to 1")
        self.stream, self.prob, self.keys = stream, prob, (image, mask)
        self._acts, self._share = False, 0.0

    def randomize(self, data: Any = None) -> None:
        """Draw whether a case is replaced, and by which sample."""
        self._acts, self._share = self.R.random() < self.prob, self.R.random()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dict, its case replaced or not; MetaTensors stay such."""
        for key in self.keys:
            if key not in data:
                raise ConfigError(f"the item has no {key!r}; name the keys, RandSynthesized(image=..., mask=...)")
        out: dict[Hashable, Any] = {**data, "synthetic": False}
        self.randomize()
        if not self._acts:
            return out
        number, stored = self.stream.pick(self._share)
        for key, array in zip(self.keys, (stored.image, stored.mask)):
            tensor = torch.from_numpy(array)
            was = data[key]
            if isinstance(was, torch.Tensor):
                tensor = tensor.to(was.dtype)
            out[key] = MetaTensor(tensor) if isinstance(was, MetaTensor) else tensor
        return {**out, "synthetic": True, "case": f"syn_{number:05d}"}
