"""The page in a real browser: it draws, asks, refuses, teaches and downloads, and reaches for nothing elsewhere."""

import os
import re
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser.chromium import WAIT_MS, pixels

ROOT = Path(__file__).parents[2]
pytest.importorskip("gradio", reason="the page's extra is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(lesion_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page of the tiny model, served by the command."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    log = tmp_path_factory.mktemp("page") / "log"
    command = [sys.executable, "-m", "pipelines", "demo", str(lesion_model), "--port", str(port)]
    with log.open("w") as file:
        server = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    try:
        until = time.monotonic() + 300
        while "page at" not in log.read_text():
            assert server.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A fresh visit. Requests to elsewhere and errors of scripts fail the test."""
    size = getattr(request, "param", {"width": 900, "height": 760})
    context = browser.new_context(viewport=size, reduced_motion="reduce", accept_downloads=True)
    one = context.new_page()
    one.set_default_timeout(WAIT_MS)
    strange: list[str] = []
    one.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else strange.append(r.url))
    one.on("pageerror", lambda error: strange.append(str(error)))
    one.goto(address)
    one.wait_for_selector("#make")
    yield one
    context.close()
    assert strange == []


def made(page: Any, button: str = "#make", times: int = 1) -> np.ndarray:
    """Press the button and wait for the picture."""
    page.click(button)
    page.wait_for_selector(f"#viewer .nv[data-drawn='{times}']")
    return pixels(page, "#viewer")


def test_a_pair_is_made_drawn_and_another_seed_is_another(page: Any) -> None:
    assert "SYNTHETIC - not for diagnosis" in page.inner_text("body")
    assert "knows one population: source" in page.inner_text("body")
    page.get_by_label("In words").fill("a round wobble")
    page.wait_for_selector(".chip.known >> text=round")
    assert page.inner_text(".chip.unknown") == "wobble"
    first = made(page)
    bright = first.max(axis=2) > 60
    assert bright.mean() > 0.02 and len(np.unique(first.reshape(-1, 3), axis=0)) > 50  # pixels, not an empty canvas
    coloured = (first.max(axis=2) - first.min(axis=2)) > 40
    assert coloured.mean() > 0.005  # the mask over it
    page.locator("#viewer [data-v=mask]").uncheck()
    page.wait_for_timeout(500)
    hidden = pixels(page, "#viewer")
    assert ((hidden.max(axis=2) - hidden.min(axis=2)) > 40).mean() < coloured.mean()
    page.locator("#viewer [data-v=mask]").check()
    second = made(page, "#next-seed", 2)
    assert np.abs(second - first).mean() > 0.5
    assert page.locator("#viewer .nv").get_attribute("data-case") == "syn_00000_seed1"
    page.select_option("#viewer [data-v=plane]", "axial")
    page.wait_for_timeout(500)
    before = pixels(page, "#viewer")
    page.locator("#viewer [data-v=radiological]").uncheck()
    page.wait_for_timeout(500)
    assert np.abs(pixels(page, "#viewer") - before).mean() > 0.5  # the other side is left


def test_keys_make_and_move(page: Any) -> None:
    page.locator("h1").click()
    page.keyboard.press("n")
    page.wait_for_selector("#viewer .nv[data-drawn='1']")
    before = pixels(page, "#viewer")
    page.locator("#viewer .nv-frame").focus()
    for _ in range(2):
        page.keyboard.press("ArrowUp")
    page.wait_for_timeout(500)
    assert np.abs(pixels(page, "#viewer") - before).mean() > 0.05
    page.keyboard.press("m")
    assert not page.locator("#viewer [data-v=mask]").is_checked()


def test_uploads_good_and_bad(page: Any, dataset: Path, tmp_path: Path) -> None:
    bad = tmp_path / "not_a_volume.nii.gz"
    bad.write_bytes(b"hello")
    page.set_input_files("#upload input[type=file]", str(bad))
    page.wait_for_selector("#upload >> text=not_a_volume")
    page.click("#make")
    page.wait_for_selector("#fault >> text=not_a_volume.nii.gz")
    told = page.inner_text("#fault")
    assert "\n" not in told.strip() and "/" not in told
    assert page.locator("#viewer .nv[data-drawn]").count() == 0
    page.get_by_label(re.compile("clear|remove", re.IGNORECASE)).first.click()
    page.set_input_files("#upload input[type=file]", str(dataset / "labelsTr" / "c00.nii.gz"))
    page.wait_for_selector("#upload >> text=c00")
    made(page)
    assert "mask given" in page.inner_text("#facts") and page.inner_text("#fault").strip() == ""


def test_a_lesion_is_placed_by_a_click_and_undone(page: Any, dataset: Path) -> None:
    page.set_input_files("#upload input[type=file]", str(dataset / "labelsTr" / "c00.nii.gz"))
    page.wait_for_selector("#upload >> text=c00")
    page.select_option("#viewer [data-v=plane]", "axial")
    made(page)
    # a voxel of the shell half way between the core and the border, in the slice that is shown
    spot = page.locator("#viewer canvas").evaluate(
        """canvas => {
          const nv = canvas.viewer, mask = nv.volumes[1], { dpr } = nv.uiData;
          for (let x = 0; x < canvas.width; x += 4) for (let y = 0; y < canvas.height; y += 4) {
            const tile = nv.tileIndex(x, y);
            const frac = tile < 0 ? [-1] : nv.screenXY2TextureFrac(x, y, tile, false);
            if (frac[0] < 0) continue;
            const voxel = nv.frac2vox(frac);
            if (mask.getValue(...voxel) === 3) return [x / dpr, y / dpr];
          }
        }"""
    )
    canvas, where = page.locator("#viewer canvas"), {"x": spot[0], "y": spot[1]}
    canvas.click(position=where)
    page.wait_for_timeout(1000)
    assert page.locator("#viewer .nv").get_attribute("data-case") == "syn_00000_seed0"  # a plain click moves, no more
    page.locator("#place-by-click input").check()
    canvas.click(position=where)
    page.wait_for_selector("#viewer .nv[data-case='syn_00000_seed0_placed1']")
    assert page.inner_text("#fault").strip() == ""
    after = pixels(page, "#viewer")
    page.click("#undo-place")
    page.wait_for_selector("#viewer .nv[data-case='syn_00000_seed0']")
    assert np.abs(after - pixels(page, "#viewer")).mean() > 0.05
    page.locator("h1").click()
    page.keyboard.press("l")  # at the crosshair, which stays where it was clicked
    page.wait_for_selector("#viewer .nv[data-case='syn_00000_seed0_placed1']")


def test_a_case_is_asked_answered_and_revealed(page: Any) -> None:
    page.get_by_role("tab", name="Cases").click()
    page.click("#next-case")
    page.wait_for_selector("#case-viewer .nv[data-drawn='1']")
    page.wait_for_selector("#question >> text=1 of")
    assert page.locator("#case-viewer [data-v=legend] label").count() == 0
    before = pixels(page, "#case-viewer")
    page.locator("#choice input").first.check()
    page.click("#answer")
    page.wait_for_selector("#verdict >> text=of 1 right")
    page.click("#reveal")
    page.wait_for_selector("#case-viewer .nv[data-drawn='2']")
    assert page.locator("#case-viewer [data-v=legend] label").count() == 2
    assert np.abs(pixels(page, "#case-viewer") - before).mean() > 0.2


def test_downloads_say_synthetic(page: Any) -> None:
    made(page)
    button = page.get_by_role("button", name="nnU-Net")
    page.wait_for_function(
        "[...document.querySelectorAll('button')].some(b => b.innerText == 'nnU-Net' && !b.disabled)"
    )
    with page.expect_download(timeout=WAIT_MS) as coming:
        button.click()
    path = coming.value.path()
    assert "SYNTHETIC" in coming.value.suggested_filename
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert "NOTICE.txt" in names and "Dataset900_SYNTHETIC/dataset.json" in names


@pytest.mark.parametrize("page", [{"width": 380, "height": 780}], indirect=True)
def test_a_phone_shows_all_of_it(page: Any) -> None:
    made(page)
    wide = page.evaluate(
        "[...document.querySelectorAll('#viewer, #make, #viewer canvas')].map(e => e.getBoundingClientRect().right)"
    )
    assert max(wide) <= 381 and page.evaluate("document.documentElement.scrollWidth") <= 381


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", f"{ROOT}/pyproject.toml"]
)
def test_no_file_but_its_own_is_served(address: str, path: str) -> None:
    import urllib.error
    import urllib.request

    for route in ("gradio_api/file=", "file=", "static/", "assets/"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}{route}{path}", timeout=60)
        assert refused.value.code in (403, 404, 405)
