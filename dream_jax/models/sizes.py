"""Widths and dropout rates that every method shares, so that a comparison compares methods."""

import dataclasses
from typing import Literal

Dtype = Literal['float32', 'bfloat16']


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of a model.

  Attributes:
    width: D, the width of latents.
    hidden: width of the hidden layers of heads and other perceptrons.
    sequence_encoder: encoder of sequences and tokens.
    max_tokens: most tokens of a modality that methods with attention over tokens work on: neighbours are averaged; 0
      for as many as encoders leave.
    dropout: rate on latents, and inside the transformer.
    head_dropout: rate inside prediction heads.
    dtype: what encoders, and attention over tokens, compute in. Parameters, sums, softmax and all that follows the
      latents are float32.
  """

  width: int = 32
  hidden: int = 64
  sequence_encoder: Literal['tcn', 'transformer'] = 'tcn'
  max_tokens: int = 0
  dropout: float = 0.2
  head_dropout: float = 0.3
  dtype: Dtype = 'float32'
