"""The command line: finds the verb, imports it alone, parses, runs, and turns errors into exit codes.

0 done, 1 our fault, 2 the user's input is wrong, 3 judged and failed, 4 undecidable, 130 interrupted.
"""

import errno
import os
import signal
import sys
from importlib import import_module

VERBS = {
    "quickstart": "bundled model, 8 pairs over its conditions, dataset and report",
    "cohort": "the simulated demo cohort as an nnU-Net dataset, its truth known",
    "prepare": "a labelled dataset -> patient-level splits, working arrays, a plan",
    "train": "every stage of a recipe; ends in a model folder",
    "generate": "paired image-mask volumes from a model",
    "evaluate": "judge a synthetic set against real data",
    "info": "what is this model, dataset, volume or report",
}
_UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
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
    try:
        import tyro

        command = getattr(import_module(f"pipelines.{verb}"), verb.capitalize())
        return tyro.cli(command, args=rest, prog=f"synth {verb}").run() or 0
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
        return _system(error)
    except Exception as error:
        return _fault(error)


def _system(error: OSError) -> int:
    """Say what the operating system refused: full disks and unusable paths are the user's to mend."""
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _say(f"the disk is full{place}; free room and run the same command again", BAD_INPUT)
    if error.filename and error.errno in _UNUSABLE:
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
