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


def dataset_names() -> tuple[str, ...]:
  """Names that `load_dataset` knows, such as 'cmu_mosei/aligned'."""
  return tuple(
    f'{name}/{config}' if config else name for name, (_, configs) in _BUILDERS.items() for config in configs or ('',)
  )


def builder_class(name: str) -> Any:
  """The TFDS builder class of a data set; the part after '/' is not looked at.

  Raises:
    UserError: unknown name.
  """
  base = name.partition('/')[0]
  if base not in _BUILDERS:
    raise UserError(f'unknown data set {name!r}; {did_you_mean(name, dataset_names())}')
  return getattr(importlib.import_module(f'dream_jax.data.builders.{base}.{base}'), _BUILDERS[base][0])
