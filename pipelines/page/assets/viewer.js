// The viewer: NiiVue in gr.HTML. props.value says what to show (see Pair.view); the controls are this component's own.
const $ = (name) => element.querySelector(`[data-v="${name}"]`);
const state = { nv: null, canvas: null, value: null, drawn: 0 };

const ready = () =>
  new Promise((resolve, reject) => {
    let left = 400;
    const look = () =>
      window.niivue ? resolve(window.niivue) : left-- ? setTimeout(look, 50) : reject(new Error("viewer not loaded"));
    look();
  });

const attach = async () => {
  const canvas = element.querySelector("canvas");
  if (state.nv && state.canvas === canvas) return state.nv;
  const niivue = await ready();
  const nv = new niivue.Niivue({
    isRadiologicalConvention: true,
    multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS,
    multiplanarPadPixels: 24,
    dragMode: niivue.DRAG_MODE.windowing,
    logLevel: "error",
    loadingText: "",
    backColor: [0, 0, 0, 1],
    show3Dcrosshair: true,
    showAllOrientationMarkers: true,
    crosshairWidth: 0.4,
    crosshairColor: [1, 0.35, 0.3, 0.6],
    crosshairGap: 4,
    fontMinPx: 14,
    isSliceMM: false,
  });
  await nv.attachToCanvas(canvas, false);
  nv.setInterpolation(false);
  nv.onIntensityChange = () => levels();
  state.nv = nv;
  state.canvas = canvas;
  canvas.viewer = nv; // for scripts of a page around it, and tests
  canvas.place = () => {
    if (nv.volumes.length) trigger("select", { mm: Array.from(nv.frac2mm(nv.scene.crosshairPos)).slice(0, 3) });
  };
  canvas.addEventListener("mousedown", (event) => (state.down = [event.offsetX, event.offsetY]));
  // the press has moved the crosshair already; a drag, another button or the rendering place nothing
  canvas.addEventListener("click", (event) => {
    const [x, y] = [event.offsetX, event.offsetY];
    const still = state.down && Math.hypot(x - state.down[0], y - state.down[1]) < 4;
    const placing = canvas.closest("[data-placing='true']");
    if (placing && still && nv.inRenderTile(x * nv.uiData.dpr, y * nv.uiData.dpr) < 0) canvas.place();
  });
  return nv;
};

const layout = () => {
  const nv = state.nv;
  if (!nv) return;
  const kinds = {
    multi: nv.sliceTypeMultiplanar,
    axial: nv.sliceTypeAxial,
    coronal: nv.sliceTypeCoronal,
    sagittal: nv.sliceTypeSagittal,
    render: nv.sliceTypeRender,
  };
  nv.setSliceType(kinds[$("plane").value]);
};

const levels = () => {
  const shown = state.nv?.volumes[0];
  if (!shown) return;
  const [low, high] = [shown.cal_min, shown.cal_max];
  $("level").textContent = `W ${(high - low).toPrecision(3)} / L ${((high + low) / 2).toPrecision(3)}`;
};

const preset = () => {
  const shown = state.nv?.volumes[0];
  const ends = state.value?.windows[Number($("channel").value) || 0]?.[$("window").value];
  if (!shown || !ends) return;
  [shown.cal_min, shown.cal_max] = ends;
  state.nv.updateGLVolume();
  levels();
};

const shade = () => ($("mask").checked ? Number($("opacity").value) : 0);

const opacity = () => {
  if (state.nv?.volumes.length > 1) state.nv.setOpacity(1, shade());
};

const colours = (labels) => {
  const map = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["background"] };
  for (const one of [...labels].sort((a, b) => a.value - b.value)) {
    const off = $("legend").querySelector(`input[data-value="${one.value}"]`);
    ["R", "G", "B"].forEach((key, at) => map[key].push(one.colour[at]));
    map.A.push(off && !off.checked ? 0 : 255);
    map.I.push(one.value);
    map.labels.push(one.name);
  }
  return map;
};

const paint = () => {
  const mask = state.nv?.volumes[1];
  if (!mask) return;
  mask.setColormapLabel(colours(state.value.labels));
  state.nv.updateGLVolume();
};

const legend = (labels) => {
  const box = $("legend");
  box.replaceChildren();
  for (const one of labels) {
    const line = document.createElement("label");
    const tick = document.createElement("input");
    tick.type = "checkbox";
    tick.checked = true;
    tick.dataset.value = one.value;
    tick.addEventListener("change", paint);
    const spot = document.createElement("i");
    spot.style.background = `rgb(${one.colour.join(",")})`;
    line.append(tick, spot, document.createTextNode(`${one.name} ${one.ml} ml`));
    box.append(line);
  }
};

