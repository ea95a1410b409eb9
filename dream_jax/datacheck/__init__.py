"""What is worth knowing about a data set before anyone trains on it."""
