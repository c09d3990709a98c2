"""The page on a port: uploads and files in one folder, nothing else served, no request to elsewhere."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.page.studio import LARGEST_UPLOAD_BYTES

if TYPE_CHECKING:
    from pipelines.demo import Demo


def serve(options: "Demo", folder: Path, login: tuple[str, str] | None) -> tuple[str, Callable[[], None]]:
    """Start the page; return its address and what ends it.

    Errors: ConfigError where gradio is missing or the port cannot be had; those of the model or the gallery.
    """
    from pipelines.machine import device_of

    uploads, files = folder / "uploads", folder / "files"
    for place in (uploads, files):
        place.mkdir()
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    gr = _gradio()
    from pipelines.page.app import ASSETS, build
    from pipelines.page.gallery import Gallery
    from pipelines.page.studio import Studio

    require_free(options.host, options.port)
    gallery = None if options.gallery is None else Gallery(options.gallery, files)
    model = options.model or (None if gallery else "brain-tiny")
    studio = None if model is None else Studio(model, files, device=str(device_of(options.device)))
    gr.set_static_paths([ASSETS])
    prefix = f"{options.root_path.rstrip('/')}/gradio_api/file="
    page = build(studio, gallery, uploads=uploads, prefix=prefix)
    # fonts of the system: gradio's own themes name fonts of the web
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    _, local, _ = page.launch(
        server_name=options.host,
        server_port=options.port,
        root_path=options.root_path or None,
        auth=login,
        allowed_paths=[str(files)],
        max_file_size=LARGEST_UPLOAD_BYTES,
        theme=theme,
        css=(ASSETS / "page.css").read_text(),
        head=f'<script src="{prefix}{ASSETS}/niivue.umd.js"></script>',
        prevent_thread_lock=True,
        ssr_mode=False,
        share=False,
        quiet=True,
        show_error=False,
        footer_links=[],
    )
    return local, lambda: page.close(verbose=False)


def require_free(host: str, port: int) -> None:
    """Errors: ConfigError where the port is taken or the address is none of this machine's."""
    import errno

    from synth.errors import ConfigError

    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"--port {port} is taken; give another") from None
        raise ConfigError(f"--host {host} --port {port} cannot be used ({error.strerror or error})") from None


def _gradio():  # noqa: ANN202 - a module
    """Return gradio. Errors: ConfigError that says how to get it."""
    from synth.errors import ConfigError

    try:
        import gradio
    except ImportError as error:
        raise ConfigError(f"the page needs gradio ({error}); pip install 'synthvol[demo]'") from error
    return gradio
