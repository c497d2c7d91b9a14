"""Load a model on a device in a dtype, or say why it could not be loaded."""
