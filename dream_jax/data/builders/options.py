"""The user's options of a generated data set, checked against the fields of its TFDS config."""

import dataclasses
import hashlib
import json
from typing import Any

import tensorflow_datasets as tfds

from dream_jax.errors import UserError
from dream_jax.suggest import did_you_mean


def custom_config(default: tfds.core.BuilderConfig, options: dict[str, Any]) -> tfds.core.BuilderConfig:
  """`default` with `options` in place; named by what they are, so that every choice has prepared files of its own.

  Raises:
    UserError: an option that is no field of the config, or a value of another type.
  """
  own = {f.name for f in dataclasses.fields(default)} - {f.name for f in dataclasses.fields(tfds.core.BuilderConfig)}
  changed = {}
  for name, value in options.items():
    if name not in own:
      raise UserError(f'unknown data option {name!r}; {did_you_mean(name, sorted(own))}')
    expected = getattr(default, name)
    value = _like(value, expected)
    if type(value) is not type(expected):
      raise UserError(f'data option {name} is {value!r}; expected {type(expected).__name__} such as {expected!r}')
    if value != expected:
      changed[name] = value
  if not changed:
    return default
  digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]
  config = dataclasses.replace(default, **changed)
  config.name = f'{default.name}_{digest}'
  return config


def _like(value: Any, expected: Any) -> Any:
  """Lists as tuples and whole numbers as floats, where that is what the field holds."""
  if isinstance(expected, tuple) and isinstance(value, list | tuple):
    return tuple(_like(v, expected[0]) for v in value)
  if isinstance(expected, float) and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  return value
