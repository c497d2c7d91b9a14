"""Find the decoder layers of a model; record, read and edit the activations in it."""
