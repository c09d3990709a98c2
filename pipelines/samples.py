"""The samples of one set: made and written one by one, with a record each, by any number of workers."""

from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.acceptance import Tally, first_accepted, judge_for, rejected_path, say_judge
from pipelines.asks import Asks, Job
from pipelines.marks import Mark, request_of
from pipelines.records import SetFacts, record_path, recorded, whole_record, write_derived
from synth.sampler import SAMPLERS

if TYPE_CHECKING:
    from synth.sample import Condition, Sample
    from synth.volume import Volume


class Worker:
    """Makes samples of a job with one thread, so that bytes do not depend on how many work."""

    def __init__(self, job: Job) -> None:
        import torch

        from pipelines.machine import full_float32
        from synth.formats.writing import Description
        from synth.generator import Sampling, load, software

        torch.set_num_threads(1)
        full_float32(job.device)
        self.job, self.out = job, Path(job.out)
        sampling = Sampling(
            sampler=SAMPLERS[job.sampler] if job.sampler else None,
            steps=job.steps,
            guidance=job.guidance,
            window=job.window,
        )
        self.generator = load(job.model, device=job.device).with_sampling(sampling)
        self.judge = None if job.accept is None else judge_for(job.accept, job.tests, self.generator.model)
        self.asks = Asks(job, self.generator)
        schema = self.asks.schema
        self.mark = None if job.mark is None else Mark.of(job.mark, schema.intensities)
        about = Description(
            name=f"Synthetic_{self.generator.model.recipe.name}",
            channels=schema.channels,
            labels=schema.labels,
            file_ending=schema.file_ending,
            population=schema.population,
            software=software(),
        )
        self.facts = SetFacts(about=about, format=job.format, prompts=job.prompts)
        self.writer = self.facts.writer(self.out)

    def into(self, out: Path) -> "Worker":
        """Return this worker, writing into another folder."""
        other = copy(self)
        other.out, other.writer = out, self.facts.writer(out)
        return other

    def check(self, count: int) -> None:
        """Refuse what cannot be asked of the model, before anything is written. Errors: as `Asks.check`."""
        self.generator.check_sampling()
        self.asks.check(count)
        if self.judge is not None and self.job.accept is not None:
            say_judge(self.judge, self.job.accept, self.generator.model)

    def request(self) -> dict[str, object]:
        """Return what decides the samples: everything but count, workers and shards; tries only add samples."""
        return {
            "model": self.generator.model.sha256,
            "seed": self.job.seed,
            "steps": self.job.steps,
            "sampler": self.job.sampler,
            "guidance": self.job.guidance,
            "window": None if self.job.window is None else list(self.job.window),
            "device": self.job.device.partition(":")[0],
            "format": self.job.format,
            "prompts": self.job.prompts,
            "accept": None if self.judge is None else self.judge.sha256,
            "accept_tests": None if self.judge is None else list(self.judge.tests),
            "watermark": request_of(self.job.mark),
            **self.asks.request(),
        }

    def make(self, index: int) -> None:
        """Make and write sample `index`, its record last; where a judge accepts none, that is kept instead."""
        import json

        from synth.config import plain
        from synth.formats.writing import Told
        from synth.io import write_bytes

        ask, record = self.asks.condition(index), record_path(self.out, index)
        sample, acceptance = self._sample(ask, index)
        if sample is None:
            return
        assert sample.mask is not None
        row: dict[str, Any] = {**plain(sample.provenance), **acceptance, "synthetic": True}
        image = sample.image
        if self.mark is not None:
            image, row["watermark"] = self.mark.put(image), self.mark.told()
        row["files"] = self.writer.add(sample.provenance.case, image, sample.mask, Told.of(row))
        if self.job.prompts:
            row["prompts"] = self._derive(index, sample.provenance.case, sample.mask)
        if ask.mask is not None:  # files of masks round it, and images follow it
            row["mask_affine"] = ask.mask.affine.ravel().tolist()
        write_bytes(record, json.dumps(row, sort_keys=True).encode())
        if self.judge is not None:
            rejected_path(record).unlink(missing_ok=True)

    def _sample(self, ask: "Condition", index: int) -> "tuple[Sample | None, dict[str, Any]]":
        """Return a sample, and what its row says of its acceptance; None where the judge rejected every attempt."""
        from synth.generator import Seed

        seed, record = Seed(self.job.seed, index), record_path(self.out, index)
        if self.judge is None:
            return next(self.generator.generate([ask], seeds=[seed])), {}
        return first_accepted(self.generator, ask, seed, judge=self.judge, tries=self.job.tries, record=record)

    def _derive(self, index: int, case: str, mask: "Volume") -> str:
        """Keep what is derived of a mask beside its record, and return the sha256."""
        from synth.formats.prompts import derive

        named = mask if mask.labels else mask.replace(labels=self.facts.about.label_values)
        space = self.facts.about.patient_space
        derived = derive(named, case=case, seed=(self.job.seed, index), patient_space=space)
        return write_derived(record_path(self.out, index), derived)

    def finished(self) -> set[int]:
        """Return the indices of samples whose files are all there; the record is written last."""
        return {index for index in recorded(self.out) if whole_record(self.writer, index)}

    def write_seen(self) -> None:
        """Write whom the model saw beside a shard that is done."""
        from synth.data.seen import SEEN_FILE
        from synth.io import write_bytes

        seen = self.generator.model.seen
        if seen is not None:
            write_bytes(self.out / SEEN_FILE, seen.dump())

    def told(self, count: int) -> str:
        """Return in words what a judge rejected, and the largest seam that overlapped denoising left, if any."""
        import json

        def rows() -> "Iterator[dict[str, Any]]":
            return (json.loads(record_path(self.out, index).read_text()) for index in range(count))

        told = "" if self.judge is None else f"; judge {self.judge.sha256[:16]}: {Tally(rows()).words()}"
        worst = max((row["seam"] for row in rows() if row.get("seam") is not None), default=None)
        if worst is None:
            return told
        return f"{told}; across windows latents step at most {worst:.2f} times as much as elsewhere (1 = no seam)"
