"""Volumes that a report's reader can turn: bytes for a viewer and the HTML around it. Knows no evidence and no verdict.

The viewer is NiiVue, whose source is handed over as text: nothing is fetched, volumes are in the page as base64.
"""

import base64
import gzip
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.pictures import COLOURS
from synth.nifti import encode

NOTICE = "SYNTHETIC - not for diagnosis"
MOST = 12
"""Canvases of a page: browsers drop the oldest beyond about sixteen."""
LARGEST_BYTES = 32 << 20
"""Of all volumes of a page, as they stand in it; more makes browsers stall."""
_TOP = 1.05
_DESCRIPTION = slice(148, 228)


@dataclass(frozen=True, eq=False)
class Turned:
    """One pair as a viewer takes it: image and mask as base64 of .nii.gz; `inside` for eyes inside the house alone.

    at   mm where the viewer begins: a voxel of the rarest label
    """

    caption: str
    image: str
    mask: str
    labels: tuple[str, ...]
    at: tuple[float, ...]
    flat: bool
    inside: bool

    @classmethod
    def of(
        cls,
        caption: str,
        image: np.ndarray,
        mask: np.ndarray,
        *,
        labels: Sequence[str],
        spacing_mm: Sequence[float],
        inside: bool,
    ) -> "Turned":
        """Return a mapped image (*grid) and labels (*grid) 0..K for a viewer, in 8 bits, grey from 0 to 1.05."""
        grey = np.rint(np.clip(image / _TOP, 0.0, 1.0) * 255).astype(np.uint8)
        spacing = [*spacing_mm, *[1.0] * 3][:3] if len(spacing_mm) == mask.ndim else [1.0] * 3
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = [-step * (n - 1) / 2 for step, n in zip(spacing, (*mask.shape, 1))]
        at = affine @ [*[*_centre(mask), 0][:3], 1.0]
        return cls(
            caption,
            _packed(grey, affine),
            _packed(mask.astype(np.uint8), affine),
            tuple(labels),
            at=tuple(at[:3].tolist()),
            flat=mask.ndim == 2,
            inside=inside,
        )

    @property
    def size(self) -> int:
        """Bytes in a page."""
        return len(self.image) + len(self.mask)


def fitting(volumes: Sequence[Turned]) -> list[Turned]:
    """Return the first volumes that a page holds together."""
    sizes = np.cumsum([one.size for one in volumes])
    return [one for one, total in zip(volumes, sizes, strict=True) if total <= LARGEST_BYTES]


def section(volumes: Sequence[Turned], viewer: str) -> str:
    """Return the HTML of volumes to turn, with the viewer's source in it; nothing where either is missing."""
    if not volumes or not viewer:
        return ""
    shown = fitting(volumes)
    left = len(volumes) - len(shown)
    more = f" {left} more are left out: a page holds {LARGEST_BYTES >> 20} MiB of volumes." if left else ""
    figures = "".join(_figure(one) for one in shown)
    script = viewer.replace("</script", "<\\/script")
    return (
        f'<section id="volumes"><h2>Volumes to turn</h2><p>Wheel: slices; left: crosshair; right drag: window.{more}'
        '</p><p><label>mask <input type="range" id="shade" min="0" max="1" step="0.05" value="0.35"></label></p>'
        f"<style>{_STYLE}</style>{figures}<noscript>The viewer needs JavaScript.</noscript>"
        f"<script>{script}</script><script>{_SCRIPT}</script></section>"
    )


def _figure(one: Turned) -> str:
    told = {"image": one.image, "mask": one.mask, "at": one.at, "flat": one.flat, "colours": _colours(one.labels)}
    legend = "".join(
        f'<i style="background:rgb{COLOURS[number % len(COLOURS)]}"></i>{html.escape(name)} '
        for number, name in enumerate(one.labels)
    )
    return (
        f'<figure class="turn"><div><canvas aria-label="{html.escape(one.caption)}"></canvas><b>{NOTICE}</b></div>'
        f"<figcaption>{html.escape(one.caption)}<br>{legend}</figcaption>"
        f'<script type="application/json">{json.dumps(told)}</script></figure>'
    )


