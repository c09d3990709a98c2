"""The page as Gradio blocks: tabs, widgets and which callback each calls. What callbacks do is in `callbacks`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.page.callbacks import Callbacks, number_of
from pipelines.page.pictures import NOTICE
from pipelines.page.studio import LARGEST_SEED, MOST_STEPS

if TYPE_CHECKING:
    from pipelines.page.gallery import Gallery
    from pipelines.page.studio import Studio

ASSETS = Path(__file__).parent / "assets"
NOT_SAID = "not said"


def build(studio: "Studio | None", gallery: "Gallery | None", *, uploads: Path, prefix: str = "") -> Any:
    """Return the blocks. `uploads` is the one folder whose files may be given as masks; `prefix` comes before paths."""
    import gradio as gr

    calls = Callbacks(studio, gallery, uploads=uploads, prefix=prefix)
    with gr.Blocks(title="Synth", analytics_enabled=False, delete_cache=(3600, 7200)) as page:
        gr.HTML(f"<h1>Synth</h1><div class='notice'>{NOTICE}. {calls.about()}</div>")
        if studio is not None:
            with gr.Tab("Make", id="make-tab"):
                _make_tab(gr, calls)
        with gr.Tab("Cases", id="cases-tab"):
            _cases_tab(gr, calls)
        if gallery is not None:
            with gr.Tab("Gallery", id="gallery-tab"):
                _gallery_tab(gr, calls)
    page.queue(default_concurrency_limit=1, max_size=20)
    return page


def viewer(gr: Any, name: str) -> Any:
    """Return a NiiVue viewer whose value is what `Pair.view` says."""
    return gr.HTML(
        value={},
        html_template=(ASSETS / "viewer.html").read_text(),
        css_template=(ASSETS / "viewer.css").read_text(),
        js_on_load=(ASSETS / "viewer.js").read_text(),
        elem_id=name,
    )


def _make_tab(gr: Any, calls: Callbacks) -> None:
    studio = calls.studio
    assert studio is not None
    history, current = gr.State([]), gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            text = gr.Textbox(label="In words", placeholder=calls.example(), lines=2, visible=studio.reads_text)
            chips = gr.HTML("", elem_id="chips")
            said = [widget for attribute in studio.schema.attributes for widget in _widgets(gr, attribute)]
            mask = gr.File(
                label="Mask to follow (NIfTI, NRRD, MHA)" + ("" if studio.makes_masks else ", which this model needs"),
                type="filepath",
                visible=studio.follows_masks,
                elem_id="upload",
                height=150,
            )
            with gr.Row():
                seed = gr.Number(label="Seed", value=0, precision=0, minimum=0, maximum=LARGEST_SEED, min_width=90)
                steps = gr.Slider(
                    1, MOST_STEPS, value=studio.generator.model.image.part.steps, step=1, label="Steps", min_width=140
                )
            with gr.Row():
                previous = gr.Button("Previous (p)", elem_id="previous-seed", min_width=80, size="md")
                make = gr.Button("Make (g)", variant="primary", elem_id="make", min_width=80, size="md")
                following = gr.Button("Next (n)", elem_id="next-seed", min_width=80, size="md")
            fault = gr.HTML("", elem_id="fault", elem_classes="fault")
        with gr.Column(scale=5, min_width=320):
            shown = viewer(gr, "viewer")
            facts = gr.Markdown("", elem_id="facts")
            placing = _placing(gr, calls)
            with gr.Row():
                files = [gr.DownloadButton(way, interactive=False, min_width=90, size="sm") for way in calls.ways]
            made = gr.Gallery(
                label="Made here",
                columns=4,
                height=190,
                object_fit="contain",
                allow_preview=False,
                elem_id="history",
                show_label=True,
            )
    with gr.Accordion("How this was made", open=False):
        command = gr.Code(label="Command line", language="shell", interactive=False)
        python = gr.Code(label="Python", language="python", interactive=False)
    text.change(calls.chips, text, chips, show_progress="hidden", queue=False)
    asked = [history, text, mask, seed, steps, *said]
    shows = [fault, shown, facts, command, python, current]
    for button, move in ((make, 0), (following, 1), (previous, -1)):
        button.click(lambda seed, move=move: number_of(seed, move), seed, seed, show_progress="hidden").then(
            calls.with_progress(gr), asked, [*shows, history, made], show_progress_on=[shown]
        ).then(calls.downloads, current, files, show_progress="hidden")

    def chosen(pairs: list[Any], event: Any) -> Any:
        return calls.again(pairs, event.index)

    chosen.__annotations__["event"] = gr.SelectData  # read by gradio, which does not see names of this scope
    if placing is not None:
        _wire_placing(gr, calls, placing, shows, (history, made, files))
    made.select(chosen, history, shows).then(calls.downloads, current, files, show_progress="hidden")


def _placing(gr: Any, calls: Callbacks) -> tuple[Any, Any, Any] | None:
    """Return label, size and undo of placing by a click; None where the model has nothing to place."""
    from pipelines.page.placing import offered

    assert calls.studio is not None
    offer = offered(calls.studio)
    if offer is None:
        return None
    single = len(offer.labels) == 1
    with gr.Group(elem_id="placing"):
        with gr.Row():
            label = gr.Dropdown(
                list(offer.labels), value=offer.labels[0], label="Place", min_width=140, visible=not single
            )
            ml = gr.Slider(
                offer.low_ml,
                offer.high_ml,
                value=offer.first_ml,
                step=offer.low_ml / 2,
                label=f"Place a {offer.labels[0]}: its size in ml" if single else "Its size in ml",
                min_width=240,
                elem_id="place-ml",
            )
        with gr.Row():
            by_click = gr.Checkbox(label="a click in a slice places it", elem_id="place-by-click", min_width=220)
            here = gr.Button("Place at the crosshair (l)", elem_id="place-here", min_width=170, size="sm")
            undo = gr.Button("Undo (u)", elem_id="undo-place", min_width=90, size="sm")
    by_click.change(None, by_click, None, js="on => { document.getElementById('viewer').dataset.placing = on; }")
    here.click(None, None, None, js="() => { document.querySelector('#viewer canvas').place?.(); }")
    return label, ml, undo


def _wire_placing(gr: Any, calls: Callbacks, placing: Any, shows: list[Any], kept: tuple[Any, Any, Any]) -> None:
    """Let a place that the viewer tells make a pair anew, and undo show the one before; downloads follow."""
    (label, ml, undo), (_, shown, *_, current), (history, made, files) = placing, shows, kept
    placed = shown.select(
        calls.with_place(gr), [history, current, label, ml], [*shows, history, made], show_progress_on=[shown]
    )
    undone = undo.click(calls.undo, [history, current], shows, show_progress="hidden")
    for event in (placed, undone):
        event.then(calls.downloads, current, files, show_progress="hidden")


def _widgets(gr: Any, attribute: Any) -> list[Any]:
    """Return a dropdown for levels; for a number whether it is said, and a slider over what the model saw."""
    label = attribute.name.replace("_", " ")
    if attribute.kind == "categorical":
        return [gr.Dropdown([NOT_SAID, *attribute.levels], value=NOT_SAID, label=label)]
    whole = float(attribute.low).is_integer() and float(attribute.high).is_integer()
    said = gr.Checkbox(label=f"say {label}", value=False)
    ends = (attribute.low, attribute.high)
    slider = gr.Slider(*ends, value=ends[0], step=1 if whole else 0.001, label=label, show_label=False)
    return [said, slider]


def _cases_tab(gr: Any, calls: Callbacks) -> None:
    state = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            question = gr.Markdown("Press *Next case*; the mask stays hidden until you ask for it.", elem_id="question")
            choice = gr.Radio([], label="Your answer", elem_id="choice", visible=False)
            answer = gr.Button("Answer", elem_id="answer", interactive=False)
            verdict = gr.Markdown("", elem_id="verdict")
            reveal = gr.Button("Reveal mask", elem_id="reveal", interactive=False)
            following = gr.Button("Next case", variant="primary", elem_id="next-case")
            fault = gr.HTML("", elem_id="case-fault", elem_classes="fault")
        with gr.Column(scale=5, min_width=320):
            shown = viewer(gr, "case-viewer")
    shows = [state, question, choice, answer, verdict, reveal, shown, fault]
    following.click(calls.next_case, state, shows, show_progress_on=[shown])
    answer.click(calls.answer, [state, choice], [state, question, choice, answer, verdict], show_progress="hidden")
    reveal.click(calls.reveal, state, [state, reveal, shown], show_progress="hidden")


def _gallery_tab(gr: Any, calls: Callbacks) -> None:
    assert calls.gallery is not None
    with gr.Row():
        case = gr.Dropdown(calls.gallery.cases, value=None, label="Case", elem_id="case")
        previous, following = (
            gr.Button("Previous", elem_id="previous-case"),
            gr.Button("Next", elem_id="following-case"),
        )
    fault = gr.HTML("", elem_id="gallery-fault", elem_classes="fault")
    shown = viewer(gr, "gallery-viewer")
    facts = gr.Markdown("")
    case.change(calls.browse, case, [fault, shown, facts])
    for button, move in ((previous, -1), (following, 1)):
        button.click(lambda name, move=move: calls.neighbour(name, move), case, case, show_progress="hidden")
    with gr.Accordion("Report", open=False):
        gr.HTML(calls.gallery.report())
