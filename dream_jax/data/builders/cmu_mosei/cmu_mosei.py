"""CMU-MOSEI from the feature files of MMSA, which the user fetches: they cannot be downloaded without a browser."""

from typing import ClassVar

import tensorflow_datasets as tfds

from dream_jax.data.builders import mmsa_builder
from dream_jax.data.builders.mmsa_builder import MmsaBuilder, MmsaConfig

_CONFIGS = [
  MmsaConfig(
    name='aligned',
    description='Audio and vision averaged over the words (1.2 GB).',
    file='aligned_50.pkl',
    sha256='45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791',
    aligned=True,
    shapes=((50, 768), (50, 74), (50, 35)),
  ),
  MmsaConfig(
    name='unaligned',
    description='Audio and vision at their own rates (3.4 GB).',
    file='unaligned_50.pkl',
    sha256='ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f',
    shapes=((50, 768), (500, 74), (500, 35)),
  ),
]


class CmuMosei(MmsaBuilder):
  """Sentiment in [-3, 3] of 22,856 video clips: text (BERT), audio (COVAREP) and vision (Facet) sequences."""

  VERSION = tfds.core.Version('1.1.0')
  RELEASE_NOTES = mmsa_builder.RELEASE_NOTES
  BUILDER_CONFIGS: ClassVar = _CONFIGS
  FOLDER = 'MOSEI'
  ROWS = (16326, 1871, 4659)
  MANUAL_DOWNLOAD_INSTRUCTIONS = mmsa_builder.instructions('cmu_mosei', 'MOSEI', ROWS, _CONFIGS)
  DESCRIPTION = """
  CMU-MOSEI: sentiment of monologue video clips, annotated from -3 to 3, with the features that MMSA publishes. The
  splits are those of the file. `text_bert` (token ids, attention mask, segment ids), `raw_text` and `annotation` are
  extras.
  """
  HOMEPAGE = 'http://multicomp.cs.cmu.edu/resources/cmu-mosei-dataset/'
  LICENSE = 'see the terms of the data set at its home page; features by MMSA'
  CITATION = (
    """
@inproceedings{zadeh2018mosei,
  author = {Bagher Zadeh, AmirAli and Liang, Paul Pu and Poria, Soujanya and Cambria, Erik and Morency, Louis-Philippe},
  title = {Multimodal Language Analysis in the Wild: {CMU-MOSEI} Dataset and Interpretable Dynamic Fusion Graph},
  booktitle = {Proceedings of ACL},
  year = {2018},
}"""
    + mmsa_builder.CITATION
  )
