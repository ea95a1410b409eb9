"""What can be told about a data set before anyone trains on it; `dream_jax.data.check` prints it."""
