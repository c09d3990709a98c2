"""nnU-Net's programs for a small machine: each runs in a process forked from one that has imported nnU-Net already.

A shell finds them on its PATH under their own names. They are nnU-Net's entry points with the words that were given,
and those of SMALL after them: no GPU, and a plan at a coarse spacing. Processes that nnU-Net would spawn are forked,
and training is LENGTH long. `synth` is the command of this project.
"""

import contextlib
import json
import multiprocessing
import os
import shlex
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

SPACING_MM = 7.8
_COARSE = ("-overwrite_target_spacing", *[str(SPACING_MM)] * 3)
SMALL: dict[str, tuple[str, ...]] = {
    "nnUNetv2_plan_experiment": _COARSE,
    "nnUNetv2_plan_and_preprocess": _COARSE,
    "nnUNetv2_train": ("-device", "cpu"),
    "nnUNetv2_predict": ("-device", "cpu", "-npp", "1", "-nps", "1", "--disable_progress_bar"),
}
LENGTH = {"num_epochs": 2, "num_iterations_per_epoch": 3, "num_val_iterations_per_epoch": 1}
ENVIRONMENT = {"nnUNet_compile": "F", "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}
_CLIENT = """#!{python} -SE
import json, os, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect({place!r})
socket.send_fds(line, [b"1"], [1, 2])
told = [os.path.basename(sys.argv[0]), *sys.argv[1:]], os.getcwd(), dict(os.environ)
line.sendall(json.dumps(told).encode() + b"\\n")
sys.exit(int(line.recv(8) or b"1"))
"""


@dataclass
class Programs:
    """Runs shell scripts that call nnU-Net's programs; what is said goes into `log`, what ran into `runs`."""

    folder: Path
    log: Path
    runs: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir(parents=True, exist_ok=True)
        self.place = self.folder / "socket"
        self.place.unlink(missing_ok=True)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(self.place))
        self.server.listen()
        self.server.settimeout(0.2)
        self.entries: dict[str, Callable[[], Any]] = {
            one.name: one.load() for one in entry_points(group="console_scripts") if one.name.startswith("nnUNetv2_")
        }
        for name in (*self.entries, "synth"):
            client = self.folder / "bin" / name
            client.write_text(_CLIENT.format(python=sys.executable, place=str(self.place)))
            client.chmod(0o755)

    def shell(self, script: str, *, environment: dict[str, str], cwd: Path) -> int:
        """Run a script in bash and return its exit code; it ends at the first command that fails."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        with self.log.open("ab") as out:
            running = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", script],
                env={**os.environ, **ENVIRONMENT, **environment, "PATH": path},
                cwd=cwd,
                stdout=out,
                stderr=out,
            )
            while running.poll() is None:
                with contextlib.suppress(TimeoutError):
                    self._serve(self.server.accept()[0])
        return running.returncode

    def _serve(self, line: socket.socket) -> None:
        with line, line.makefile("rb") as asked:
            outputs = socket.recv_fds(line, 1, 2)[1]
            words, cwd, environment = json.loads(asked.readline())
            self.say(f"$ {shlex.join(words)}")
            child = os.fork()
            if child == 0:
                self._become(words, Path(cwd), environment, outputs)
            _, status, used = os.wait4(child, 0)
            for output in outputs:
                os.close(output)
            code, seconds = os.waitstatus_to_exitcode(status), round(used.ru_utime + used.ru_stime, 1)
            self.runs.append({"command": shlex.join(words), "exit_code": code, "cpu_s": seconds})
            self.say(f"[exit code {code}, {seconds} s of CPU]")
            line.sendall(str(code if code >= 0 else 1).encode())

    def _become(self, words: list[str], cwd: Path, environment: dict[str, str], outputs: list[int]) -> None:
        """Be the program `words[0]` from here on; never returns."""
        code = 1
        try:
            self.server.close()
            for output, number in zip(outputs, (1, 2), strict=True):
                os.dup2(output, number)
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = [*words, *SMALL.get(words[0], ())]
            code = _synth(words) if words[0] == "synth" else _nnunet(self.entries[words[0]])
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def say(self, text: str) -> None:
        """Add a line to the log."""
        print(text, flush=True)
        with self.log.open("a") as out:
            out.write(text + "\n")


def _synth(words: list[str]) -> int:
    from pipelines.cli import main

    return main(words[1:])


def _nnunet(entry: Callable[[], Any]) -> int:
    """Run an entry point in this forked process, with training of LENGTH and processes forked rather than spawned."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    context, initialize = multiprocessing.get_context, nnUNetTrainer.initialize

    def forked(method: str | None = None) -> Any:
        return context("fork" if method == "spawn" else method)

    def short(trainer: Any) -> None:
        for name, value in LENGTH.items():
            setattr(trainer, name, value)
        initialize(trainer)

    multiprocessing.get_context = forked
    multiprocessing.cpu_count = lambda: 1  # nnU-Net gives torch as many threads on a CPU
    nnUNetTrainer.initialize = short
    entry()
    return 0
