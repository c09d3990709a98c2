"""Fine-tuning: a trained model and new data, brought together by name.

The model's labels, attributes, levels and words come first and keep their numbers and their meaning; what is new to it
starts as if it had not been said, so that training begins with the model's own answers. Its codecs are kept with their
whitening, since the flow was trained on their latents; one is trained on only where the data has labels that it has no
channel for, or `codec_training.tune` says so, and keeps the whitening even then. Knows no loop and no file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from synth import config
from synth.checkpoint import fingerprint, tensors_of
from synth.codec.config import AutoencoderConfig, CodecConfig, OneHotConfig
from synth.codec.onehot import OneHot
from synth.conditioning.config import vocabulary
from synth.data.intensity import IntensityMap, Window
from synth.data.preparation import LARGEST_LABEL
from synth.data.prepared import Prepared
from synth.data.schema import Attribute, Schema
from synth.data.seen import Seen, require_unseen
from synth.errors import ConfigError
from synth.model import Model, PartModel, build_part
from synth.recipe import Part, Recipe
from synth.training.codec_stage import PartName
from synth.volume import Label

_FREE = ("kl", "gradient", "balance", "checkpoint", "weight_cap", "location", "scale", "shift")
"""Fields of the networks' sections that decide how they are trained, not what they are: a process's `location`, `scale`
and `shift` say which noise it visits how often, and what a denoiser has to answer at each stays the same."""
_CONDITIONING = ("mask_width", "width", "text_length", "position", "geometry", "text_encoder")
_AFTER = ", after "
_MEND = "take another --from, or prepare other splits"


@dataclass(frozen=True, eq=False)
class Origin:
    """The model that a run starts from, and its data in the terms of both: labels renumbered, CT in the model's window.

    notes   what a user should know of how the two fit
    """

    model: Model
    prepared: Prepared
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Model, prepared: Prepared) -> "Origin":
        """Match `prepared`, at its fold where it has one, to `model`.

        Errors: ConfigError where dimensions, channels, intensities, kinds of attributes or labels do not fit; DataError
        where the model saw patients that the data holds back.
        """
        known, own = _schema(model), prepared.schema
        if len(known.grid) != len(own.grid):
            raise ConfigError(f"the model is {len(known.grid)}D, the data {len(own.grid)}D; take another --from")
        _require_channels(known, own)
        if bool(known.labels) != bool(own.labels):
            who = ("the model", "the data") if own.labels else ("the data", "the model")
            raise ConfigError(f"{who[0]} has no labels, {who[1]} has; take another --from, or train without")
        if model.seen is not None:
            held = [*prepared.split("val"), *prepared.split("test")]
            require_unseen(prepared, held, model.seen, mend=_MEND)
            trained = model.seen.trained()  # the source's own hold-out may be this run's
            require_unseen(prepared, prepared.split("holdout"), trained, mend=_MEND)
        schema = joined(model, own)
        return cls(model, prepared.read_as(schema), tuple(_notes(model, own, schema)))

    def complete(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the model's conditions and the data's filled in.

        Errors: ConfigError naming the field where its networks are not the model's.
        """
        source = self.model.recipe
        if recipe.mask is None and source.mask is not None:
            raise ConfigError("mask is missing in the config, the model has one; add it, or give `same` as CONFIG")
        if recipe.mask is not None and source.mask is None:
            raise ConfigError("the model has no mask part; remove `mask` from the config, or give `same` as CONFIG")
        mask = None
        if recipe.mask is not None and source.mask is not None:
            mask = replace(self._completed("mask", recipe.mask, source.mask), texture=False)
        image = self._completed("image", recipe.image, source.image)
        return replace(recipe, image=image, mask=mask, schema=self.prepared.schema)

    def part(self, name: PartName, part: Part) -> PartModel:
        """Return the modules of a completed part with the model's weights; what is new starts as if not said."""
        made, known = build_part(part), self.model.parts()[name]
        if isinstance(made.codec, OneHot):
            assert isinstance(known.codec, OneHot)
            made.codec.start_from(known.codec)
        else:
            made.codec.load_state_dict(known.codec.state_dict())
        made.codec.eval()
        made.flow.conditioner.start_from(known.flow.conditioner)
        made.flow.denoiser.load_state_dict(known.flow.denoiser.state_dict())
        return made

    def tunes(self, name: PartName, part: Part) -> bool:
        """True where the codec of a completed part is trained on. Errors: ConfigError where it cannot be."""
        known = self.model.parts()[name].codec
        grows = isinstance(part.codec, OneHotConfig) and isinstance(known, OneHot) and part.codec.labels > known.labels
        if part.codec_training.tune and not known.trained:
            raise ConfigError(f"{name}.codec_training.tune: the model's codec is none that is trained; leave it out")
        return grows or part.codec_training.tune

    def tuned(self, recipe: Recipe) -> list[PartName]:
        """Return the parts of a completed recipe whose codecs are trained on."""
        parts: list[tuple[PartName, Part | None]] = [("image", recipe.image), ("mask", recipe.mask)]
        return [name for name, part in parts if part is not None and self.tunes(name, part)]

    def seen(self, own: Seen) -> Seen:
        """Return whom the fine-tuned model saw: `own` of this run, and whom the model saw before."""
        return own.after(self.model.seen, self.name)

    @property
    def name(self) -> str:
        """Name and start of the sha256 of the model."""
        return f"{self.model.recipe.name} ({self.sha256[:12]})"

    @property
    def sha256(self) -> str:
        """The sha256 of the model."""
        return self.model.sha256 or fingerprint(tensors_of(self.model), config.dump(self.model.recipe))

    def _completed(self, name: str, part: Part, known: Part) -> Part:
        schema, given, own = self.prepared.schema, part.conditioning, known.conditioning
        count = len(schema.labels) + 1
        codec = _with_labels(part.codec, count)
        _require_same(f"{name}.codec", codec, _with_labels(known.codec, count))
        if isinstance(codec, OneHotConfig) and codec.labels != count:
            raise ConfigError(
                f"{name}.codec of the model, {codec.inner.kind}, has no room for labels that are new to it: "
                f"{', '.join(label.name for label in schema.labels[codec.labels - 1 :])}; train without --from"
            )
        for section in ("process", "backbone"):
            _require_same(f"{name}.{section}", getattr(part, section), getattr(known, section))
        here, there = ({field: getattr(one, field) for field in _CONDITIONING} for one in (given, own))
        _require_same(f"{name}.conditioning", here, there)
        said = vocabulary((case.patient, case.text) for case in self.prepared.split("train"))
        conditioning = replace(
            given,
            labels=count if own.labels else 0,
            stride=own.stride,
            attributes=_read(own.attributes, schema.attributes),
            vocabulary=(*own.vocabulary, *(word for word in said if word not in own.vocabulary))
            if own.vocabulary
            else (),
            text_sha256=own.text_sha256,
            text_features=own.text_features,
        )
        training = part.training if part.training.fit.steps else known.training  # how a kept one was trained
        return replace(part, codec=codec, conditioning=conditioning, training=training)


