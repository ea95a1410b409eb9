"""CMU-MOSI from the feature files of MMSA, which the user fetches: they cannot be downloaded without a browser."""

from typing import ClassVar

import tensorflow_datasets as tfds

from dream_jax.data.builders import mmsa_builder
from dream_jax.data.builders.mmsa_builder import MmsaBuilder, MmsaConfig

_CONFIGS = [
  MmsaConfig(
    name='aligned',
    description='Audio and vision averaged over the words.',
    file='aligned_50.pkl',
    sha256='d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9',
    aligned=True,
    shapes=((50, 768), (50, 5), (50, 20)),
  ),
  # MMSA's own configuration says 500 steps of audio and 375 of vision; the files have it the other way round.
  MmsaConfig(
    name='unaligned',
    description='Audio and vision at their own rates.',
    file='unaligned_50.pkl',
    sha256='78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524',
    shapes=((50, 768), (375, 5), (500, 20)),
  ),
]


class CmuMosi(MmsaBuilder):
  """Sentiment in [-3, 3] of 2,199 video clips: text (BERT), audio (COVAREP) and vision (Facet) sequences."""

  VERSION = tfds.core.Version('1.1.0')
  RELEASE_NOTES = mmsa_builder.RELEASE_NOTES
  BUILDER_CONFIGS: ClassVar = _CONFIGS
  FOLDER = 'MOSI'
  ROWS = (1284, 229, 686)
  MANUAL_DOWNLOAD_INSTRUCTIONS = mmsa_builder.instructions('cmu_mosi', 'MOSI', ROWS, _CONFIGS)
  DESCRIPTION = """
  CMU-MOSI: sentiment of monologue video clips, annotated from -3 to 3, with the features that MMSA publishes. The
  splits are those of the file. `text_bert` (token ids, attention mask, segment ids), `raw_text` and `annotation` are
  extras.
  """
  HOMEPAGE = 'http://multicomp.cs.cmu.edu/resources/cmu-mosi-dataset/'
  LICENSE = 'see the terms of the data set at its home page; features by MMSA'
  CITATION = (
    """
@article{zadeh2016mosi,
  author = {Zadeh, Amir and Zellers, Rowan and Pincus, Eli and Morency, Louis-Philippe},
  title = {{MOSI}: Multimodal Corpus of Sentiment Intensity and Subjectivity Analysis in Online Opinion Videos},
  journal = {arXiv:1606.06259},
  year = {2016},
}"""
    + mmsa_builder.CITATION
  )
