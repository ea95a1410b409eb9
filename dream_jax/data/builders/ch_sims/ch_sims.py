"""CH-SIMS from the feature file of MMSA, which the user fetches: it cannot be downloaded without a browser."""

from typing import ClassVar

import tensorflow_datasets as tfds

from dream_jax.data.builders import mmsa_builder
from dream_jax.data.builders.mmsa_builder import MmsaBuilder, MmsaConfig

_CONFIGS = [
  MmsaConfig(
    name='unaligned',
    description='All modalities at their own rates (1.2 GB).',
    file='unaligned_39.pkl',
    sha256='c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f',
    shapes=((39, 768), (400, 33), (55, 709)),
  ),
]


class ChSims(MmsaBuilder):
  """Sentiment in [-1, 1] of 2,281 Chinese video clips, labelled as a whole and for each modality by itself."""

  VERSION = tfds.core.Version('1.1.0')
  RELEASE_NOTES: ClassVar = {'1.1.0': 'First version.'}
  BUILDER_CONFIGS: ClassVar = _CONFIGS
  FOLDER = 'SIMS'
  LABEL_RANGE = (-1.0, 1.0)
  UNIMODAL_LABELS = True
  ROWS = (1368, 456, 457)
  MANUAL_DOWNLOAD_INSTRUCTIONS = mmsa_builder.instructions('ch_sims', 'SIMS', ROWS, _CONFIGS)
  DESCRIPTION = """
  CH-SIMS: sentiment of clips from Chinese films, series and shows, annotated from -1 to 1, with the features that MMSA
  publishes: text (Chinese BERT), audio (LibROSA), vision (OpenFace). The splits are those of the file. Annotators also
  judged each modality without the others: `label_text`, `label_audio` and `label_vision` are extras, as are `text_bert`
  (token ids, attention mask, segment ids), `raw_text` and `annotation`.
  """
  HOMEPAGE = 'https://github.com/thuiar/MMSA'
  LICENSE = 'see the terms of the data set at its home page; features by MMSA'
  CITATION = (
    """
@inproceedings{yu2020sims,
  author = {Yu, Wenmeng and Xu, Hua and Meng, Fanyang and Zhu, Yilin and Ma, Yixiao and Wu, Jiele and Zou, Jiyun and
            Yang, Kaicheng},
  title = {{CH-SIMS}: A {C}hinese Multimodal Sentiment Analysis Dataset with Fine-grained Annotation of Modality},
  booktitle = {Proceedings of ACL},
  year = {2020},
}"""
    + mmsa_builder.CITATION
  )