def _centre(mask: np.ndarray) -> list[int]:
    """Return along each axis the plane that shows most of the rarest label; the middle of a mask without labels."""
    counts = np.bincount(mask.ravel())
    there = [value for value in range(1, len(counts)) if counts[value]]
    if not there:
        return [n // 2 for n in mask.shape]
    rarest = mask == min(there, key=lambda value: counts[value])
    others = [tuple(axis for axis in range(mask.ndim) if axis != own) for own in range(mask.ndim)]
    return [int(rarest.sum(axis=axes).argmax()) for axes in others]


def _colours(labels: Sequence[str]) -> dict[str, list[object]]:
    """Return the viewer's table of label colours, background unseen."""
    shades = [(0, 0, 0), *(COLOURS[number % len(COLOURS)] for number in range(len(labels)))]
    columns: dict[str, list[object]] = {key: [shade[at] for shade in shades] for at, key in enumerate("RGB")}
    alpha: list[object] = [0, *[255] * len(labels)]
    return {**columns, "A": alpha, "I": list(range(len(shades))), "labels": ["background", *map(html.escape, labels)]}


def _packed(data: np.ndarray, affine: np.ndarray) -> str:
    """Return base64 of (*grid) as .nii.gz that says it is synthetic; equal voxels give equal text."""
    solid = data[None] if data.ndim == 3 else data[None, ..., None]
    raw = bytearray(b"".join(encode(solid, affine, Path("volume.nii"), packed=False)))
    raw[_DESCRIPTION] = NOTICE.encode().ljust(80, b"\0")
    return base64.b64encode(gzip.compress(bytes(raw), compresslevel=6, mtime=0)).decode()


_STYLE = """.turn div{position:relative;height:min(60vh,440px);background:#000;border-radius:.3rem;overflow:hidden}
.turn canvas{width:100%;height:100%;display:block}.turn b{position:absolute;left:8px;bottom:6px;color:#ffb48a;
font-size:12px;pointer-events:none}
.turn i{display:inline-block;width:.8em;height:.8em;border-radius:.2em;margin:0 .4em}"""
_SCRIPT = """
const shade = document.getElementById("shade"), viewers = [];
const show = async (figure) => {
  const told = JSON.parse(figure.querySelector("script").textContent), canvas = figure.querySelector("canvas");
  try {
    const nv = new niivue.Niivue({ isRadiologicalConvention: !told.flat, showAllOrientationMarkers: !told.flat,
      isOrientationTextVisible: !told.flat, dragMode: niivue.DRAG_MODE.windowing, logLevel: "error", loadingText: "",
      multiplanarShowRender: niivue.SHOW_RENDER.NEVER, multiplanarPadPixels: 24, backColor: [0, 0, 0, 1],
      crosshairWidth: 0.4, crosshairColor: [1, 0.35, 0.3, 0.6], crosshairGap: 4 });
    await nv.attachToCanvas(canvas, false);
    nv.setInterpolation(false);
    nv.setSliceType(told.flat ? nv.sliceTypeAxial : nv.sliceTypeMultiplanar);
    const load = (base64, name, more) => niivue.NVImage.loadFromBase64({ base64, name, ...more });
    nv.addVolume(await load(told.image, "image.nii.gz", { colormap: "gray", cal_min: 0, cal_max: 255 }));
    const mask = await load(told.mask, "mask.nii.gz", { opacity: Number(shade.value) });
    nv.addVolume(mask);
    mask.setColormapLabel(told.colours);
    nv.scene.crosshairPos = nv.mm2frac(told.at);
    nv.updateGLVolume();
    viewers.push(nv);
    canvas.viewer = nv;
    figure.dataset.drawn = "1";
  } catch (error) {
    figure.querySelector("figcaption").append(` (cannot be drawn here: ${error.message})`);
  }
};
const seen = new IntersectionObserver((entries) => entries.filter((one) => one.isIntersecting).forEach((one) => {
  seen.unobserve(one.target);
  show(one.target);
}), { rootMargin: "200px" });
document.querySelectorAll(".turn").forEach((figure) => seen.observe(figure));
shade.addEventListener("input", () => viewers.forEach((nv) => nv.setOpacity(1, Number(shade.value))));
"""
