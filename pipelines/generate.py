"""synth generate: paired volumes from a model, resumable, the same bytes whatever the workers or shards."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from synth.sampler import SamplerName

if TYPE_CHECKING:
    from pipelines.asks import Job
    from pipelines.plans import Plan
    from pipelines.samples import Worker

FormatName = Literal["nnunet", "msd", "bids", "dicom", "folder", "medmnist", "synthrad", "webdataset", "hf"]
"""The layouts that `synth.formats.WRITERS` writes."""
LARGEST_COUNT = 1_000_000
LARGEST_STEPS = 10_000
LARGEST_GUIDANCE = 100.0
ALL_TESTS = ("all",)


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Write image-mask pairs of MODEL as a dataset with a manifest.

    The same command again completes a set that was cut short; a larger --count extends it.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model folder, or the name of a bundled model."""
    out: Path
    """Folder to write."""
    count: int | None = None
    """Number of samples in all; a plan says it itself."""
    plan: Path | None = None
    """A .csv or .jsonl with a row for so many samples: count, text, mask (a file of --masks), attributes by name."""
    masks: Path | None = None
    """Masks to follow, in turn: a dataset in any layout, or a folder of volumes. Without it masks are made first."""
    text: str | None = None
    """What the images should show, in words."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Attributes, name=value (repeatable)."""
    spread: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """An attribute in balance (repeatable): combinations of levels in turn, numbers in strata of their range."""
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
    """Processes of one thread each; 0 = one a core, one in all on a GPU. With slurm: jobs of one process each."""
    engine: Literal["local", "ray", "slurm"] = "local"
    """Where workers run: this machine, a Ray cluster, or a SLURM job array."""
    address: str | None = None
    """Of the Ray cluster; one is begun on this machine otherwise."""
    slurm: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """name=value for submitit (repeatable), such as slurm_partition=gpu or timeout_min=240."""
    batch: int = 0
    """Samples handed to each worker at once, 0 = chosen; it changes no byte."""
    dry_run: bool = False
    """Make one sample, say time, disk and memory of the whole, and write nothing."""
    data: Path | None = None
    """Prepared data: a splits_final.json is written that validates on patients of it that MODEL never saw."""
    format: FormatName = "nnunet"
    """Layout of the set; see docs/formats.md."""
    accept: Path | None = None
    """Judge that `synth evaluate --save-judge` wrote: a rejected sample is made again, as its seed's next attempt."""
    accept_tests: tuple[str, ...] = ALL_TESTS
    """Tests of the judge that count, of agreement, artefact, near_copy; by default all that it has."""
    accept_tries: int | None = None
    """Tries of each sample with --accept, 5 by default; where they are used up the run ends with exit code 3."""
    prompts: bool = False
    """Also write prompts.jsonl and boxes.json: points, boxes, scribbles, captions, questions, measured on the masks."""
    watermark: Path | None = None
    """Key file of `synth watermark new`: images carry its invisible mark, and the manifest the key's id."""
    watermark_strength: float | None = None
    """Largest change by the mark, 1 by default: HU of CT, 400ths of the range of other images."""
    shard: str = "0/1"
    """i/n: only the samples whose index is i modulo n; the manifest is written once every shard is done."""

    def run(self) -> int:
        """Write what is missing; nothing is written where the ask or a mask is wrong."""
        from pipelines.samples import Worker
        from pipelines.sidecars import validation_of

        self._check_numbers()
        shard, shards = self._shard()
        plan = self._plan()
        count = self.count or (plan.count if plan is not None else 0)
        job = self._job(plan)
        worker = Worker(job)
        worker.check(count)
        masks = worker.asks.mask_digests() if self.data is not None else ()
        validation = validation_of(self.data, worker.generator.model.seen, self.model, masks)
        if self.dry_run:
            from pipelines.rehearsal import rehearse

            self._refuse_others(worker, count)
            done = worker.finished()
            rehearse(worker, [index for index in range(shard, count, shards) if index not in done], self)
            return 0
        if self.engine == "slurm":
            return self._launch(count)
        return self._make(worker, count, (shard, shards), validation)

    def _make(self, worker: "Worker", count: int, which: tuple[int, int], validation: tuple[str, ...]) -> int:
        """Make what is missing of a shard, and end the set once every shard is done."""
        from pipelines.acceptance import HOPELESS, exhausted, say_exhausted
        from pipelines.engines import made
        from pipelines.progress import progress
        from pipelines.records import ShardNote, begun_path, finish_set, note_path, record_path
        from pipelines.workers import alone, only_one

        shard, shards = which
        self.out.mkdir(parents=True, exist_ok=True)
        with alone(self.out):
            self._claim(worker, count)
            done = worker.finished()
            todo = [index for index in range(shard, count, shards) if index not in done]
            if todo:  # without its index, an unfinished folder is not taken for a dataset; nor is the shard done
                worker.writer.reopen()
                note_path(self.out, shard, shards).unlink(missing_ok=True)
                self._begin(shard, shards, count)
        held = only_one(self.out / "request.json", shard, f"shard {self.shard} of {self.out}")
        failed: set[int] = set()
        # the shard's first samples decide, whatever workers finished beside them
        first = set(range(shard, count, shards)[:HOPELESS])
        early = False
        with held, progress("samples", len(todo)) as bar:
            for index in made(worker, todo, self):
                bar.advance()
                if self.accept is not None and not record_path(self.out, index).is_file():
                    failed.add(index)
                early = len(first) == HOPELESS and first <= failed
                if early:
                    break
        if failed:
            told = sorted(first) if early else todo
            return say_exhausted(exhausted(self.out, told), judge=str(self.accept), early=early)
        with alone(self.out):
            missing = len(set(range(count)) - worker.finished())
            if missing:
                note = ShardNote(shard=shard, shards=shards, count=count, validation=validation, facts=worker.facts)
                worker.write_seen()
                note.write(self.out)
                begun_path(self.out, shard, shards).unlink(missing_ok=True)
            else:
                finish_set(self.out, worker.facts, worker.generator.model.seen, count, validation)
        if missing:
            print(f"shard {self.shard} done; {missing} samples of other shards are missing, so no manifest yet")
        else:
            print(f"{count} samples in {self.out}{worker.told(count)}")
        return 0

    def _begin(self, shard: int, shards: int, count: int) -> None:
        """Keep the command beside the output until its shard is done, so that `synth merge` can say how to end it."""
        import json

        from pipelines.commands import words_of
        from pipelines.records import begun_path
        from synth.io import write_bytes

        here = replace(self, model=str(Path(self.model).resolve())) if Path(self.model).is_dir() else self
        said = {"shard": shard, "shards": shards, "count": count, "command": words_of("generate", here, but=("out",))}
        write_bytes(begun_path(self.out, shard, shards), (json.dumps(said) + "\n").encode())

    def _launch(self, count: int) -> int:
        """Run the command as a job array, then say what came of it."""
        from pipelines.acceptance import exhausted, say_exhausted
        from pipelines.on_slurm import run_on_slurm
        from pipelines.progress import progress
        from synth.errors import ConfigError

        if self.workers < 1 or self.shard != "0/1":
            raise ConfigError("--engine slurm makes the shards itself: give --workers, how many jobs, and no --shard")
        with progress("jobs", self.workers) as bar:
            code = run_on_slurm(self, self.workers, bar.advance)
        if code:
            return say_exhausted(exhausted(self.out, range(count)), judge=str(self.accept), early=False)
        print(f"{count} samples in {self.out}")
        return 0

    def _job(self, plan: "Plan | None") -> "Job":
        from pipelines.acceptance import TRIES
        from pipelines.asks import Job, mask_files
        from pipelines.machine import device_of
        from pipelines.marks import asked_mark

        # a login node says nothing of the nodes that jobs run on
        device = "cpu" if self.engine == "slurm" else str(device_of(self.device))
        return Job(
            model=self.model,
            out=str(self.out),
            text=self.text,
            set=self.set,
            spread=self.spread,
            seed=self.seed,
            steps=self.steps,
            sampler=self.sampler,
            guidance=self.guidance,
            window=parsed_window(self.window),
            masks=mask_files(self.masks),
            plan=plan,
            device=device,
            format=self.format,
            prompts=self.prompts,
            accept=None if self.accept is None else str(self.accept),
            tests=() if self.accept_tests == ALL_TESTS else self.accept_tests,
            tries=self.accept_tries or TRIES,
            mark=asked_mark(self.watermark, self.watermark_strength, self.out),
        )

    def _plan(self) -> "Plan | None":
        """Return the plan. Errors: ConfigError unless either it or --count says how many; DataError for its rows."""
        from pipelines.plans import read_plan
        from synth.errors import ConfigError

        if (self.plan is None) == (self.count is None):
            raise ConfigError("give --count, the number of samples, or --plan, whose rows say it; not both")
        return None if self.plan is None else read_plan(self.plan)

    def _check_numbers(self) -> None:
        """Errors: ConfigError for a number out of range."""
        from pipelines.acceptance import MOST_TRIES
        from synth.errors import ConfigError

        for name, most in (("count", LARGEST_COUNT), ("accept_tries", MOST_TRIES)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise ConfigError(f"--{name.replace('_', '-')} is {value}; give 1 to {most}")
        tests = self.accept_tests != ALL_TESTS
        for name, given in (("--accept-tests", tests), ("--accept-tries", self.accept_tries is not None)):
            if given and self.accept is None:
                raise ConfigError(f"{name} is for --accept; add that or leave it out")
        if not self.accept_tests:
            raise ConfigError("--accept-tests names no test; give some of agreement, artefact, near_copy")
        require_sampling(self.steps, self.guidance)
        for name, engine in (("address", "ray"), ("slurm", "slurm")):
            if getattr(self, name) and self.engine != engine:
                raise ConfigError(f"--{name} is for --engine {engine}; add that or leave --{name} out")

    def _shard(self) -> tuple[int, int]:
        from synth.errors import ConfigError

        parts = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", self.shard)
        if parts is None or not int(parts[1]) < int(parts[2]):
            raise ConfigError(f"--shard is {self.shard!r}; write i/n with i from 0 to n - 1")
        return int(parts[1]), int(parts[2])

    def _claim(self, worker: "Worker", count: int) -> None:
        """Keep the ask beside the output; one that goes on with a longer plan takes its place."""
        import json

        from synth.io import write_bytes

        if not self._refuse_others(worker, count):
            asked = json.dumps(worker.request(), sort_keys=True, indent=1) + "\n"
            write_bytes(self.out / "request.json", asked.encode())

    def _refuse_others(self, worker: "Worker", count: int) -> bool:
        """Return True where the output holds this very ask. Errors: OutputError for another, or for fewer samples."""
        from pipelines.records import read_request
        from synth.errors import OutputError

        path = self.out / "request.json"
        if not path.is_file():
            # a kill while the ask was written leaves its draft, which is no result
            if self.out.is_dir() and any(found.name != f".{path.name}.partial" for found in self.out.iterdir()):
                raise OutputError(f"{self.out} is not empty; give another --out")
            return False
        asked = worker.request()
        before = read_request(path, mend="give another --out")
        differ = [name for name in sorted(asked) if before.get(name) != asked[name]]
        longer = "plan" in differ and worker.asks.extends(before.get("plan"))
        if longer:
            differ.remove("plan")
        if differ:
            name = differ[0]
            if name == "plan" and before.get(name) and asked[name]:
                raise OutputError(
                    f"{self.out} was begun with another plan; give that one, with rows added at its end at most, "
                    "or another --out"
                )
            raise OutputError(
                f"{self.out} was begun with {name} = {before.get(name)}, now it is {asked[name]}; give another --out"
            )
        beyond = max(worker.finished(), default=-1) + 1
        if beyond > count:
            raise OutputError(
                f"{self.out} holds samples up to {beyond}, --count is {count}; give --count {beyond} or more, "
                "or another --out"
            )
        return not longer


def require_sampling(steps: int | None, guidance: float | None = None) -> None:
    """Refuse sampling steps or a guidance scale out of range; None is the model's own. Errors: ConfigError.

    >>> require_sampling(8, 1.5)
    """
    from synth.errors import ConfigError

    if steps is not None and not 1 <= steps <= LARGEST_STEPS:
        raise ConfigError(f"--steps is {steps}; give 1 to {LARGEST_STEPS}")
    if guidance is not None and not 0 <= guidance <= LARGEST_GUIDANCE:  # refuses nan too
        raise ConfigError(f"--guidance is {guidance}; give a scale from 0 to {LARGEST_GUIDANCE:g}")


def parsed_window(text: str | None) -> tuple[int, ...] | None:
    """Return latent voxels along each axis. Errors: ConfigError.

    >>> parsed_window("16,16,8")
    (16, 16, 8)
    """
    from synth.errors import ConfigError

    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,4}(,[0-9]{1,4}){1,2}", text):
        raise ConfigError(f"--window is {text!r}; write latent voxels along each axis, such as 16,16,8")
    return tuple(int(part) for part in text.split(","))