def kept(recipe: Recipe) -> list[PartName]:
    """Return the parts whose generators are to stay as the model to start from has them: no step is asked of them.

    >>> from synth.recipe import FlowTraining
    >>> from synth.training.config import FitConfig
    >>> still = FlowTraining(fit=FitConfig(steps=0))
    >>> kept(Recipe(name="masks-anew", image=Part(training=still), mask=Part()))
    ['image']
    """
    parts: list[tuple[PartName, Part | None]] = [("image", recipe.image), ("mask", recipe.mask)]
    return [name for name, part in parts if part is not None and not part.training.fit.steps]


def continued(recipe: Recipe) -> Recipe:
    """Return a model's recipe for fine-tuning it: under a name of its own.

    >>> continued(Recipe(name="brain-tiny")).name
    'brain-tiny-tuned'
    """
    name = recipe.name if recipe.name.endswith("-tuned") else f"{recipe.name}-tuned"
    return replace(recipe, name=name, description=f"{recipe.name}, fine-tuned.", schema=None)


def joined(model: Model, own: Schema) -> Schema:
    """Return the schema of a fine-tuned model: the data's geometry and units, the names of both, the model's first.

    A number may be asked for in the range of both. Labels of the data keep the data's values; others keep theirs where
    those are free. CT stays in the window that the model sees.
    """
    known = _schema(model)
    conditioning = model.image.part.conditioning
    attributes = _asked(known.attributes, own.attributes) if conditioning.attributes else known.attributes
    since, before = own.population, known.population
    maps = zip(known.intensities, own.intensities, strict=True)
    return replace(
        own,
        population=before if before.split(_AFTER)[0] == since else f"{since}{_AFTER}{before}",
        labels=_labels(known.labels, own.labels),
        attributes=attributes,
        intensities=tuple(there if isinstance(there, Window) else here for there, here in maps),
        texts=bool(conditioning.vocabulary) and (own.texts or known.texts),
    )


def _schema(model: Model) -> Schema:
    schema = model.recipe.schema
    assert schema is not None, "a trained model carries its schema"
    return schema


def _require_channels(known: Schema, own: Schema) -> None:
    """Errors: ConfigError where channels differ in number, order or in how their intensities are mapped."""
    if len(known.channels) != len(own.channels):
        raise ConfigError(
            f"the model has {len(known.channels)} channels ({', '.join(known.channels)}), the data {len(own.channels)} "
            f"({', '.join(own.channels)}); prepare the same ones, or take another --from"
        )
    if known.channels != own.channels and set(known.channels) == set(own.channels):
        raise ConfigError(
            f"the data's channels are {', '.join(own.channels)}, the model's are {', '.join(known.channels)}; "
            "prepare them in the model's order"
        )
    for name, there, here in zip(own.channels, known.intensities, own.intensities, strict=True):
        if _law(there) != _law(here):
            raise ConfigError(
                f"channel {name!r}: the model maps intensities by {_law(there)}, the data by {_law(here)}; "
                "take a --from of the same modality"
            )


