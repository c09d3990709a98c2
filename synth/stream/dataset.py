"""Stream: real and synthetic items in one dataset for a training loop. Reads the buffer; samples nothing itself.

What item (seed, epoch, index) is follows from the plan alone. A reader waits for a sample that is not there yet, and
never takes another one: neither workers, ranks, speed nor a restart change what the loop sees.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from synth.data.intensity import IntensityMap
from synth.errors import ConfigError
from synth.rng import numpy_rng, sequence, torch_rng
from synth.stream.ask import folder_of, kept, numbers_of, request_of, require_devices, told_masks
from synth.stream.buffer import Buffer, Stored
from synth.stream.lead import Producers, Weights, say_wanted, wait_until_there
from synth.stream.loader import Loader
from synth.stream.options import require_axes, settle, whole
from synth.stream.policy import Plain, Policy
from synth.stream.real import open_real, space_of
from synth.stream.schedule import Plan, Ratio, as_ratio, taken_in_turn
from synth.stream.sharing import ranks_of_launch, refuse_sharers
from synth.stream.space import Scale, patch
from synth.stream.state import State, read_state

if TYPE_CHECKING:
    from synth.generator import Generator, Sampling

_EPOCH, _START, _VERSION, _DONE, _WORKERS, _COUNTED = range(6)
"""What workers that live for several epochs learn of the main process, through shared memory."""


@dataclass(eq=False)
class Stream(IterableDataset[dict[str, Any]]):
    """Yields dicts of real and synthetic pairs, `ratio` of them synthetic, each sample shown `reuse` times.

    generator   a Generator, a model folder, or the name of a bundled model
    real        a prepared folder (its training cases), a dataset folder, or a map-style dataset of dicts; None where
                ratio is 1, or where the loop brings its own (`pick`)
    ratio       share of synthetic items: a number, Constant, Linear or Cosine (by step); exact in counts
    reuse       how often each sample is shown before another takes its place; math.inf = a frozen buffer
    buffer      folder of the samples, shared by all processes of a training that see it; NFS will do
    size        patch in voxels; None = whole volumes
    spacing     mm of the loop; None = that of the prepared data, else each volume's own
    seed        of everything: sample n is that of `synth generate` with this seed and index n
    intensity   native, unit (the model's maps to about 0..1), zscore, or an intensity map; prepared data are unit
    labels      name -> number in the masks; None = those of `real`, else the model's
    policy      what samples are asked with: Plain, Balanced, Hard, Replay
    masks       generated: by the model; real: those of `real` in turn, by which the images are made. None = as it can
    batch       items of a step, over all processes of the training
    epoch_steps steps of an epoch; None = as many as show each real case once
    depth       samples shown side by side, a multiple of `reuse`; None = `reuse`, 64 where frozen
    foreground  share of the patches that are centred on a labelled voxel
    transform   called on each item; its random numbers (torch's, and MONAI's set_random_state) depend on the item alone
    sampling    how the producers sample; None = the generator's own way
    devices     a producer process each, such as ("cuda:1",); None = the generator's
    produce     whether this process starts producers, or its share of them, (k, K); None = in rank 0 alone
    rank        (rank, number of ranks); None = torch.distributed's

    Items: image (c, *grid) float32, mask (1, *grid) uint8 (int64 beyond 255 labels), case, synthetic, group (of the
    policy; -1 for real ones), index (in the epoch). Use `loader` rather than a DataLoader of your own: steps then stay
    whole, and `state_dict` knows how far the loop is. Call `set_epoch` before every epoch, in every process.

    Errors: ConfigError for options, OutputError for a buffer of another ask, SynthError where the producer died.

    >>> stream = Stream("brain-tiny", real="data", ratio=0.3, reuse=20, buffer="buffer/", seed=0)     # doctest: +SKIP
    """

    generator: "Generator | str | Path | None"
    _: KW_ONLY
    real: Any = None
    ratio: float | Ratio = 0.3
    reuse: float = 20
    buffer: str | Path
    size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    seed: int = 0
    intensity: Scale | IntensityMap | None = None
    labels: Mapping[str, int] | None = None
    policy: Policy = Plain()
    masks: str | None = None
    batch: int = 1
    epoch_steps: int | None = None
    depth: int | None = None
    foreground: float = 1 / 3
    transform: Callable[[dict[str, Any]], Any] | None = None
    sampling: "Sampling | None" = None
    devices: tuple[str, ...] | None = None
    produce: bool | tuple[int, int] | None = None
    rank: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        super().__init__()
        settle(self)
        self._rank, self._ranks = self.rank or ranks_of_launch()
        self.store = Buffer(Path(self.buffer))
        self.cases = None if self.real is None else open_real(self.real)
        self.real = None  # held as cases; the generator is let go too: no worker may carry a network
        self.plan = self._plan()
        self._shared = torch.zeros(6, dtype=torch.int64).share_memory_()
        self._taken, self._since, self._resumed = 0, 0, False
        self._open_model()
        self._say()

    def _plan(self) -> Plan:
        ratio = as_ratio(self.ratio)
        if self.batch % self._ranks:
            raise ConfigError(f"batch is {self.batch}, {self._ranks} ranks share it; give a multiple")
        steps = self.epoch_steps
        if steps is None:
            if self.cases is None:
                raise ConfigError("epoch_steps is not said and there are no real cases to count; give it")
            steps = math.ceil(len(self.cases) / self.batch)
        depth = self.depth or (64 if self.reuse == math.inf else int(self.reuse))
        return Plan(ratio=ratio, reuse=self.reuse, depth=depth, batch=self.batch, epoch_steps=steps, seed=self.seed)

    def _open_model(self) -> None:
        """Claim the buffer and start the producers, where this is the process that leads.

        Everything that can be wrong is asked for first; the claim is the first that is written.
        """
        produce = self.produce if self.produce is not None else self._rank == 0
        self.leads = bool(produce)
        assert self.generator is not None
        model = folder_of(self.generator, self.store, sampling=self.sampling)
        given, self.generator, schema = self.generator, None, model.schema
        self.schema = schema
        require_axes(self, len(schema.grid))
        known = numbers_of(model, self.cases, self.labels)
        self.space = space_of(
            self.cases, spacing_mm=self.spacing, intensity=self.intensity, maps=schema.intensities, labels=known
        )
        told = told_masks(model, self.cases, self.masks)
        request = request_of(model, policy=self.policy, space=self.space, masks=told, seed=self.seed)
        self.weights = Weights(self.policy, tuple(request["groups"]))
        self._request = request
        self._producers: Producers | None = None
        if not self.leads:
            self.store.check(request)
            return
        devices = self.devices or (model.device,)
        require_devices(devices)
        self.store.claim(request)
        model = kept(model, given)
        if self.plan.needed(0, 1 << 20):
            share = produce if isinstance(produce, tuple) else (0, 1)
            self._producers = Producers(self.store, model, devices, share)

    def set_epoch(self, epoch: int) -> None:
        """Go over to an epoch; in every process, before its loader is iterated. Errors: ConfigError."""
        refuse_sharers(sys._getframe(1))
        epoch = whole("epoch", epoch, least=0)
        if self._resumed and epoch == self.epoch:
            self._resumed = False
            return
        before = self.epoch
        self._resumed = False
        self.weights.turn(epoch)
        # processes go over one after another: what the epoch before shows is kept until all have
        self._since = (
            max(self._since, before * self.plan.epoch_steps) if epoch > before else epoch * self.plan.epoch_steps
        )
        self._place(epoch, 0)
        self._say()

    @property
    def epoch(self) -> int:
        """The epoch that is shown."""
        return int(self._shared[_EPOCH])

    def __len__(self) -> int:
        """Items of a whole epoch in this process."""
        return self.plan.epoch_steps * self._local

    @property
    def _local(self) -> int:
        return self.batch // self._ranks

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield this process's items of the epoch, from where it stands; workers take whole steps in turn.

        Errors: ConfigError where something else would deal the items out again, and for an epoch already shown.
        """
        refuse_sharers(sys._getframe(1))
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        epoch, start = self.epoch, int(self._shared[_START])
        if info is None:
            self._taken = start * self._local
        else:
            self._shared[_WORKERS] = 1
        return self._items(epoch, range(start + worker, self.plan.epoch_steps, workers), last=worker == 0)

    def _items(self, epoch: int, steps: range, *, last: bool) -> Iterator[dict[str, Any]]:
        if self.cases is None and self.plan.ratio.total(1 << 20) < 1 << 20:
            raise ConfigError("there are no real cases and ratio is below 1; give real=..., or ratio=1")
        if int(self._shared[_DONE]) == epoch + 1:
            raise ConfigError(
                f"epoch {epoch} was already shown; call stream.set_epoch({epoch + 1}) before the next one"
            )
        for step in steps:
            for number in range(step * self._local, (step + 1) * self._local):
                item = self.item(epoch, self.place_of(number))
                if get_worker_info() is None:
                    self._taken += 1
                yield item
        if last and not self._shared[_COUNTED]:
            self._shared[_DONE] = epoch + 1

    def item(self, epoch: int, index: int) -> dict[str, Any]:
        """Return item `index` of an epoch, over all ranks; waits for its sample where that is not there yet."""
        step, place = divmod(index, self.batch)
        draw = self.plan.items(epoch * self.plan.epoch_steps + step)[place]
        if draw.synthetic:
            number = self.plan.sample(draw.number)
            group = self.group_of(number)
            stored, case = self.store.wait_for(number, group, patient=not self.leads), f"syn_{number:05d}"
        else:
            assert self.cases is not None
            chosen = taken_in_turn(self.seed, "real", draw.number, len(self.cases))
            (stored, case), group = self.cases.load(chosen, self.space), -1
        cut = patch(stored, self.size, numpy_rng(self.seed, "patch", epoch, index), self.foreground)
        return self._finished(cut, case, group, epoch, index)

    def pick(self, share: float) -> tuple[int, Stored]:
        """Return number and whole pair of the sample that lies at `share` (0 <= share < 1) of the epoch's first window.

        For loops that bring their real cases themselves and put samples between them; it waits like `item`.
        """
        window = self.plan.window(self.plan.drawn(self.epoch * self.plan.epoch_steps))
        number = window[math.floor(share * len(window))]
        return number, self.store.wait_for(number, self.group_of(number), patient=not self.leads)

    def place_of(self, number: int) -> int:
        """Return the index, over all ranks, of this rank's item `number` of an epoch."""
        step, place = divmod(number, self._local)
        return step * self.batch + self._rank * self._local + place

    def _finished(self, cut: Stored, case: str, group: int, epoch: int, index: int) -> dict[str, Any]:
        item: dict[str, Any] = {
            "image": torch.from_numpy(np.array(cut.image, dtype=np.float32)),
            "mask": torch.from_numpy(np.array(cut.mask, dtype=self.space.dtype)),
            "case": case,
            "synthetic": group >= 0,
            "group": group,
            "index": index,
        }
        if self.transform is None:
            return item
        state = int(sequence(self.seed, "transform", epoch, index).generate_state(1)[0])
        if hasattr(self.transform, "set_random_state"):
            self.transform.set_random_state(seed=state)  # pyright: ignore[reportFunctionMemberAccess]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(state)  # the CPU's alone: a GPU's state is the loop's
            return self.transform(item)

    def group_of(self, number: int) -> int:
        """Return the group that sample `number` is asked with; where weights change, as the leading process wrote."""
        if not self.weights.changing:
            return self.weights.group(number, self.plan)
        return self.store.wait_for_group(number, int(self._shared[_VERSION]), patient=not self.leads)

    def loader(self, workers: int = 0, **options: Any) -> "Loader":
        """Return a loader of whole steps for this process, `workers` processes reading; options are DataLoader's."""
        for name in ("batch_size", "sampler", "batch_sampler", "shuffle", "drop_last"):
            if name in options:
                raise ConfigError(f"{name} is the stream's own; set batch, seed and epoch_steps of the Stream")
        if workers:
            options = {"persistent_workers": True, **options}
        options = {"generator": torch_rng(self.seed, "loader"), **options}  # else it draws from the global one
        return Loader(self, DataLoader(self, batch_size=self._local, num_workers=workers, **options))

    @contextlib.contextmanager
    def counted(self) -> Iterator[Callable[[], None]]:
        """Give a loader what it calls for every step that it hands out; an epoch is over with its last one."""
        self._shared[_COUNTED] = 1
        begun = int(self._shared[_START])

        def count() -> None:
            nonlocal begun
            begun += 1
            self._taken = begun * self._local
            if begun == self.plan.epoch_steps:
                self._shared[_DONE] = self.epoch + 1

        yield count

    def report(self, groups: "Sequence[int] | torch.Tensor", losses: "Sequence[float] | torch.Tensor") -> None:
        """Tell the policy each item's loss, by the batch's `group`; it acts after the epoch. Errors: ConfigError."""
        of = groups.reshape(-1).tolist() if isinstance(groups, torch.Tensor) else groups
        self.weights.hear(of, losses.detach().reshape(-1).tolist() if isinstance(losses, torch.Tensor) else losses)

    def wait(self, samples: int | None = None, told: Callable[[int, int], object] | None = None) -> None:
        """Return once the first `samples` that are wanted are there, a window of them by default; for a calm start."""
        if self._wanted is not None:
            wait_until_there(self.store, self._wanted, self.plan.depth if samples is None else samples, told)

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """Return where the loop stands, as plain values; the same in every process.

        step   steps of this epoch that are done; None = those that `loader` has handed out
        With Hard and several processes, losses are summed over them: call it in all. Errors: ConfigError where nobody
        counted, and for a step beyond the epoch.
        """
        if step is None:
            if self._shared[_WORKERS] and not self._shared[_COUNTED]:
                raise ConfigError(
                    "a DataLoader with workers does not say how far it is; take stream.loader, or give step="
                )
            step = self._taken // self._local
        if whole("step", step, least=0) > self.plan.epoch_steps:
            raise ConfigError(f"step is {step}, an epoch has {self.plan.epoch_steps}; give steps of this epoch")
        return State(self.epoch, step, self.weights.rows, *self.weights.totals()).told(self._told_plan())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` stands; the next set_epoch of that epoch keeps the place.

        Errors: ConfigError for the state of another stream, or one that is damaged; then nothing is changed.
        """
        silent = [0] * len(self.weights.groups)
        found = read_state(state, self._told_plan(), steps=self.plan.epoch_steps, groups=len(silent))
        self.weights.rows = found.rows
        self.weights.losses, self.weights.counts = (
            (found.losses, found.counts) if self._rank == 0 else (silent, list(silent))
        )
        self._since = found.epoch * self.plan.epoch_steps + found.step
        self._place(found.epoch, found.step)
        self._resumed = True
        self._say()

    def close(self) -> None:
        """End the producers; the buffer stays, and the next stream with the same ask goes on with it."""
        if self._producers is not None:
            self._producers.close()

    def __getstate__(self) -> dict[str, Any]:
        """Workers read: they get neither processes nor a generator."""
        return {**self.__dict__, "_producers": None}

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _told_plan(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "seed": plan.seed,
            "ratio": repr(plan.ratio),
            "reuse": float(plan.reuse),
            "depth": plan.depth,
            "batch": plan.batch,
            "epoch_steps": plan.epoch_steps,
            "real": 0 if self.cases is None else len(self.cases),
            "policy": type(self.policy).__name__,
            "model": self._request["model"]["sha256"],
        }

    def _place(self, epoch: int, step: int) -> None:
        self._shared[_EPOCH], self._shared[_START], self._shared[_DONE] = epoch, step, 0
        self._taken = step * self._local

    def _say(self) -> None:
        """Tell workers and producers where the training stands; through the end of the next epoch."""
        self._shared[_VERSION] = self.weights.version
        self._wanted = None
        if self.leads:
            until = (self.epoch + 2) * self.plan.epoch_steps
            self._wanted = say_wanted(self.store, self.plan, self.weights, since=self._since, until=until)
            if self._producers is not None:
                self._producers.start()
