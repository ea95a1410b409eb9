"""From a batch to a step, from steps to a trained method."""
