"""What the page's widgets call: widget values to asks, pairs to widget values. Errors become one line on the page."""

import html
import secrets
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.page import downloads
from pipelines.page.studio import LARGEST_SEED, Ask, how

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.page.cases import Question
    from pipelines.page.gallery import Gallery
    from pipelines.page.pairs import Pair
    from pipelines.page.studio import Studio

HISTORY = 24
"""Pairs of a visitor that can be seen again."""


class Callbacks:
    """The callbacks of one page; a visitor's own state comes in and goes out with each call."""

    def __init__(self, studio: "Studio | None", gallery: "Gallery | None", *, uploads: Path, prefix: str = "") -> None:
        self.studio, self.gallery = studio, gallery
        self.uploads, self.prefix = uploads.resolve(), prefix
        self.ways = downloads.offered()

    def about(self) -> str:
        """Return in HTML what the model knows, or what folder is shown."""
        if self.studio is None:
            assert self.gallery is not None
            population = self.gallery.dataset.population or "not said"
            return f"A folder of {len(self.gallery.cases)} pairs; population: {html.escape(population)}."
        schema = self.studio.schema
        spacing = " x ".join(f"{size:g}" for size in schema.spacing_mm)
        grid = " x ".join(map(str, schema.grid))
        labels = ", ".join(label.name for label in schema.labels)
        name, rest = html.escape(self.studio.generator.model.recipe.name), html.escape(labels)
        said = f"{name} knows one population: <em>{html.escape(schema.population)}</em>; "
        return f"{said}{grid} voxels of {spacing} mm, {html.escape(', '.join(schema.channels))}; labels: {rest}."

    def example(self) -> str:
        """Return words that the model knows."""
        assert self.studio is not None
        known = self.studio.generator.model.recipe.image.conditioning.vocabulary
        return f"words it knows: {', '.join(known[:12])}"

    def chips(self, text: str | None) -> str:
        """Return each word of a text as a chip, known or not."""
        assert self.studio is not None
        chips = "".join(
            f"<span class='chip {'known' if known else 'unknown'}' "
            f"title='{'understood' if known else 'not understood'}'>{html.escape(word)}</span>"
            for word, known in self.studio.understood(text or "")
        )
        return f"<div class='chips'>{chips}</div>"

    def ask(self, text: str | None, mask: str | None, seed: Any, steps: Any, said: tuple[Any, ...]) -> Ask:
        """Return what the widgets say. Errors: DataError for a mask outside the uploads, ConfigError for numbers."""
        from synth.errors import DataError

        assert self.studio is not None
        attributes: dict[str, str | float] = {}
        values = iter(said)
        for attribute in self.studio.schema.attributes:
            value = next(values)
            if attribute.kind == "categorical":
                if value in attribute.levels:
                    attributes[attribute.name] = value
            elif (number := next(values)) is not None and value:
                attributes[attribute.name] = float(number)
        path = None
        if mask:
            path = Path(mask)
            if not path.resolve().is_relative_to(self.uploads):
                raise DataError(f"{path.name} is no upload of this page; upload it")
        default = self.studio.generator.model.image.part.steps
        return Ask(
            text=(text or "").strip() or None,
            attributes=attributes,
            mask=path,
            seed=_whole(seed, "the seed"),
            steps=None if steps is None or int(steps) == default else _whole(steps, "steps"),
        )

    def with_progress(self, gr: Any) -> "Callable[..., Any]":
        """Return `make` as gradio calls it, telling each step."""

        def make(history: list[Any], *values: Any, progress: Any = gr.Progress()) -> Any:  # noqa: B008 - its way
            return self.make(history, *values, tell=lambda share, words: progress(share, desc=words))

        return make

    def with_place(self, gr: Any) -> "Callable[..., Any]":
        """Return `place` as gradio calls it, the place that was clicked in its event, telling each step."""

        def place(
            history: Any,
            current: Any,
            label: Any,
            ml: Any,
            event: Any,
            progress: Any = gr.Progress(),  # noqa: B008
        ) -> Any:
            mm = getattr(event, "mm", None)
            return self.place(history, current, label, ml, mm, tell=lambda share, words: progress(share, desc=words))

        place.__annotations__["event"] = gr.EventData  # read by gradio, which does not see names of this scope
        return place

    def make(
        self,
        history: "list[Pair]",
        text: str | None,
        mask: str | None,
        seed: Any,
        steps: Any,
        *said: Any,
        tell: Any = None,
    ) -> tuple[Any, ...]:
        """Return fault, view, facts, command, Python, pair, history and its pictures."""
        studio = self.studio
        assert studio is not None
        return self._made(
            history, lambda: studio.make(self.ask(text, mask, seed, steps, said), tell or (lambda *_: None))
        )

    def place(
        self, history: "list[Pair]", current: "Pair | None", label: str, ml: Any, mm: Any, *, tell: Any = None
    ) -> tuple[Any, ...]:
        """Return what `make` does, of the current pair with a blob of `label` placed at `mm`."""
        from pipelines.page.placing import place

        studio = self.studio
        assert studio is not None
        if current is None:
            return self._made(history, "make a pair first, then click into it")
        spot = {"label": label, "ml": ml, "mm": mm}
        return self._made(history, lambda: place(studio, current, spot, tell or (lambda *_: None)))

    def undo(self, history: "list[Pair]", current: "Pair | None") -> tuple[Any, ...]:
        """Return fault, view, facts, command, Python and pair: of the pair before the last placement."""
        import gradio as gr

        ask = None if current is None else current.ask
        if ask is None or not ask.placed:
            return "nothing was placed in this pair", *(gr.skip() for _ in range(5))
        before = replace(ask, placed=ask.placed[:-1])
        there = [pair for pair in reversed(history) if pair.ask == before and pair.picture.is_file()]
        if not there:
            return "the pair before is no longer kept; make it again", *(gr.skip() for _ in range(5))
        return self._shown(there[0])

    def _made(self, history: "list[Pair]", make: "Callable[[], Pair] | str") -> tuple[Any, ...]:
        """Return what the page shows of a pair that is made now, or the fault (`make`, where that is known before)."""
        import gradio as gr

        made: list[Pair] = []
        fault = make if isinstance(make, str) else _caught(lambda: made.append(make()))
        if fault:
            return fault, *(gr.skip() for _ in range(7))
        history = [*history, made[0]][-HISTORY:]
        pictures = [(str(pair.picture), pair.case) for pair in reversed(history) if pair.picture.is_file()]
        return *self._shown(made[0]), history, pictures

    def again(self, history: "list[Pair]", index: int) -> tuple[Any, ...]:
        """Return what `make` shows, of a pair of the history; its newest is index 0."""
        import gradio as gr

        there = [pair for pair in reversed(history) if pair.picture.is_file()]
        if not 0 <= index < len(there):
            return "this pair is no longer kept; its seed makes it again", *(gr.skip() for _ in range(5))
        return self._shown(there[index])

    def _shown(self, pair: "Pair") -> tuple[Any, ...]:
        assert self.studio is not None and pair.ask is not None
        command, python = how(pair.ask, self.studio.name)
        return "", pair.view(self.prefix), facts_of(pair), command, python, pair

    def downloads(self, pair: "Pair | None") -> list[Any]:
        """Return the value of each download button; one that cannot be made stays off."""
        import gradio as gr

        out: list[Any] = []
        for name, way in self.ways.items():
            paths: list[Path] = []
            if pair is not None:
                _caught(lambda way=way, paths=paths: paths.append(way(pair)))
            out.append(gr.DownloadButton(name, value=str(paths[0]) if paths else None, interactive=bool(paths)))
        return out if len(out) > 1 else out[0]

    def next_case(self, state: "dict[str, Any] | None") -> tuple[Any, ...]:
        """Return state, question, choices, answer, verdict, reveal, view, fault: of a new case, its mask hidden."""
        import gradio as gr

        from pipelines.page.cases import questions

        found: list[tuple[Pair, list[Question]]] = []

        def make() -> None:
            pair = self._new_case()
            found.append((pair, questions(pair, self._levels())))

        fault = _caught(make)
        if fault:
            return *(gr.skip() for _ in range(7)), fault
        pair, asked = found[0]
        before = state or {"right": 0, "total": 0}
        state = {**before, "pair": pair, "questions": asked, "at": 0, "revealed": False}
        reveal = gr.Button("Reveal mask", interactive=pair.mask is not None)
        return *self._question(state, ""), reveal, pair.view(self.prefix, hidden=True), ""

    def answer(self, state: "dict[str, Any] | None", choice: str | None) -> tuple[Any, ...]:
        """Return state, question, choices, answer, verdict: the next question, and whether the answer was right."""
        import gradio as gr

        if not state or choice is None or state["at"] >= len(state["questions"]):
            return *(gr.skip() for _ in range(4)), "Choose an answer first."
        asked: Question = state["questions"][state["at"]]
        right = choice == asked.answer
        state = {**state, "at": state["at"] + 1, "right": state["right"] + right, "total": state["total"] + 1}
        said = "Right" if right else f"No, **{asked.answer}**"
        score = f"{state['right']} of {state['total']} right"
        return self._question(state, f"{said} ({asked.because}). *{asked.text}* {score}.")

    def reveal(self, state: "dict[str, Any] | None") -> tuple[Any, ...]:
        """Return state, button and view, with the mask shown where it was hidden and hidden where it was shown."""
        import gradio as gr

        if not state:
            return gr.skip(), gr.skip(), gr.skip()
        revealed = not state["revealed"]
        button = gr.Button("Hide mask" if revealed else "Reveal mask")
        return {**state, "revealed": revealed}, button, state["pair"].view(self.prefix, hidden=not revealed)

    def browse(self, name: str | None) -> tuple[Any, ...]:
        """Return fault, view and facts of a case of the gallery."""
        import gradio as gr

        assert self.gallery is not None
        if not name:
            return "", gr.skip(), ""
        gallery, found = self.gallery, []
        fault = _caught(lambda: found.append(gallery.show(name)))
        return (fault, gr.skip(), "") if fault else ("", found[0].view(self.prefix), facts_of(found[0]))

    def neighbour(self, name: str | None, move: int) -> str:
        """Return the case `move` places on, round the end."""
        assert self.gallery is not None
        cases = self.gallery.cases
        return cases[(cases.index(name) + move) % len(cases)] if name in cases else cases[0]

    def _question(self, state: dict[str, Any], verdict: str) -> tuple[Any, ...]:
        import gradio as gr

        asked = state["questions"]
        if state["at"] >= len(asked):
            said = "All answered: reveal the mask, or take the next case."
            return state, said, gr.Radio(visible=False), gr.Button(interactive=False), verdict
        one: Question = asked[state["at"]]
        text = f"**{state['at'] + 1} of {len(asked)}: {one.text}**"
        radio = gr.Radio(choices=list(one.choices), value=None, visible=True)
        return state, text, radio, gr.Button(interactive=True), verdict

    def _levels(self) -> dict[str, tuple[str, ...]]:
        if self.studio is None:
            return {}
        return {one.name: one.levels for one in self.studio.schema.attributes if one.kind == "categorical"}

    def _new_case(self) -> "Pair":
        """Return a pair nobody chose: of the model, attributes drawn by its seed, or of the folder."""
        from synth.rng import numpy_rng

        seed = secrets.randbelow(LARGEST_SEED)
        rng = numpy_rng(seed, "case")
        if self.studio is None:
            assert self.gallery is not None
            return self.gallery.show(self.gallery.cases[int(rng.integers(len(self.gallery.cases)))])
        drawn = {name: levels[int(rng.integers(len(levels)))] for name, levels in self._levels().items() if levels}
        return self.studio.make(Ask(attributes=drawn, seed=seed, steps=self.case_steps))

    case_steps: int | None = None
    """Steps of generated cases; the model's own otherwise."""


