"""Label maps that a user gives: named before they are resampled, then in the model's own numbering. Knows no model."""

import numpy as np

from synth.data.schema import Schema
from synth.errors import ConditionError, GeometryError, nearest
from synth.volume import Volume


def named(mask: Volume, schema: Schema) -> Volume:
    """Return a mask whose labels have names, so that it is never resampled as an image is.

    Errors: GeometryError for another number of axes or channels, ConditionError for values that are no labels.
    """
    dims = len(schema.grid)
    if mask.spatial_dims != dims or mask.channels != 1:
        raise GeometryError(
            f"the mask is {mask.spatial_dims}D with {mask.channels} channels, the model takes {dims}D with one; "
            "give another"
        )
    if mask.data.dtype.kind == "f" and not (whole := np.isfinite(mask.data) & (mask.data == np.rint(mask.data))).all():
        raise ConditionError(f"mask has the value {mask.data[~whole][0]:g}, labels are whole numbers; give a label map")
    return mask if mask.labels else mask.replace(labels=schema.label_values)


def numbered(mask: Volume, schema: Schema) -> Volume:
    """Return a named mask in the model's numbering 0..K. Errors: ConditionError for a label that the model lacks."""
    names = schema.label_values
    assert mask.labels, "named before it was resampled"
    out = np.zeros(mask.data.shape, dtype=np.uint8)
    known = {0}
    for name, value in mask.labels.items():
        if value == 0:
            continue
        if name not in names:
            raise ConditionError(f"label {name!r} is unknown to the model; {nearest(name, names)}")
        out[mask.data == value] = list(names).index(name) + 1
        known.add(value)
    strange = sorted(int(v) for v in set(np.unique(mask.data).tolist()) - known)
    if strange:
        raise ConditionError(
            f"mask has label value {strange[0]}, the model knows {sorted(known)}; name or mend the labels"
        )
    return mask.replace(data=out, labels=None)
