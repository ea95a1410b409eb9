"""TensorFlow as a reader of data: loaded when first needed, and kept off the accelerators that JAX computes on."""

import functools
from types import ModuleType


@functools.cache
def load() -> ModuleType:
  """The tensorflow module, with every device but the CPU hidden from it.

  The declared dependency is the CPU build; a GPU build in the user's environment would otherwise take all of the
  accelerator's memory with its first constant.
  """
  import tensorflow as tf  # Seconds and hundreds of megabytes: only those who read data through it need it.

  for kind in ('GPU', 'TPU'):
    tf.config.set_visible_devices([], kind)
  return tf
