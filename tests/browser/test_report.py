"""A report's volumes in a real browser, from the file itself: they draw, turn, and reach for nothing elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.interactive import Turned
from evaluation.report import Report
from pipelines.evaluate import viewer_source
from tests.browser.chromium import WAIT_MS, pixels
from tests.conftest import phantom

pytestmark = pytest.mark.slow


def test_volumes_of_a_report_draw_offline(browser: Any, tmp_path: Path) -> None:
    made = Report("phantoms", viewer=viewer_source())
    for number, grid in enumerate([(24, 20, 16), (20, 24)]):
        image, labels = phantom(number, grid)
        spacing = (2.0,) * len(grid)
        made.volumes.append(
            Turned.of(f"v{number}", image / 800, labels, labels=["shell", "core"], spacing_mm=spacing, inside=False)
        )
    made.write(tmp_path)
    context = browser.new_context(viewport={"width": 900, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    strange: list[str] = []
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else strange.append(r.url))
    page.on("pageerror", lambda error: strange.append(str(error)))
    page.goto((tmp_path / "index.html").as_uri())
    for number in range(2):
        where = f".turn:nth-of-type({number + 1})"
        page.locator(where).scroll_into_view_if_needed()
        page.wait_for_selector(f"{where}[data-drawn='1']")
        seen = pixels(page, where)
        assert (seen.max(axis=2) > 60).mean() > 0.02 and len(np.unique(seen.reshape(-1, 3), axis=0)) > 50
        assert ((seen.max(axis=2) - seen.min(axis=2)) > 40).mean() > 0.005  # the mask over it
        assert "SYNTHETIC - not for diagnosis" in page.inner_text(where)
    # letters of two planes side by side do not run together
    slices = "canvas => canvas.viewer.screenSlices.map((one) => Array.from(one.leftTopWidthHeight))"
    tiles = [tile for tile in page.locator(".turn canvas").first.evaluate(slices) if tile[2] > 0]
    assert len(tiles) == 3
    for left, right in ((one, two) for one in tiles for two in tiles if two[0] > one[0] + 1 and two[1] == one[1]):
        assert right[0] - (left[0] + left[2]) >= 20
    before = pixels(page, ".turn")
    page.locator("#shade").fill("0")
    page.wait_for_timeout(500)
    after = pixels(page, ".turn")
    assert ((after.max(axis=2) - after.min(axis=2)) > 40).mean() < (
        (before.max(axis=2) - before.min(axis=2)) > 40
    ).mean()
    context.close()
    assert strange == []
