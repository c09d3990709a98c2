"""The processes that train one model together: whose share is what, and what all of them know. Knows no module.

A step's batches are dealt out in turn, so that what is trained is what one process makes of the same recipe; only the
order of sums may differ. One of them leads: it alone writes and validates.
"""

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from synth.errors import ConfigError, SynthError

_PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: a plan is timed, and a hold-out scored, by the leader alone."""


@dataclass(frozen=True)
class Team:
    """Process number `rank` of `size`; the default is a process of its own. All of them must make the same calls.

    cpu   they talk on the CPU, though the machine may have other devices

    >>> list(Team(rank=1, size=2).share(range(4))), Team().total(torch.tensor([2.0])).tolist()
    ([1, 3], [2.0])
    """

    rank: int = 0
    size: int = 1
    cpu: bool = True

    @property
    def leads(self) -> bool:
        """True for the one process that writes and validates."""
        return self.rank == 0

    def share(self, items: Any) -> Any:
        """Return this process's items of a sequence, dealt out in turn."""
        return items[self.rank :: self.size]

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.size == 1:
            return values
        here = accelerator(cpu=self.cpu)
        return here.reduce(values.to(here.device), reduction="sum").to(values.device)

    def any(self, here: bool) -> bool:
        """True where it is so in any process."""
        return here if self.size == 1 else bool(self.total(torch.tensor([float(here)])).item())

    def told(self, value: Any) -> Any:
        """Return what the leader's `value` is, as JSON knows it; the others' does not matter."""
        if self.size == 1:
            return value
        text = list(json.dumps(value).encode()) if self.leads else []
        length = int(self.total(torch.tensor([len(text)])).item())
        padded = text or [0] * length
        return json.loads(bytes(self.total(torch.tensor(padded, dtype=torch.int32)).tolist()))

    def led(self, values: Tensor) -> Tensor:
        """Return the leader's tensor, bit for bit; the others give one of its shape and type."""
        if self.size == 1:
            return values
        from accelerate.utils import broadcast

        sent = values.detach().to(accelerator(cpu=self.cpu).device, copy=True).contiguous()
        return broadcast(sent).to(values.device)  # pyright: ignore[reportAttributeAccessIssue]

    def wait(self) -> None:
        """Return once all processes are here."""
        if self.size > 1:
            accelerator(cpu=self.cpu).wait_for_everyone()


ALONE = Team()


def team_of_launch(*, cpu: bool = True) -> tuple[Team, torch.device]:
    """Return this process's place among those that a launcher such as torchrun began, and its own device.

    Errors: ConfigError where a machine has more processes than GPUs.
    """
    found = accelerator(cpu=cpu)
    if not cpu and found.local_process_index >= torch.cuda.device_count():  # accelerate would share GPUs, NCCL cannot
        raise ConfigError(
            f"there are more processes on this machine than its {torch.cuda.device_count()} GPUs; start one for each, "
            "or give --device cpu"
        )
    return Team(rank=found.process_index, size=found.num_processes, cpu=cpu), found.device


def accelerator(*, cpu: bool = True) -> Any:
    """Return the Accelerator of this process. Errors: SynthError where accelerate is not installed.

    Precision is left to autocast: accelerate keeps its own for the whole process, and refuses a second stage
    with another one.
    """
    try:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs
    except ImportError as error:
        raise SynthError('training needs accelerate, which is not installed; pip install "synthvol[train]"') from error
    # a process that died ends the others through the launcher, not by running out of patience
    patient = InitProcessGroupKwargs(timeout=_PATIENCE)
    return Accelerator(mixed_precision="no", cpu=cpu, kwargs_handlers=[patient])
