"""One package for each TFDS builder; importing a builder imports TensorFlow, importing this package does not."""
