"""Recipes, complete and flat; name = modality-anatomy-process-size."""
