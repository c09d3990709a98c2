"""A device that is not the CPU, for machines that have none: `meta` tensors, and a mode that is as strict as a GPU.

Torch lets some operations mix the CPU with `meta`; on a GPU the same call fails. What leaves the device for the host
(`float(x)`, `.cpu()`) reads as ones or zeros, since there is nothing to read.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
_CROSS = {"aten._to_copy.default", "aten.copy_.default"}


class Strict(TorchDispatchMode):
    """Raise where one operation is given tensors of both devices; scalars of the host may join, as on a GPU."""

    crossings: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # inference mode hands over operations whole, such as `to`; what they are made of is checked
            made = func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
        name = str(func)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [tensor for tensor in tensors if tensor.device == META]
        here = [tensor for tensor in tensors if tensor.device != META and tensor.ndim]
        if there and here and name not in _CROSS:
            raise RuntimeError(f"{name} mixes devices: {[(t.device.type, tuple(t.shape)) for t in tensors]}")
        if there and name == "aten._local_scalar_dense.default":
            return True if there[0].dtype == torch.bool else 1.0
        if there and name == "aten._to_copy.default" and torch.device(kwargs.get("device") or META) != META:
            self.crossings += 1
            return torch.zeros(there[0].shape, dtype=kwargs.get("dtype") or there[0].dtype)
        if there and name == "aten.copy_.default" and args[0].device != META:
            return args[0].zero_()
        if there and name == "aten.bincount.default":
            return torch.zeros(kwargs["minlength"] if "minlength" in kwargs else args[2], dtype=torch.long, device=META)
        return func(*args, **kwargs)
