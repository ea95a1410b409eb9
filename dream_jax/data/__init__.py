"""Data: what a sample is in memory, and the order in which a model sees it."""
