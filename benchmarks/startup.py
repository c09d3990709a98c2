"""How long the command line and the import take to start; medians of fresh interpreters.

python -m benchmarks.startup [--out benchmarks/results/startup.json]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = 9
PROGRAMS = {
    "python": "pass",
    "synth --help": "from pipelines.cli import main; main(['--help'])",
    "synth generate --help": "from pipelines.cli import main; main(['generate', '--help'])",
    "import torch": "import torch",
    "import synth": "import synth",
    "import synth, every public name": "import synth; [getattr(synth, name) for name in synth.__all__]",
}


def seconds(program: str) -> float:
    """Return the wall time of one fresh interpreter that runs `program`."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure() -> dict[str, dict[str, float]]:
    """Return median, least and greatest seconds of each program, runs interleaved so that load falls on all."""
    for program in PROGRAMS.values():
        seconds(program)  # the first run compiles and fills the file cache
    taken = {name: [] for name in PROGRAMS}
    for _ in range(RUNS):
        for name, program in PROGRAMS.items():
            taken[name].append(seconds(program))
    return {
        name: {"median_s": round(statistics.median(v), 4), "min_s": round(min(v), 4), "max_s": round(max(v), 4)}
        for name, v in taken.items()
    }


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "startup.json")
    out = parser.parse_args().out
    figures = measure()
    beyond = figures["import synth, every public name"]["median_s"] - figures["import torch"]["median_s"]
    result = {
        "command": "python -m benchmarks.startup",
        "runs": RUNS,
        "figures": figures,
        "import_synth_beyond_torch_s": round(beyond, 4),
        "goals": {"synth --help": 0.4, "import_synth_beyond_torch_s": 1.0},
        "load_before": round(os.getloadavg()[0], 2),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
