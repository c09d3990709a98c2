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
        from importlib.metadata import version

        print(f"synth {version('synthvol')}")
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
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _say(f"the disk is full ({error.filename}); free room and run the same command again", BAD_INPUT)
        return _fault(error)
    except Exception as error:
        return _fault(error)


def _fault(error: Exception) -> int:
    if os.environ.get("SYNTH_DEBUG"):
        raise error
    return _say(f"our fault: {type(error).__name__}: {error}; set SYNTH_DEBUG=1 for the traceback", OUR_FAULT)


def _say(text: str, code: int) -> int:
    print(f"synth: {text}", file=sys.stderr)
    return code


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
