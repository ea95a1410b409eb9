"""The config that every file in `configs/` starts from; its fields are those of `Recipe`, where they are described.

`python -m dream_jax.main --mode=fields` prints them with comments, defaults and ranges.
"""

import dataclasses
import typing
from typing import Any

from ml_collections import ConfigDict, config_dict

from dream_jax.config.recipe import Recipe


# Any: what pyright infers for the fields of a ConfigDict is a union of everything a config may hold.
def get_default() -> Any:
  """A fresh ConfigDict with the defaults of `Recipe`; `data.name`, `name` and `protocols` are the caller's to set."""
  return _as_config(Recipe())


def get_own_data() -> Any:
  """As `get_default`, for data that nothing was tuned on; `configs/npz.py` and `configs/suite.py` start from it."""
  config = get_default()
  config.train.epochs = 40
  config.train.least_steps = 1000  # In 40 passes over 300 samples nothing is learnt yet.
  config.train.num_evals = 20
  config.train.validation_draws = 2
  # Sequences and texts lose parts in training, and DREAM reads what is left of them. Nothing changes for other kinds.
  config.inject.parts = ('frames', 'block')
  config.model.frames = True
  return config


def _as_config(settings: Any) -> ConfigDict:
  config = ConfigDict()
  hints = typing.get_type_hints(type(settings))
  for field in dataclasses.fields(settings):
    value = getattr(settings, field.name)
    if dataclasses.is_dataclass(value):
      value = _as_config(value)
    elif isinstance(value, dict):
      value = ConfigDict(value)
    elif value is None:  # A ConfigDict could not tell what type it takes.
      value = config_dict.placeholder(next(t for t in typing.get_args(hints[field.name]) if t is not type(None)))
    config[field.name] = value
  return config