def facts_of(pair: "Pair") -> str:
    """Return in a line what the pair is: how it was made, and volumes measured on its mask."""
    said = pair.provenance
    made = f"seed {said['seed']}, {said['steps']} steps of {said['sampler']}, " if "sampler" in said else ""
    origin = f"mask {said['mask_origin']}; " if said.get("mask_origin") else ""
    volumes = ", ".join(f"{one.name} {one.ml:.1f} ml" for one in pair.legend)
    return f"{pair.case}: {made}{origin}{volumes}"


def number_of(seed: Any, move: int) -> int:
    """Return the seed `move` on, within what is taken.

    >>> number_of(4, 1), number_of(0, -1), number_of(None, 0)
    (5, 0, 0)
    """
    return min(max(int(seed or 0) + move, 0), LARGEST_SEED)


def _whole(value: Any, what: str) -> int:
    from synth.errors import ConfigError

    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{what} is {value!r}; give a whole number") from None


def _caught(act: "Callable[[], object]") -> str:
    """Run `act`; return what went wrong in one line of HTML, nothing where it went well."""
    from synth.errors import SynthError

    try:
        act()
    except SynthError as error:
        return html.escape(" ".join(str(error).split()))
    except Exception as error:  # a visitor gets one line, the log the kind of it
        print(f"synth: our fault: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return f"our fault: {type(error).__name__}; the server's log says more"
    return ""
