"""Which fidelity metric sees which corruption: metrics x corruptions x severities, over seeds. JSON out.

synth cohort --out COHORT --count 360 --seed 1
synth prepare COHORT --out DATA
python -m benchmarks.corruptions DATA benchmarks/results/corruptions.json --count 40 --seeds 3
python -m benchmarks.corruptions DATA benchmarks/results/corruptions.json --markdown docs/corruptions.md

The cases are parted by patient: the first `count` are the real set, the next `count` are corrupted, and for
corruptions of sets the next 3 x `count` are drawn from. Each metric of `evaluation.sensitivity` declares what it must
see; a cell holds its values at severities 0 (clean) to 5 for each seed. Rows that are there already are not made
again. The third command writes the table of what is there.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tyro

from evaluation.extractors import radiomics_extractor
from evaluation.sensitivity import PROBES, Sets, order_of
from synth.augment import CORRUPTIONS, SET_CORRUPTIONS, corrupt, corrupt_set
from synth.data.prepared import Prepared, PreparedCase
from synth.errors import ConfigError
from synth.io import write_bytes


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure the matrix and write JSON, or write the table of a matrix that is there."""

    data: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    count: int = 40
    """Volumes of the real and of the corrupted set."""
    pairs: int = 6
    """Volumes of the paired metrics, which are slower."""
    seeds: int = 3
    only: tuple[str, ...] = ()
    """Corruptions; all by default."""
    workers: int = 2
    markdown: Path | None = None
    """Write the table of OUT here and measure nothing."""


@dataclass(frozen=True)
class Task:
    """One volume under one corruption."""

    folder: Path
    case: str
    name: str
    severity: int
    seed: int
    pairs: bool


@cache
def opened(folder: Path) -> Prepared:
    """Return the prepared folder, opened once in each process."""
    return Prepared.load(folder)


