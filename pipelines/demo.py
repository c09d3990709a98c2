"""synth demo: the page, where pairs are asked for, looked at and downloaded. The page itself is in pipelines/page/."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

LARGEST_PORT = 65_535
_WRITTEN_S, _AGAIN_S = 10.0, 0.02
"""How long after the end answers may still be written, and how often their folder is removed meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Serve a page that makes pairs with MODEL, or shows a generated folder, until it is interrupted."""

    model: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = None
    """A model folder, or the name of a bundled model; brain-tiny, or none where --gallery is given alone."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 lets other machines in."""
    port: int = 7860
    """Port to listen at."""
    root_path: str = ""
    """Path under which a proxy serves the page, such as /synth."""
    auth: str | None = None
    """user:password that visitors must give."""
    gallery: Path | None = None
    """A generated folder to browse, read-only; without MODEL nothing is generated."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:i; auto takes a GPU where there is one."""

    def run(self) -> int:
        """Serve until interrupted. Errors: ConfigError for options, a taken port, and a missing extra."""
        self._check()
        login = self._login()
        with own_folder("synth-demo-") as folder:
            from pipelines.page.serving import serve

            app, close = serve(self, folder, login)
            print(f"page at {app} (Ctrl-C ends it)", flush=True)
            try:
                _wait()
            except KeyboardInterrupt:
                print("page closed")
            finally:
                close()
        return 0

    def _check(self) -> None:
        from synth.errors import ConfigError, DataError

        if not 1 <= self.port <= LARGEST_PORT:
            raise ConfigError(f"--port is {self.port}; give 1 to {LARGEST_PORT}")
        if self.gallery is not None and not self.gallery.is_dir():
            raise DataError(f"--gallery {self.gallery} is not a folder; give a generated one")
        if self.root_path and not self.root_path.startswith(("/", "http://", "https://")):
            raise ConfigError(f"--root-path is {self.root_path!r}; write a path such as /synth")

    def _login(self) -> tuple[str, str] | None:
        """Return user and password. Errors: ConfigError unless both are there."""
        from synth.errors import ConfigError

        if self.auth is None:
            return None
        user, colon, password = self.auth.partition(":")
        if not (user and colon and password):
            raise ConfigError("--auth has no user and password; write user:password")
        return user, password


@contextmanager
def own_folder(prefix: str) -> Iterator[Path]:
    """Make a temporary folder and remove it at the end, though answers on their way still write to it.

    Raises OSError where it cannot be removed.
    """
    import shutil
    import tempfile
    import time

    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        end = time.monotonic() + _WRITTEN_S
        while folder.exists():
            late = time.monotonic() > end
            shutil.rmtree(folder, ignore_errors=not late)
            time.sleep(_AGAIN_S)


def _wait() -> None:
    """Sleep until a signal comes."""
    import threading

    threading.Event().wait()
