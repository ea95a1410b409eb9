"""Widths and dropout rates that every method shares, so that a comparison compares methods."""

import dataclasses
from typing import Literal

from dream_jax.settings import setting

Dtype = Literal['float32', 'bfloat16']


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of a model."""

  width: int = setting(32, 'D, latent width of every modality', least=1, most=16_384)
  hidden: int = setting(64, 'width of the hidden layers of heads and other perceptrons', least=1, most=65_536)
  sequence_encoder: Literal['tcn', 'transformer'] = setting('tcn', 'encoder of sequences and tokens')
  max_tokens: int = setting(
    0,
    'most tokens of a modality that methods with attention over tokens work on: neighbours are averaged; 0 for as many'
    ' as encoders leave',
    least=0,
    most=1_000_000,
  )
  dropout: float = setting(0.2, 'rate on latents, and inside the transformer', least=0, below=1, varies=True)
  head_dropout: float = setting(0.3, 'rate inside prediction heads', least=0, below=1, varies=True)
  dtype: Dtype = setting(
    'float32',
    'what encoders, and attention over tokens, compute in; parameters, sums, softmax and all that follows the latents'
    ' are float32',
  )
