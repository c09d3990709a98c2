"""Data on its way to and from training: cases, splits, intensity and geometry maps, the prepared folder."""
