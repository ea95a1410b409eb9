"""The validation fold of CMU-MOSI, aligned to words: three sequences on one clock. For code, too small for claims."""

import os
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from dream_jax.data.builders import npz_source, source_file
from dream_jax.data.builders.base import ModalityBuilder
from dream_jax.data.builders.npz_source import Field
from dream_jax.spec import DatasetSpec, ModalitySpec

FILE = 'mosi_valid_aligned.npz'
_ORIGIN = (
  'the official validation fold of CMU-MOSI with COVAREP and FACET features averaged over words, as MISA prepares it '
  '(dev.pkl), converted to arrays'
)
_WORDS, _VOCAB = 44, 680
_FIELDS = {
  'utt_id': Field('text'),
  'video_id': Field('text'),
  'label': Field('number', ('N',), -3, 3),
  'length': Field('whole', ('N',), 1, _WORDS),
  'text_word_ids': Field('whole', ('N', _WORDS), 0, _VOCAB - 1),
  'audio_covarep': Field('number', ('N', _WORDS, 74)),
  'vision_facet': Field('number', ('N', _WORDS, 47)),
  'transcript_utf8': Field('whole', ('bytes',)),
  'transcript_offsets': Field('whole', ('offsets',)),
}


class MosiWords(ModalityBuilder):
  """Sentiment of 229 utterances of 10 videos: text tokens [44], audio [44, 74] and vision [44, 47]."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES: ClassVar = {'1.0.0': 'First version.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"""
  Put {FILE} into the manual folder, as FILE or mosi/FILE: {_ORIGIN}. One row an utterance, arrays {', '.join(_FIELDS)}.
  """
  DESCRIPTION = """
  229 utterances of CMU-MOSI, word by word: `text` (token ids), `audio` (COVAREP) and `vision` (FACET), the latter two
  z-normalised per utterance by their source. Split by video: of every five videos in the order of their ids three
  train, one validates, one tests. `video` and `raw_text` are extras.
  """
  HOMEPAGE = 'http://multicomp.cs.cmu.edu/resources/cmu-mosi-dataset/'
  LICENSE = 'CMU-MOSI is for academic research'
  CITATION = """
@inproceedings{hazarika2020misa,
  author = {Hazarika, Devamanyu and Zimmermann, Roger and Poria, Soujanya},
  title = {{MISA}: Modality-Invariant and -Specific Representations for Multimodal Sentiment Analysis},
  booktitle = {Proceedings of ACM Multimedia},
  year = {2020},
}
"""

  @property
  def dataset_spec(self) -> DatasetSpec:
    return DatasetSpec(
      name=self.name,
      modalities=(
        ModalitySpec('text', 'tokens', (_WORDS,), vocab_size=_VOCAB + 1, unk_id=_VOCAB),
        ModalitySpec('audio', 'sequence', (_WORDS, 74)),
        ModalitySpec('vision', 'sequence', (_WORDS, 47)),
      ),
      task='regression',
      num_outputs=1,
      data_kind='real',
      label_range=(-3.0, 3.0),
    )

  def extra_features(self) -> dict[str, tfds.features.FeatureConnector]:
    return {'video': tfds.features.Text(), 'raw_text': tfds.features.Text()}

  def find_source(self, manual_dir: str, *, explicit: bool = True) -> str:
    return source_file.find(FILE, manual_dir, self.name, folders=('mosi',), origin=_ORIGIN, explicit=explicit)

  def _split_generators(self, dl_manager):
    path = self.find_source(os.fspath(dl_manager.manual_dir))
    arrays = npz_source.read(path, _FIELDS)
    transcripts = npz_source.texts(path, arrays['transcript_utf8'], arrays['transcript_offsets'], len(arrays['utt_id']))
    turn = np.unique(arrays['video_id'], return_inverse=True)[1] % 5
    parts = {'train': turn < 3, 'validation': turn == 3, 'test': turn == 4}
    return {name: self._generate_examples(arrays, transcripts, np.flatnonzero(rows)) for name, rows in parts.items()}

  def _generate_examples(self, arrays, transcripts, rows) -> Iterator[tuple[str, dict]]:
    for i in rows:
      key, length = str(arrays['utt_id'][i]), int(arrays['length'][i])
      sample = {'id': key, 'label': arrays['label'][i], 'video': str(arrays['video_id'][i]), 'raw_text': transcripts[i]}
      for name, source in (('text', 'text_word_ids'), ('audio', 'audio_covarep'), ('vision', 'vision_facet')):
        sample |= {name: arrays[source][i], f'{name}_length': length}
      yield key, sample
