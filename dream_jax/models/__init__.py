"""Pure-functional Flax modules: they know `spec` and nothing of data, training or files."""