const options = (select, names) => {
  const before = select.value;
  select.replaceChildren(...names.map(([value, text]) => new Option(text, value)));
  if (names.some(([value]) => value === before)) select.value = before;
};

const load = async () => {
  const value = state.value;
  const nv = await attach();
  const channel = Math.min(Number($("channel").value) || 0, value.images.length - 1);
  const ends = value.windows[channel][$("window").value] ?? value.windows[channel].auto;
  const volumes = [{ url: value.images[channel], cal_min: ends[0], cal_max: ends[1], colormap: "gray" }];
  if (value.mask) volumes.push({ url: value.mask, opacity: shade() });
  const stem = value.case.replace(/_placed\d+$/, "");
  const kept = state.stem === stem && nv.volumes.length ? Array.from(nv.scene.crosshairPos) : null;
  layout(); // first: every draw of a rendering costs, most where there is no GPU
  await nv.loadVolumes(volumes);
  if (kept) nv.scene.crosshairPos = kept; // what was placed, or where another channel is looked at
  else centre(value);
  state.stem = stem;
  if (value.mask) paint();
  levels();
  state.drawn += 1;
  element.querySelector(".nv").dataset.drawn = state.drawn;
  element.querySelector(".nv").dataset.case = value.case;
};

// the crosshair begins at the smallest label that is there, so that a lesion is in view
const centre = (value) => {
  const nv = state.nv;
  const mask = nv.volumes[1];
  const there = value.labels.filter((one) => one.ml > 0).sort((a, b) => a.ml - b.ml)[0];
  if (!mask || !there) return;
  const [, nx, ny, nz] = mask.hdr.dims;
  const sums = [0, 0, 0];
  let count = 0;
  for (let at = 0; at < nx * ny * nz; at += 1) {
    if (mask.img[at] !== there.value) continue;
    [at % nx, Math.floor(at / nx) % ny, Math.floor(at / (nx * ny))].forEach((index, axis) => (sums[axis] += index));
    count += 1;
  }
  if (!count) return;
  const middle = [...sums.map((sum) => sum / count), 1];
  const mm = mask.hdr.affine.slice(0, 3).map((row) => row.reduce((sum, cell, at) => sum + cell * middle[at], 0));
  nv.scene.crosshairPos = nv.mm2frac(mm);
};

const draw = async () => {
  const value = props.value;
  const say = $("say");
  if (!value?.images) {
    if (state.nv && state.nv.volumes.length) await state.nv.loadVolumes([]);
    return;
  }
  if (JSON.stringify(value) === JSON.stringify(state.value) && state.canvas === element.querySelector("canvas")) return;
  state.value = value;
  try {
    options($("channel"), value.channels.map((name, at) => [String(at), name]));
    $("channel").parentElement.hidden = value.channels.length < 2;
    const at = Math.min(Number($("channel").value) || 0, value.channels.length - 1);
    options($("window"), Object.keys(value.windows[at]).map((name) => [name, name]));
    if (!$("window").value) $("window").value = "auto";
    legend(value.labels);
    $("maskbox").hidden = !value.mask;
    await load();
    say.textContent = "";
  } catch (error) {
    say.textContent = `the picture cannot be drawn (${error.message}); the files below can be downloaded all the same`;
  }
};

$("plane").addEventListener("change", layout);
$("window").addEventListener("change", preset);
$("channel").addEventListener("change", load);
$("mask").addEventListener("change", opacity);
$("opacity").addEventListener("input", opacity);
$("radiological").addEventListener("change", () => state.nv?.setRadiologicalConvention($("radiological").checked));
$("frame").addEventListener("keydown", (event) => {
  const nv = state.nv;
  const moves = {
    ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1], ArrowRight: [1, 0, 0], ArrowLeft: [-1, 0, 0],
    PageUp: [0, 1, 0], PageDown: [0, -1, 0],
  };
  if (event.key === "m") {
    $("mask").checked = !$("mask").checked;
    opacity();
  } else if (nv && moves[event.key]) {
    nv.moveCrosshairInVox(...moves[event.key]);
  } else return;
  event.preventDefault();
  event.stopPropagation();
}, true);

if (!window.synthKeys) {
  window.synthKeys = true;
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    const button = {
      g: "make", n: "next-seed", p: "previous-seed", l: "place-here", u: "undo-place",
    }[event.key];
    if (button && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) document.getElementById(button)?.click();
  });
}
watch("value", draw);
draw();
