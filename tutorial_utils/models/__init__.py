"""Load a model: which one, in what numbers, where to; and why it could not be loaded."""
