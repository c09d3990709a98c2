"""synth generate: paired volumes from a model, resumable, the same bytes whatever the workers or shards."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Write image-mask pairs of MODEL as an nnU-Net dataset with a manifest.

    The same command again completes a set that was cut short; a larger --count extends it.
    """

    model: Annotated[str, tyro.conf.Positional]
    """A model folder, or the name of a bundled model."""
    out: Path
    """Folder to write."""
    count: int
    """Number of samples in all."""
    masks: Path | None = None
    """Masks to follow, in turn: an nnU-Net dataset, or a folder of volumes. Without it masks are made first."""
    text: str | None = None
    """What the images should show, in words."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Attributes, name=value (repeatable)."""
    spread: str | None = None
    """A categorical attribute whose levels the samples take in turn."""
    seed: int = 0
    """Sample i has the seed (SEED, i, attempt)."""
    steps: int | None = None
    """Sampling steps; the model's own otherwise."""
    sampler: Literal["euler", "heun"] | None = None
    """Sampler; the model's own otherwise."""
    guidance: float | None = None
    """Guidance scale of every condition; 1 is the plain model."""
    workers: int = 0
    """Processes of one thread each; 0 = one a core."""
    shard: str = "0/1"
    """i/n: only the samples whose index is i modulo n; the manifest is written once every shard is done."""

    def run(self) -> int:
        """Write what is missing."""
        import os

        from pipelines.progress import progress
        from synth.errors import ConfigError

        if self.count < 1:
            raise ConfigError(f"--count is {self.count}; give at least 1")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"--steps is {self.steps}; give at least 1")
        shard, shards = self._shard()
        job = Job(
            model=self.model,
            out=str(self.out),
            text=self.text,
            set=self.set,
            spread=self.spread,
            seed=self.seed,
            steps=self.steps,
            sampler=self.sampler,
            guidance=self.guidance,
            masks=mask_files(self.masks),
        )
        worker = Worker(job)
        worker.check()
        self._claim(worker)
        todo = [i for i in range(self.count) if i % shards == shard and not record_path(self.out, i).is_file()]
        workers = min(self.workers or os.cpu_count() or 1, max(len(todo), 1))
        with progress("samples", len(todo)) as bar:
            for _ in _run(job, worker, todo, workers):
                bar.advance()
        missing = sum(not record_path(self.out, index).is_file() for index in range(self.count))
        if missing:
            print(f"shard {self.shard} done; {missing} samples of other shards are missing, so no manifest yet")
            return 0
        worker.finish(self.count)
        print(f"{self.count} samples in {self.out}")
        return 0

    def _shard(self) -> tuple[int, int]:
        from synth.errors import ConfigError

        first, _, second = self.shard.partition("/")
        if not (first.isdigit() and second.isdigit() and int(first) < int(second)):
            raise ConfigError(f"--shard is {self.shard!r}; write i/n with i from 0 to n - 1")
        return int(first), int(second)

    def _claim(self, worker: "Worker") -> None:
        """Keep the ask beside the output: an equal one goes on, another one is refused."""
        import json

        from synth.errors import OutputError
        from synth.io import write_bytes

        asked = worker.request()
        path = self.out / "request.json"
        if not path.is_file():
            if self.out.is_dir() and any(self.out.iterdir()):
                raise OutputError(f"{self.out} is not empty; give another --out")
            write_bytes(path, (json.dumps(asked, sort_keys=True, indent=1) + "\n").encode())
            return
        before = json.loads(path.read_text())
        for name in sorted(asked):
            if before.get(name) != asked[name]:
                raise OutputError(
                    f"{self.out} was begun with {name} = {before.get(name)}, now it is {asked[name]}; "
                    "give another --out"
                )


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one worker process needs to make any sample of the set; plain values only."""

    model: str
    out: str
    text: str | None
    set: tuple[str, ...]
    spread: str | None
    seed: int
    steps: int | None
    sampler: str | None
    guidance: float | None
    masks: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]


class Worker:
    """Makes samples of a job with one thread, so that bytes do not depend on how many work."""

    def __init__(self, job: Job) -> None:
        import torch

        from synth.formats.nnunet import DatasetWriter
        from synth.generator import Sampling, load
        from synth.sampler import Euler, Heun

        torch.set_num_threads(1)
        self.job, self.out = job, Path(job.out)
        samplers = {"euler": Euler(), "heun": Heun()}
        sampling = Sampling(
            sampler=samplers[job.sampler] if job.sampler else None, steps=job.steps, guidance=job.guidance
        )
        self.generator = load(job.model).with_sampling(sampling)
        schema = self.generator.model.recipe.schema
        assert schema is not None
        self.schema = schema
        self.writer = DatasetWriter(
            self.out,
            name=f"Synthetic_{self.generator.model.recipe.name}",
            channels=schema.channels,
            labels=schema.label_values,
            file_ending=schema.file_ending,
            extra={"population": schema.population, "synthetic": True},
        )

    def check(self) -> None:
        """Refuse unknown attributes before anything is written."""
        self.schema.check_attributes(self.attributes(0))

    def attributes(self, index: int) -> dict[str, str | float | int]:
        """Return the attributes asked of sample `index`."""
        from synth.errors import ConditionError, ConfigError, nearest

        out: dict[str, str | float | int] = {}
        for pair in self.job.set:
            name, equals, value = pair.partition("=")
            if not equals:
                raise ConfigError(f"--set {pair!r} has no value; write name=value")
            out[name] = value
        if self.job.spread is not None:
            levels = {a.name: a.levels for a in self.schema.attributes if a.kind == "categorical"}
            if self.job.spread not in levels:
                hint = nearest(self.job.spread, levels)
                raise ConditionError(f"--spread {self.job.spread!r} is no categorical attribute of the model; {hint}")
            choices = levels[self.job.spread]
            out[self.job.spread] = choices[index % len(choices)]
        return out

    def request(self) -> dict[str, object]:
        """Return what decides the samples: everything but count, workers and shards."""
        import hashlib

        masks = hashlib.sha256(repr([Path(path).name for path, _ in self.job.masks]).encode()).hexdigest()
        return {
            "model": self.generator.model.sha256,
            "text": self.job.text,
            "set": list(self.job.set),
            "spread": self.job.spread,
            "seed": self.job.seed,
            "steps": self.job.steps,
            "sampler": self.job.sampler,
            "guidance": self.job.guidance,
            "masks": masks if self.job.masks else None,
        }

    def make(self, index: int) -> None:
        """Make and write sample `index`; its record comes last."""
        import json
        from dataclasses import replace

        from synth.config import plain
        from synth.generator import Seed
        from synth.io import read, write_bytes
        from synth.sample import Condition

        mask = None
        if self.job.masks:
            path, labels = self.job.masks[index % len(self.job.masks)]
            mask = read(path, labels=dict(labels) or self.schema.label_values)
        ask = Condition(mask=mask, text=self.job.text, attributes=self.attributes(index))
        sample = next(self.generator.generate([ask], seeds=[Seed(self.job.seed, index)]))
        assert sample.mask is not None
        files = self.writer.add(sample.provenance.case, sample.image, sample.mask)
        row = {**plain(replace(sample.provenance)), "files": files, "synthetic": True}
        write_bytes(record_path(self.out, index), json.dumps(row, sort_keys=True).encode())

    def finish(self, count: int) -> None:
        """Write manifest.jsonl and dataset.json from the records."""
        from synth.io import write_bytes

        lines = [record_path(self.out, index).read_text() + "\n" for index in range(count)]
        write_bytes(self.out / "manifest.jsonl", "".join(lines).encode())
        self.writer.finish(count)


def record_path(out: Path, index: int) -> Path:
    """Return where the record of a finished sample lies."""
    return out / "records" / f"syn_{index:05d}.json"


def mask_files(folder: Path | None) -> tuple[tuple[str, tuple[tuple[str, int], ...]], ...]:
    """Return (file, its labels by name) of a folder of masks; without a dataset.json the model's own values count."""
    if folder is None:
        return ()
    from synth.errors import DataError
    from synth.formats import read
    from synth.io import SUFFIXES

    if not folder.is_dir():
        raise DataError(f"--masks {folder} is not a folder; give a dataset or a folder of mask volumes")
    if (folder / "dataset.json").is_file():
        dataset = read(folder)
        labels = tuple(dataset.label_values.items())
        return tuple((str(case.mask), labels) for case in dataset.cases)
    files = sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIXES) and path.name[0] != ".")
    if not files:
        raise DataError(f"--masks {folder} holds no volumes; known suffixes are {', '.join(SUFFIXES)}")
    return tuple((str(path), ()) for path in files)


_worker: list[Worker] = []


def _start(job: Job) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    _worker.append(Worker(job))


def _make(index: int) -> int:
    _worker[0].make(index)
    return index


def _run(job: Job, worker: Worker, todo: list[int], workers: int) -> Iterator[int]:
    """Yield the index of each sample as it is finished."""
    if workers == 1:
        for index in todo:
            worker.make(index)
            yield index
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(job,)) as pool:
        try:
            yield from pool.map(_make, todo)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
