"""`python -m pipelines VERB`: the command line for launchers that begin modules, such as torchrun."""

import sys

from pipelines.cli import main

if __name__ == "__main__":
    sys.exit(main())