def measure(task: Task) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return features of the corrupted volume, and the image and what it was where it goes into pairs."""
    prepared = opened(task.folder)
    case = prepared.case(task.case)
    clean, mask = np.array(prepared.image(case)), np.array(prepared.mask(case))
    image, moved = (clean, mask)
    if task.severity:
        image, moved = corrupt(clean, task.name, task.severity, seed=task.seed, mask=mask)
    schema = prepared.schema
    row = radiomics_extractor()(image, moved, labels=len(schema.labels), spacing_mm=schema.spacing_mm)
    return (row, image, clean) if task.pairs else (row, None, None)


def _sides(prepared: Prepared, count: int) -> tuple[Sequence[PreparedCase], Sequence[PreparedCase]]:
    """Return the real cases and the pool of the others, of other patients."""
    real = prepared.cases[:count]
    taken = {case.patient for case in real}
    pool = [case for case in prepared.cases if case.patient not in taken]
    if len(real) < count or len(pool) < count:
        raise ConfigError(f"{prepared.folder} has {len(prepared.cases)} cases; {2 * count} of two sets of patients")
    return real, pool


class Matrix:
    """Everything that the cells are measured on."""

    def __init__(self, options: Options, pool: ProcessPoolExecutor) -> None:
        self.options, self.pool = options, pool
        self.prepared = Prepared.load(options.data)
        real, others = _sides(self.prepared, options.count)
        self.others = others[: 3 * options.count]
        self.case_of = partial(Task, options.data)
        rows = self._rows([self.case_of(case.case, "", 0, 0, False) for case in real])[0]
        self.centre, self.spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
        self.real = self._scaled(rows)
        self.clean = self._sets("", 0, 0)
        self.everyone: np.ndarray | None = None

    def _rows(self, tasks: Sequence[Task]) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        found = list(self.pool.map(measure, tasks, chunksize=4))
        images = [image for _, image, _ in found if image is not None]
        return np.stack([row for row, _, _ in found]), images, [clean for _, _, clean in found if clean is not None]

    def _scaled(self, rows: np.ndarray) -> np.ndarray:
        return (rows - self.centre) / self.spread

    def _sets(self, name: str, severity: int, seed: int) -> Sets:
        chosen = self.others[: self.options.count]
        tasks = [
            self.case_of(case.case, name, severity, seed * 10_000 + index, index < self.options.pairs)
            for index, case in enumerate(chosen)
        ]
        rows, images, originals = self._rows(tasks)
        return Sets(self._scaled(rows), self.real, images, originals)

    def cells(self, name: str) -> dict[str, list[list[float]]]:
        """Return {metric: values (seeds, 6)} of one corruption."""
        out: dict[str, list[list[float]]] = {}
        for seed in range(self.options.seeds):
            steps = [self._changed(name, severity, seed) for severity in range(6)]
            for metric, probe in PROBES.items():
                if not (probe.paired and (name in SET_CORRUPTIONS or not self.options.pairs)):
                    out.setdefault(metric, []).append([probe.measure(sets) for sets in steps])
        return out

    def _changed(self, name: str, severity: int, seed: int) -> Sets:
        if name in CORRUPTIONS:
            return self._sets(name, severity, seed) if severity else self.clean
        if self.everyone is None:
            tasks = [self.case_of(case.case, "", 0, 0, False) for case in self.others]
            self.everyone = self._scaled(self._rows(tasks)[0])
        attribute = next((a.name for a in self.prepared.schema.attributes if a.kind == "categorical"), None)
        if attribute is None:
            raise ConfigError(f"{self.options.data} has no categorical attribute; corruptions of sets need modes")
        modes = [str(case.attributes.get(attribute, "")) for case in self.others]
        chosen = corrupt_set(modes, name, severity, count=self.options.count, seed=seed)
        return Sets(self.everyone[chosen], self.real)


def rows_of(name: str, cells: dict[str, list[list[float]]]) -> Iterator[dict[str, object]]:
    """Yield a row for each metric: its values, and whether they are in the order it declares."""
    for metric, values in cells.items():
        found = [order_of(PROBES[metric], row) for row in values]
        yield {
            "metric": metric,
            "corruption": name,
            "declared": name in PROBES[metric].sees,
            "strict": all(order.strict for order in found),
            "rises": all(order.rises for order in found),
            "spearman": min(order.spearman for order in found),
            "saturated": max(order.saturated for order in found),
            "values": [[float(f"{value:.6g}") for value in row] for row in values],
        }


def markdown(result: dict[str, object]) -> str:
    """Return the table: metrics by corruptions, the worst Spearman of a seed, a tick where all are in strict order."""
    rows = result["rows"]
    assert isinstance(rows, list)
    cells = {(row["metric"], row["corruption"]): row for row in rows}
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    lines = [
        "# Which metric sees which corruption",
        "",
        f"Population: {result['population']}; {result['count']} volumes a side, {result['seeds']} seeds, five "
        f"severities. `{result['command']}`",
        "",
        "A cell is the smallest Spearman correlation of severity and value over the seeds; **bold**: strict order for "
        "every seed (up to saturation); !: declared and not kept; (): not declared.",
        "",
        f"| corruption | {' | '.join(metrics)} |",
        f"|---|{'---|' * len(metrics)}",
    ]
    for name in dict.fromkeys(row["corruption"] for row in rows):
        lines.append(f"| {name} | {' | '.join(_cell(cells.get((metric, name))) for metric in metrics)} |")
    kept = [row for row in rows if row["declared"]]
    lines += ["", f"Declared cells in strict order: {sum(row['strict'] for row in kept)} of {len(kept)}.", ""]
    return "\n".join(lines)


def _cell(row: dict[str, object] | None) -> str:
    if row is None:
        return "-"
    text = f"{row['spearman']:.2f}"
    text = f"**{text}**" if row["strict"] else text
    return (text if row["strict"] else f"{text} !") if row["declared"] else f"({text})"


def main(options: Options) -> None:
    """Measure and write JSON after each corruption, or write the table."""
    if options.markdown is not None:
        write_bytes(options.markdown, markdown(json.loads(options.out.read_text())).encode())
        return
    names = options.only or (*CORRUPTIONS, *SET_CORRUPTIONS)
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        matrix = Matrix(options, pool)
        about: dict[str, object] = {
            "command": f"python -m benchmarks.corruptions DATA {options.out} --count {options.count} "
            f"--pairs {options.pairs} --seeds {options.seeds}",
            "population": matrix.prepared.schema.population,
            "extractor": f"{radiomics_extractor().name} {radiomics_extractor().fingerprint()}",
            "count": options.count,
            "seeds": options.seeds,
            "metrics": sorted(PROBES),
        }
        before = json.loads(options.out.read_text()) if options.out.is_file() else {}
        known = before["rows"] if all(before.get(key) == value for key, value in about.items()) else []
        rows: list[dict[str, object]] = []
        for name in names:
            there = [row for row in known if row["corruption"] == name]
            rows += there or list(rows_of(name, matrix.cells(name)))
            kept = [row for row in rows if row["declared"]]
            summary = {"declared": len(kept), "declared_in_strict_order": sum(bool(row["strict"]) for row in kept)}
            write_bytes(options.out, (json.dumps({**about, **summary, "rows": rows}, indent=1) + "\n").encode())
            print(
                f"{name}: {[(row['metric'], row['strict']) for row in rows if row['corruption'] == name]}", flush=True
            )


if __name__ == "__main__":
    main(tyro.cli(Options))
