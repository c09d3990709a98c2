"""A DataLoader of whole steps that knows how many it handed out. Knows nothing of samples."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from synth.errors import SynthError

if TYPE_CHECKING:
    from synth.stream.dataset import Stream


class Loader:
    """Batches of a stream, one a step; `state_dict` of it counts those that the loop got, not those read ahead.

    It is no DataLoader, so that accelerate.prepare leaves it as it is: the stream shares itself out.
    """

    def __init__(self, stream: "Stream", batches: DataLoader[dict[str, Any]]) -> None:
        self.stream, self.batches = stream, batches

    def __len__(self) -> int:
        """Steps of a whole epoch."""
        return self.stream.plan.epoch_steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the batches of the epoch. Errors: those of the stream, as one line, from workers too."""
        with self.stream.counted() as count:
            batches = iter(self.batches)
            while True:
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                except SynthError as error:
                    raise _said_once(error) from None
                count()
                yield batch

    def set_epoch(self, epoch: int) -> None:
        """As the stream's."""
        self.stream.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """As the stream's."""
        return self.stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As the stream's."""
        self.stream.load_state_dict(state)


def _said_once(error: SynthError) -> SynthError:
    """Return the error of a worker without the traceback that torch puts into its text."""
    lines = str(error).strip().splitlines()
    if not lines or not lines[0].startswith("Caught "):
        return error
    name = f"{type(error).__name__}: "
    return type(error)(lines[-1].partition(name)[2] or lines[-1])
