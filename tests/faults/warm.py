"""Everything a command imports, imported once; nothing here starts a device, so children may be forked from it.

JAX and TensorFlow start their threads when they are first used, not when they are imported.
"""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
os.environ['MPLBACKEND'] = 'Agg'
os.environ.pop('XLA_FLAGS', None)  # The tests ask for eight devices, users for none.

import flax  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import optax  # noqa: F401
import orbax.checkpoint  # noqa: F401
import pyarrow.parquet  # noqa: F401
import tensorboardX  # noqa: F401
import tensorflow  # noqa: F401
import tensorflow_datasets  # noqa: F401

import dream_jax.api
import dream_jax.experiment
import dream_jax.main
import dream_jax.plan
import dream_jax.study  # noqa: F401
