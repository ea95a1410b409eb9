"""Data: what a sample is in memory, what goes missing from it, and the order in which a model sees it."""
