"""synth generate: paired volumes from a model, resumable, the same bytes whatever the workers or shards."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from synth.sampler import SamplerName

if TYPE_CHECKING:
    from pipelines.samples import Worker

FormatName = Literal["nnunet", "msd", "bids", "dicom", "folder", "medmnist", "synthrad", "webdataset", "hf"]
"""The layouts that `synth.formats.WRITERS` writes."""
LARGEST_COUNT = 1_000_000
LARGEST_STEPS = 10_000
LARGEST_GUIDANCE = 100.0


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Write image-mask pairs of MODEL as a dataset with a manifest.

    The same command again completes a set that was cut short; a larger --count extends it.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model folder, or the name of a bundled model."""
    out: Path
    """Folder to write."""
    count: int
    """Number of samples in all."""
    masks: Path | None = None
    """Masks to follow, in turn: a dataset in any layout, or a folder of volumes. Without it masks are made first."""
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
    sampler: SamplerName | None = None
    """Sampler; the model's own otherwise."""
    guidance: float | None = None
    """Guidance scale of every condition; 1 is the plain model."""
    window: str | None = None
    """Latent voxels that the network sees at once, such as 16,16,8; larger volumes in overlapping windows."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:i; auto takes a GPU where there is one."""
    workers: int = 0
    """Processes of one thread each; 0 = one a core, one in all on a GPU."""
    data: Path | None = None
    """Prepared data: a splits_final.json is written that validates on patients of it that MODEL never saw."""
    format: FormatName = "nnunet"
    """Layout of the set; see docs/formats.md."""
    prompts: bool = False
    """Also write prompts.jsonl and boxes.json: points, boxes, scribbles, captions, questions, measured on the masks."""
    shard: str = "0/1"
    """i/n: only the samples whose index is i modulo n; the manifest is written once every shard is done."""

    def run(self) -> int:
        """Write what is missing; nothing is written where the ask or a mask is wrong."""
        from pipelines.machine import device_of
        from pipelines.progress import progress
        from pipelines.samples import Job, Worker, made, mask_files
        from pipelines.sidecars import validation_of
        from pipelines.workers import alone, workers_on

        self._check_numbers()
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
            window=self._window(),
            masks=mask_files(self.masks),
            device=str(device_of(self.device)),
            format=self.format,
            prompts=self.prompts,
        )
        worker = Worker(job)
        worker.check(self.count)
        masks = worker.mask_digests() if self.data is not None else ()
        validation = validation_of(self.data, worker.generator.model.seen, self.model, masks)
        self.out.mkdir(parents=True, exist_ok=True)
        with alone(self.out):
            self._claim(worker)
            done = worker.finished()
            todo = [index for index in range(shard, self.count, shards) if index not in done]
            if todo:  # without its index, an unfinished folder is not taken for a dataset
                worker.writer.reopen()
        with progress("samples", len(todo)) as bar:
            for _ in made(job, worker, todo, min(self.workers or workers_on(job.device), max(len(todo), 1))):
                bar.advance()
        with alone(self.out):
            missing = len(set(range(self.count)) - worker.finished())
            if not missing:
                worker.finish(self.count, validation)
        if missing:
            print(f"shard {self.shard} done; {missing} samples of other shards are missing, so no manifest yet")
        else:
            print(f"{self.count} samples in {self.out}{worker.seams(self.count)}")
        return 0

    def _check_numbers(self) -> None:
        """Errors: ConfigError for a number out of range."""
        from synth.errors import ConfigError

        for name, least, most in (("count", 1, LARGEST_COUNT), ("steps", 1, LARGEST_STEPS)):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ConfigError(f"--{name} is {value}; give {least} to {most}")
        if self.guidance is not None and not 0 <= self.guidance <= LARGEST_GUIDANCE:  # refuses nan too
            raise ConfigError(f"--guidance is {self.guidance}; give a scale from 0 to {LARGEST_GUIDANCE:g}")

    def _window(self) -> tuple[int, ...] | None:
        from synth.errors import ConfigError

        if self.window is None:
            return None
        if not re.fullmatch(r"[0-9]{1,4}(,[0-9]{1,4}){1,2}", self.window):
            raise ConfigError(f"--window is {self.window!r}; write latent voxels along each axis, such as 16,16,8")
        return tuple(int(part) for part in self.window.split(","))

    def _shard(self) -> tuple[int, int]:
        from synth.errors import ConfigError

        parts = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", self.shard)
        if parts is None or not int(parts[1]) < int(parts[2]):
            raise ConfigError(f"--shard is {self.shard!r}; write i/n with i from 0 to n - 1")
        return int(parts[1]), int(parts[2])

    def _claim(self, worker: "Worker") -> None:
        """Keep the ask beside the output: an equal one goes on, another one or one for fewer samples is refused."""
        import json

        from synth.errors import OutputError
        from synth.io import write_bytes

        asked = worker.request()
        path = self.out / "request.json"
        if not path.is_file():
            # a kill while the ask was written leaves its draft, which is no result
            if any(found.name != f".{path.name}.partial" for found in self.out.iterdir()):
                raise OutputError(f"{self.out} is not empty; give another --out")
            write_bytes(path, (json.dumps(asked, sort_keys=True, indent=1) + "\n").encode())
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            # sets of before could have no other
            before = {"device": "cpu", "format": "nnunet", "prompts": False, **before}
            differ = [name for name in sorted(asked) if before.get(name) != asked[name]]
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise OutputError(f"{path} is broken ({error}); give another --out") from error
        if differ:
            name = differ[0]
            raise OutputError(
                f"{self.out} was begun with {name} = {before.get(name)}, now it is {asked[name]}; give another --out"
            )
        beyond = max(worker.finished(), default=-1) + 1
        if beyond > self.count:
            raise OutputError(
                f"{self.out} holds samples up to {beyond}, --count is {self.count}; give --count {beyond} or more, "
                "or another --out"
            )
