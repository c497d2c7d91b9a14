"""The activations of a data set on disk: write them, read them, the command line."""
