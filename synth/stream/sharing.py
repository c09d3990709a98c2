"""Who shares a training's items out: ranks of torch.distributed, and what must not do it a second time."""

from types import FrameType

from torch import distributed

from synth.errors import ConfigError

_SHARDERS = {
    "accelerate.data_loader": "accelerate.prepare would deal its items out again; leave its loader out of prepare()",
    "monai.data.iterable_dataset": "monai.data.IterableDataset would drop items; give the Stream a transform=",
}


def ranks_of_launch() -> tuple[int, int]:
    """Return (rank, number of ranks) of torch.distributed, (0, 1) without it."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def refuse_sharers(caller: FrameType) -> None:
    """Errors: ConfigError where the caller deals out what it gets over workers or processes, as the stream does."""
    why = _SHARDERS.get(str(caller.f_globals.get("__name__")))
    if why is not None:
        raise ConfigError(f"the stream shares itself out over workers and processes; {why}")
