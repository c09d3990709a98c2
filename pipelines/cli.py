"""The command line: finds the verb, imports it alone, parses, runs, and turns errors into exit codes.

0 done, 1 our fault, 2 the user's input is wrong, 3 judged and failed, 4 undecidable, 130 interrupted.
"""

import contextlib
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

VERBS = {
    "quickstart": "bundled model, 8 pairs over its conditions, dataset and report",
    "cohort": "the simulated demo cohort as an nnU-Net dataset, its truth known",
    "prepare": "a labelled dataset -> patient-level splits, working arrays, a plan",
    "train": "every stage of a recipe; ends in a model folder",
    "generate": "paired image-mask volumes from a model",
    "edit": "pairs with their masks changed, images made anew where they changed",
    "export": "a generated set in another layout, without generating again",
    "merge": "shards of a set joined, or a set put into a real dataset for nnU-Net",
    "reproduce": "samples of a set made again and compared",
    "bench": "how fast a model makes pairs on this machine, and what memory it takes",
    "evaluate": "judge a synthetic set against real data",
    "compare": "two reports side by side, where they rest on the same",
    "release": "copy the samples that a report lets go, its verdict bound to them",
    "watermark": "keys of invisible marks, and whether images carry one",
    "demo": "a page to make pairs on, look at them and learn from them",
    "info": "what is this model, dataset, volume or report",
}
_UNUSABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENAMETOOLONG, errno.ELOOP),
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LEAST: Mapping[str, int] = {"count": 1, "steps": 1, "seed": 0, "workers": 0, "batch": 0}
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)
OUR_FAULT, BAD_INPUT, INTERRUPTED = 1, 2, 130


def usage() -> str:
    """Return the top-level help."""
    width = max(map(len, VERBS))
    lines = ["usage: synth VERB [options]", "", "Synthetic medical imaging data: paired image-mask volumes.", ""]
    lines += [f"  {verb:<{width}}  {text}" for verb, text in VERBS.items()]
    return "\n".join([*lines, "", "synth VERB --help shows a verb's options; synth --version the version."])


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(f"synth {_version()}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        from synth.errors import nearest

        return _say(f"unknown verb {verb!r}; {nearest(verb, VERBS)}", BAD_INPUT)
    return run(verb, rest)


def run(verb: str, rest: list[str]) -> int:
    """Parse and run one verb, errors mapped to exit codes."""
    from synth.errors import Interrupted, SynthError

    for number in (signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)):
        try:
            signal.signal(number, _interrupt)
        except ValueError:
            break  # not the main thread: the caller owns the signals
    command: Any = None
    try:
        command = _parse(verb, rest)
        _check(command)
        return command.run() or 0
    except SynthError as error:
        return _say(" ".join(str(error).split()), BAD_INPUT)
    except (Interrupted, KeyboardInterrupt) as stop:
        return _say(str(stop) or "interrupted; run the same command again to go on", INTERRUPTED)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else BAD_INPUT
    except BrokenPipeError:
        # the reader of our output left (`| head`); what is buffered must not fail again when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUR_FAULT
    except OSError as error:
        return _system(error, getattr(command, "out", None))
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
            return _say("the memory is not enough for this; ask for less at once, or free memory", BAD_INPUT)
        return _fault(error)


def _parse(verb: str, rest: list[str]) -> Any:
    """Return the verb's dataclass. Errors: ConfigError in one line, where tyro would draw a box."""
    import tyro

    from synth.errors import ConfigError

    kind = getattr(import_module(f"pipelines.{verb}"), verb.capitalize())
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=rest, prog=f"synth {verb}")
    except SystemExit as leave:
        if leave.code != BAD_INPUT:
            raise
    raise ConfigError(f"{_without_box(said.getvalue())}; `synth {verb} --help` shows the options")


def _without_box(said: str) -> str:
    """Return what a parse error says in one line: no frame, no title, no help texts.

    >>> _without_box("╭─ Title ──────╮\\n│ Missing:     │\\n│     --out PATH│\\n│ ──────────── │\\n│ For full help │")
    'Missing: --out PATH'
    """
    lines = [re.sub(r"^[│|]|[│|]\s*$", "", line).rstrip() for line in said.splitlines()]
    sections: list[list[str]] = [[]]
    for line in lines[1:]:  # the first is the title
        if line.strip("╭╮╰╯─- "):
            sections[-1].append(line)
        else:
            sections.append([])
    told: list[str] = []
    for section in filter(None, sections):
        if section[0].strip().startswith(("For full help", "Argument help")):
            break
        margin = len(section[0]) - len(section[0].lstrip()) + 8  # where help texts begin
        told += [line.strip() for line in section if len(line) - len(line.lstrip()) < margin]
    return " ".join(" ".join(told or said.split()).split("Got errors:")[0].split()).rstrip(".;")


def _check(command: Any) -> None:
    """Refuse what no verb takes. Errors: ConfigError for numbers below their least, OutputError for --out."""
    from synth.errors import ConfigError, OutputError

    for name, least in _LEAST.items():
        value = getattr(command, name, None)
        if isinstance(value, int) and value < least:
            raise ConfigError(f"--{name} is {value}; give at least {least}")
    out = getattr(command, "out", None)
    if not isinstance(out, Path):
        return
    place = next((place for place in (out, *out.parents) if place.exists()), out)
    if not place.is_dir():
        raise OutputError(f"{place} is a file; give another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(f"{place} cannot be written to; give another --out")


def _system(error: OSError, out: object) -> int:
    """Say what the operating system refused: full disks, unusable paths and an `out` that cannot be are the user's."""
    place = f" ({error.filename})" if error.filename else ""
    # numpy says only how much of an array went to disk
    if error.errno in _FULL or (error.errno is None and "requested and" in str(error)):
        return _say(f"the disk is full{place}; free room and run the same command again", BAD_INPUT)
    wanted = (out, *out.parents) if isinstance(out, Path) else ()
    if error.filename and (error.errno in _UNUSABLE or Path(str(error.filename)) in wanted):
        return _say(
            f"{error.filename}: {(error.strerror or 'unusable').lower()}; give a path that can be used", BAD_INPUT
        )
    return _fault(error)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("synthvol")
    except PackageNotFoundError:
        return "(not installed)"


def _fault(error: Exception) -> int:
    if os.environ.get("SYNTH_DEBUG"):
        raise error
    return _say(
        f"our fault: {type(error).__name__}: {' '.join(str(error).split())}; set SYNTH_DEBUG=1 for the traceback",
        OUR_FAULT,
    )


def _say(text: str, code: int) -> int:
    print(f"synth: {text}", file=sys.stderr)
    return code


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
