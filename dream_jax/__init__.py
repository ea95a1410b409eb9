"""Multimodal classification and regression with missing, corrupted or weak modalities, in JAX.

Importing this package starts no device and loads no TensorFlow: names are looked up when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from dream_jax.api import load, make_apply
  from dream_jax.errors import UserError
  from dream_jax.estimator.estimator import DreamClassifier, DreamRegressor, fit
  from dream_jax.estimator.modality import image, sequence, text, vector
  from dream_jax.spec import DatasetSpec, ModalitySpec

__version__ = '0.1.0'
__all__ = [
  'DatasetSpec',
  'DreamClassifier',
  'DreamRegressor',
  'ModalitySpec',
  'UserError',
  '__version__',
  'fit',
  'image',
  'load',
  'make_apply',
  'sequence',
  'text',
  'vector',
]

_HOMES = {
  'load': 'dream_jax.api',
  'make_apply': 'dream_jax.api',
  **dict.fromkeys(('DreamClassifier', 'DreamRegressor', 'fit'), 'dream_jax.estimator.estimator'),
  **dict.fromkeys(('image', 'sequence', 'text', 'vector'), 'dream_jax.estimator.modality'),
  'DatasetSpec': 'dream_jax.spec',
  'ModalitySpec': 'dream_jax.spec',
  'UserError': 'dream_jax.errors',
}


def __getattr__(name: str) -> Any:
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  if name in ('load', 'make_apply', 'DreamClassifier', 'DreamRegressor', 'fit'):
    from dream_jax.machine import environment

    environment.check_system()
  return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *_HOMES})
