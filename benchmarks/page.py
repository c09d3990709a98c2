"""How long the page takes: from the command to a page that draws, and from the click to the first pair drawn.

python -m benchmarks.page benchmarks/results/page.json [--repeats 3] [--picture page.png]

Each round starts `synth demo` anew on a free port, in a browser without a cache (Chromium without a window, drawing in
software on the same cores). `ready_s` ends when the button can be pressed; `first_pair_s` when the viewer has drawn the
pair of the default ask, `second_pair_s` that of the next seed. Medians of the rounds; wants an idle machine.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from playwright.sync_api import sync_playwright

from benchmarks.keeping import ROOT, say
from synth.errors import DataError
from synth.generator import environment, load
from synth.io import write_bytes
from tests.browser.chromium import CHROMIUM, WAIT_MS

_FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Start the page, press, wait."""

    out: Annotated[Path, tyro.conf.Positional]
    model: str = "brain-tiny"
    repeats: int = 3
    picture: Path | None = None
    """Write what the browser shows at the end, to be looked at."""


@contextmanager
def served(model: str) -> Iterator[str]:
    """Serve the page by its command on a free port and give the address."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "pipelines", "demo", model, "--port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=os.environ)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(60)


def wait_for_port(address: str) -> None:
    """Wait until something answers at the address."""
    port = int(address.rsplit(":", 1)[1].strip("/"))
    until = time.monotonic() + WAIT_MS / 1000
    while time.monotonic() < until:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"nothing answers at {address}")


def first_visit(browser: Any, options: Options) -> dict[str, float]:
    """Return the seconds of one round."""
    started = time.perf_counter()
    with served(options.model) as address:
        wait_for_port(address)
        answers = time.perf_counter()
        page = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        page.wait_for_selector("#make")
        ready = time.perf_counter()
        page.click("#make")
        page.wait_for_selector("#viewer .nv[data-drawn='1']")
        first = time.perf_counter()
        page.click("#next-seed")
        page.wait_for_selector("#viewer .nv[data-drawn='2']")
        second = time.perf_counter()
        if options.picture is not None:
            page.screenshot(path=options.picture)
        page.context.close()
    found = {"answers_s": answers - started, "ready_s": ready - started}
    return found | {"first_pair_s": first - ready, "second_pair_s": second - first}


def main(options: Options) -> None:
    """Run the rounds and write JSON."""
    if CHROMIUM is None:
        raise DataError("no Chromium on this machine; apt install chromium-headless-shell")
    rounds = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS), timeout=WAIT_MS)
        for _ in range(options.repeats):
            rounds.append(first_visit(browser, options))
            say(str(rounds[-1]))
        browser.close()
    medians = {name: round(statistics.median(one[name] for one in rounds), 2) for name in rounds[0]}
    result = {
        "command": f"python -m benchmarks.page {options.out} --model {options.model} --repeats {options.repeats}",
        "environment": environment(torch.device("cpu")),
        "cores": len(os.sched_getaffinity(0)),
        "model_sha256": load(options.model).model.sha256,
        "median": medians,
        "rounds": [{name: round(value, 2) for name, value in one.items()} for one in rounds],
    }
    write_bytes(options.out, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
