"""Everything a command imports, imported once; nothing here starts a device, so children may be forked from it.

JAX and TensorFlow start their threads when they are first used, not when they are imported.
"""

import importlib
import os

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
os.environ['MPLBACKEND'] = 'Agg'
os.environ.pop('XLA_FLAGS', None)  # The tests ask for eight devices, users for none.

_MODULES = (
  'flax',
  'matplotlib.pyplot',
  'optax',
  'orbax.checkpoint',
  'pyarrow.parquet',
  'tensorboardX',
  'tensorflow',
  'tensorflow_datasets',
  'dream_jax.api',
  'dream_jax.main',
  'dream_jax.scaling.plan',
  'dream_jax.experiments.experiment',
)

# TensorFlow greets whoever imports it, whatever the level.
_shown, _nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)
try:
  for _name in _MODULES:
    importlib.import_module(_name)
finally:
  os.dup2(_shown, 2)
  os.close(_shown)
  os.close(_nowhere)
