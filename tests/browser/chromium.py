"""Where Chromium is, how long it may take, and what a canvas of its page shows."""

import base64
import io
import shutil
from typing import Any

import numpy as np

CHROMIUM = next(
    (found for name in ("chromium-headless-shell", "chromium", "google-chrome") if (found := shutil.which(name))), None
)
WAIT_MS = 180_000  # a busy machine draws slowly


def pixels(page: Any, where: str) -> np.ndarray:
    """What the first canvas of `where` shows, read in the task that drew it: its buffer is gone after."""
    from PIL import Image

    read = "canvas => { canvas.viewer.drawScene(); return canvas.toDataURL('image/png').split(',')[1]; }"
    picture = page.locator(f"{where} canvas").first.evaluate(read)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")).astype(int)