def _law(rule: IntensityMap) -> str:
    return "a window in HU" if isinstance(rule, Window) else f"percentiles {rule.low_share:g} to {rule.high_share:g}"


def _labels(known: tuple[Label, ...], own: tuple[Label, ...]) -> tuple[Label, ...]:
    """Return the labels of both, the model's first; the data's values win."""
    data = {label.name: label for label in own}
    taken = {label.value for label in own}
    out: list[Label] = []
    for label in known:
        if label.name not in data and label.value in taken:
            free = next(v for v in range(1, 2 + len(taken) + len(known)) if v not in taken | {k.value for k in known})
            label = replace(label, value=free)
        out.append(data.get(label.name, label))
        taken.add(out[-1].value)
    names = {label.name for label in known}
    out += [label for label in own if label.name not in names]
    if len(out) > LARGEST_LABEL:
        raise ConfigError(f"model and data have {len(out)} labels together, masks hold {LARGEST_LABEL}; merge some")
    return tuple(out)


def _asked(known: tuple[Attribute, ...], own: tuple[Attribute, ...]) -> tuple[Attribute, ...]:
    """Return the attributes of both as they may be asked for. Errors: ConfigError where one is of two kinds."""
    data, out = {attribute.name: attribute for attribute in own}, []
    for there in known:
        here = data.pop(there.name, there)
        if here.kind != there.kind:
            raise ConfigError(
                f"attribute {there.name!r} is {here.kind} in the data, {there.kind} in the model; rename or mend it"
            )
        levels = (*there.levels, *(level for level in here.levels if level not in there.levels))
        out.append(replace(there, levels=levels, low=min(there.low, here.low), high=max(there.high, here.high)))
    return (*out, *data.values())


def _read(known: tuple[Attribute, ...], asked: tuple[Attribute, ...]) -> tuple[Attribute, ...]:
    """Return the attributes as the network reads them: a number keeps the scale on which the model learned it.

    Where the model saw a single value, which is -1 to it, the scale ends at the farthest that may be asked.
    """
    if not known:
        return ()
    all_of = {attribute.name: attribute for attribute in asked}
    out: list[Attribute] = []
    for own in known:
        wide = all_of.pop(own.name)
        reach = max(wide.high - own.low, own.low - wide.low)
        high = own.low + reach if own.kind == "number" and own.high <= own.low else own.high
        out.append(replace(own, levels=wide.levels, high=high))
    return (*out, *all_of.values())


def _with_labels(codec: CodecConfig, labels: int) -> CodecConfig:
    if not isinstance(codec, OneHotConfig):
        return codec
    inner = codec.inner
    grown = replace(inner, in_channels=labels) if isinstance(inner, AutoencoderConfig) else inner
    return replace(codec, labels=labels, inner=grown) if grown.in_channels == labels else codec


def _require_same(place: str, given: Any, known: Any) -> None:
    """Errors: ConfigError naming the first field that is not the model's."""
    here, there = config.plain(given), config.plain(known)
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for name in dict.fromkeys((*here, *there)):
            if name not in _FREE:
                _require_same(f"{place}.{name}", here.get(name), there.get(name))
    elif here != there:
        raise ConfigError(
            f"{place} is {here}, the model's is {there}; fine-tuning keeps the model's networks: give that, or `same` "
            "or `auto` as CONFIG"
        )


def _notes(model: Model, own: Schema, schema: Schema) -> list[str]:
    known, reads = _schema(model), model.image.part.conditioning
    notes: list[str] = []
    for there, here in zip(known.channels, own.channels, strict=True):
        if there != here:
            notes.append(f"channel {here!r} takes the place of the model's {there!r}")
    if any(abs(a / b - 1) > 0.05 for a, b in zip(own.spacing_mm, known.spacing_mm, strict=True)):
        here, there = (",".join(f"{s:.3g}" for s in one.spacing_mm) for one in (own, known))
        notes.append(f"the model works at {there} mm, the data is at {here}; prepare --spacing {there} starts nearer")
    for name, here, there in zip(own.channels, own.intensities, schema.intensities, strict=True):
        if here != there:
            notes.append(f"channel {name!r} stays in the model's window, {there.low:g} to {there.high:g} HU")
    if own.texts and not reads.vocabulary:
        notes.append("the model reads no texts; those of the data are left out")
    if own.attributes and not reads.attributes:
        notes.append("the model reads no attributes; those of the data are left out")
    fresh = [label.name for label in schema.labels[len(known.labels) :]]
    fresh += [attribute.name for attribute in schema.attributes[len(known.attributes) :]]
    if fresh:
        notes.append(f"new to the model: {', '.join(fresh)}")
    return notes
