"""The user's options of a data set, checked against the settings of its TFDS config."""

import dataclasses
import hashlib
import json
from typing import Any

import tensorflow_datasets as tfds

from dream_jax.errors import UserError
from dream_jax.settings import changed, setting

_PATH = 'config.data.options'


def sample_count(default: int, comment: str) -> Any:
  """An option that is a number of samples."""
  return setting(default, comment, least=1, most=10**8)


def generator_seed(default: int, comment: str) -> Any:
  """An option that is the seed of a generator."""
  return setting(default, comment, least=0, most=2**32 - 1)


def custom_config(default: tfds.core.BuilderConfig, options: dict[str, Any]) -> tfds.core.BuilderConfig:
  """`default` with `options` in place; named by what they are, so that every choice has prepared files of its own.

  Raises:
    UserError: an option that is no setting of the config, a value of another type or outside its range, or values that
      do not go together; see `settings`.
  """
  own = changed(default, options, _PATH)
  if not own:
    return default
  config = dataclasses.replace(default, **own)
  for fault in getattr(config, 'contradictions', tuple)():
    raise UserError(f'{_PATH}.{fault}')
  digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]
  config.name = f'{default.name}_{digest}'
  return config
