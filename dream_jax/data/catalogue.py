"""Which data sets there are, by name, and the TFDS builder of each, imported when one is asked for."""

import importlib
from typing import Any

from dream_jax.errors import UserError, did_you_mean

# Data set -> (builder class, configs). A builder lives in the package folder of its name, as TFDS requires.
_BUILDERS: dict[str, tuple[str, tuple[str, ...]]] = {
  'digits': ('Digits', ()),
  'synthetic': ('Synthetic', ()),
  'mosei_standin': ('MoseiStandin', ()),
  'cmu_mosi': ('CmuMosi', ('aligned', 'unaligned')),
  'cmu_mosei': ('CmuMosei', ('aligned', 'unaligned')),
  'ch_sims': ('ChSims', ('unaligned',)),
  'iemocap': ('Iemocap', ('four', 'six')),
  'mosi_utterance': ('MosiUtterance', ('clean', 'bclstm', 'official')),
  'mosi_words': ('MosiWords', ()),
  'av_digits': ('AvDigits', ('official', 'speaker')),
  'folder': ('Folder', ()),
}


# Builders of the user's own, by name.
_OWN: dict[str, Any] = {}


def register(builder: Any) -> None:
  """Makes a data set of yours known as `config.data.name`, under the name of its builder.

  The file of a `--config` is a good place to call it: it is read before any name is looked up.

  Args:
    builder: a class derived from `ModalityBuilder`; its `name` is that of the class in snake case.

  Raises:
    UserError: the name is one of ours.
  """
  if builder.name in _BUILDERS:
    raise UserError(f'data set {builder.name!r} is built in; choose another name for the class')
  _OWN[builder.name] = builder


def dataset_names() -> tuple[str, ...]:
  """Names that `load_dataset` knows, such as 'cmu_mosei/aligned'."""
  configs = {name: configs for name, (_, configs) in _BUILDERS.items()}
  configs |= {name: tuple(config.name for config in builder.BUILDER_CONFIGS) for name, builder in _OWN.items()}
  return tuple(f'{name}/{c}' if c else name for name, several in configs.items() for c in several or ('',))


def builder_class(name: str) -> Any:
  """The TFDS builder class of a data set; the part after '/' is not looked at.

  Raises:
    UserError: unknown name.
  """
  base = name.partition('/')[0]
  if base in _OWN:
    return _OWN[base]
  if base not in _BUILDERS:
    raise UserError(f'unknown data set {name!r}; {did_you_mean(name, dataset_names())}')
  return getattr(importlib.import_module(f'dream_jax.data.builders.{base}.{base}'), _BUILDERS[base][0])
