"""What goes missing from a sample, as draws that are equal in NumPy, TensorFlow and JAX; protocols and regimes."""
