"""Forward passes in reduced precision, where that is quicker. Knows no network."""

from contextlib import AbstractContextManager, nullcontext

import torch


def native(device: torch.device) -> bool:
    """True where bfloat16 has kernels of its own: on GPUs, and on CPUs that oneDNN knows them for (AVX-512, Arm)."""
    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def brain_float(device: torch.device, *, wanted: bool = True) -> AbstractContextManager[object]:
    """Return the context of a forward pass in bfloat16; in float32 where not `wanted`, or where it is not native.

    Without kernels of its own a convolution in bfloat16 takes 150 times as long as one in float32 (torch 2.13, AVX2).

    >>> with brain_float(torch.device("cpu"), wanted=False):
    ...     torch.nn.Linear(2, 2)(torch.zeros(1, 2)).dtype
    torch.float32
    """
    return torch.autocast(device.type, torch.bfloat16) if wanted and native(device) else nullcontext()
