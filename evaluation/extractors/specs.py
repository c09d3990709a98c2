"""Known networks as input specifications without weights: a user gives the file, its sha256 decides. No downloads.

What a file may do: a state_dict is read with weights_only=True (tensors, no code), and its architecture is what
`build` returns: the caller's own code. A TorchScript archive is a program: torch.jit.load runs it inside the
TorchScript interpreter, which knows no Python, but may use every operator of this torch, file access included. So
no file is opened before its sha256 is the one that the caller, or the table here, expects; the bytes that were
hashed are the bytes that are loaded.
"""

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evaluation.extractors.base import Extractor, InputSpec
from evaluation.extractors.network import measure_with
from synth.errors import ConfigError, DataError, nearest


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A network by name: its usual file, how its input is made, and its sha256 where one is published.

    sha256   whole, or the leading digits that its file name carries; empty where no publisher states one
    notes    where the input's conventions come from
    """

    name: str
    file: str
    input: InputSpec
    sha256: str = ""
    notes: str = ""


_GREY = ((0.0, 1.0),) * 3
SPECS: Mapping[str, Spec] = {
    "inception-2015": Spec(
        name="inception-2015",
        file="pt_inception-2015-12-05-6726825d.pth",
        sha256="6726825d",
        notes="FID's network (Heusel 2017): 299 pixels, TensorFlow 1 bilinear, (x - 128) / 128; the file's name "
        "carries the first 8 digits of its sha256",
        input=InputSpec(
            view="planes", size=(299, 299), windows=_GREY, mean=(128.0,) * 3, std=(128.0,) * 3, scale=255.0,
            channel_order="rgb", filter="bilinear-tf1",
        ),
    ),
    "radimagenet-resnet50": Spec(
        name="radimagenet-resnet50",
        file="RadImageNet-ResNet50_notop.pth",
        notes="BGR, ImageNet means subtracted from 0..1, no division, as MAISI's 2.5D script does; RadImageNet itself "
        "does not document its preprocessing",
        input=InputSpec(
            view="planes", size=(224, 224), windows=_GREY, mean=(0.406, 0.456, 0.485), std=(1.0,) * 3,
            channel_order="bgr", filter="linear-antialiased",
        ),
    ),
    "dinov2-vitl14": Spec(
        name="dinov2-vitl14",
        file="dinov2_vitl14_pretrain.pth",
        notes="224 pixels, ImageNet mean and SD; the class token, 1024 wide (Oquab 2023)",
        input=InputSpec(
            view="planes", size=(224, 224), windows=_GREY, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
            channel_order="rgb", filter="linear-antialiased",
        ),
    ),
    "medicalnet-resnet50": Spec(
        name="medicalnet-resnet50",
        file="resnet_50_23dataset.pth",
        notes="3D, z-score over the voxels that are not 0 (Chen 2019, Med3D); the last feature map, averaged",
        input=InputSpec(view="volume", normalise="zscore", multiple=8),
    ),
}  # fmt: skip
"""By name. Slices of planes are padded with air to a square before they are resized."""


def from_file(
    spec: Spec | str, path: str | Path, *, sha256: str = "", build: Callable[[], nn.Module] | None = None
) -> Extractor:
    """Return the extractor of a network whose file the user has.

    spec    one of SPECS by name, or one of the caller's own
    sha256  what the file must hash to; may be left out where the spec has one
    build   returns the network that a state_dict is loaded into; None: the file is a TorchScript archive
    Errors: ConfigError for an unknown spec or no expected sha256; DataError for a missing file, another sha256, or
    one that cannot be loaded.
    """
    if isinstance(spec, str):
        if spec not in SPECS:
            raise ConfigError(f"no extractor is called {spec!r}; {nearest(spec, SPECS)}")
        spec = SPECS[spec]
    path, expected = Path(path), (sha256 or spec.sha256).lower()
    if not path.is_file():
        raise DataError(
            f"{path} is missing: {spec.name} needs the file {spec.file} with sha256 {expected or 'that you state'}; "
            "put it there, nothing is downloaded"
        )
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if not expected:
        raise ConfigError(
            f"no sha256 is known for {spec.name}; {path} has {digest}: compare it with what its publisher states, "
            "and give it as sha256="
        )
    if len(expected) < 8 or not digest.startswith(expected):
        raise DataError(f"{path} has sha256 {digest}, expected {expected}; it is another file than {spec.file}")
    network = _scripted(content, path) if build is None else _built(content, path, build())
    fn = measure_with(network.eval(), spec.input)
    pooling = "mean and SD over slices of 3 planes" if spec.input.view == "planes" else "mean over the last map"
    return Extractor(spec.name, fn, spec.input, digest, pooling, {"file": path.name, "notes": spec.notes})


def _scripted(content: bytes, path: Path) -> nn.Module:
    try:
        return torch.jit.load(io.BytesIO(content), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{path} is no TorchScript archive ({str(error).splitlines()[0]}); for a state_dict give build="
        ) from error


def _built(content: bytes, path: Path, network: nn.Module) -> nn.Module:
    try:
        state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        state = state["state_dict"] if isinstance(state, Mapping) and "state_dict" in state else state
        network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    except Exception as error:  # an unpickler refuses what is no tensor by an error of a module that is not for use
        raise DataError(f"{path} does not fit the network of build= ({str(error).splitlines()[0]})") from error
    return network
