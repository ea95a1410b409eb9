"""CMU-MOSI as one feature vector per utterance and modality: small, real, and very unequal in its modalities.

Two of its features were trained on sentiment labels by those who published them. A split is honest only where the
extractor saw none of its validation and test videos, so splits and modalities are chosen together, as configs.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, cast

import numpy as np
import tensorflow_datasets as tfds

from dream_jax.data.builders import npz_source, source_file
from dream_jax.data.builders.base import ModalityBuilder
from dream_jax.data.builders.npz_source import Field
from dream_jax.data.builders.options import custom_config
from dream_jax.errors import UserError
from dream_jax.spec import DatasetSpec, ModalitySpec

FILE = 'mosi_utterance.npz'
_ORIGIN = (
  'utterance features of CMU-MOSI: audio and vision of bc-LSTM (github.com/declare-lab/multimodal-deep-learning), '
  'sentence embeddings of the transcripts by all-MiniLM-L6-v2, labels and folds of the CMU Multimodal SDK'
)
_WORDS, _VOCAB = 50, 3108
_TEXTS = {'minilm': ('text_minilm', 384), 'cnn': ('text_cnn_supervised', 100)}
_SPLIT_CODES = {'train': 0, 'validation': 1, 'test': 2}
_FIELDS = {
  'utt_id': Field('text'),
  'video_id': Field('text'),
  'label': Field('number', ('N',), -3, 3),
  'split': Field('whole', ('N',), 0, 2),
  'split_bclstm': Field('whole', ('N',), 0, 2),
  'split_clean': Field('whole', ('N',), -1, 2),
  'audio_opensmile': Field('number', ('N', 73)),
  'vision_c3d_supervised': Field('number', ('N', 100)),
  'text_cnn_supervised': Field('number', ('N', 100)),
  'text_minilm': Field('number', ('N', 384)),
  'text_word_ids': Field('whole', ('N', _WORDS), 0, _VOCAB - 1),
  'text_word_len': Field('whole', ('N',), 0, _WORDS),
  'transcript_utf8': Field('whole', ('bytes',)),
  'transcript_offsets': Field('whole', ('offsets',)),
}


@dataclasses.dataclass(eq=False)
class MosiUtteranceConfig(tfds.core.BuilderConfig):
  """Options of every split.

  Attributes:
    split: array of the file that says where a row belongs.
    modalities: in order; 'official' has no vision.
    task: 'binary' (label >= 0, the field's Acc-2 with zeros), 'regression' ([-3, 3]) or 'multiclass' (the seven
      classes of Acc-7).
    text: 'minilm' (384 sentence features), 'words' (token ids) or 'cnn' (100 features trained on labels).
  """

  split: str = 'split_clean'
  modalities: tuple[str, ...] = ('text', 'audio', 'vision')
  task: str = 'binary'
  text: str = 'minilm'


class MosiUtterance(ModalityBuilder):
  """Sentiment of 2,199 utterances of 93 videos: text, audio [73] and vision [100]."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES: ClassVar = {'1.0.0': 'First version.'}
  BUILDER_CONFIGS: ClassVar = [
    MosiUtteranceConfig(
      name='clean', description='The 31 videos no extractor was trained on, split by video: 466, 77 and 209 utterances.'
    ),
    MosiUtteranceConfig(
      name='bclstm',
      description='The split of bc-LSTM, 752 test utterances; a fifth of its training videos is the validation split. '
      'Vision (and `cnn` text) was trained on the labels of training and validation: confident there, useless in test.',
      split='split_bclstm',
    ),
    MosiUtteranceConfig(
      name='official',
      description='The official folds: 1284, 229 and 686 utterances. No vision: its extractor saw test labels.',
      split='split',
      modalities=('text', 'audio'),
    ),
  ]
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"""
  Put {FILE} into the manual folder, as FILE or mosi/FILE: {_ORIGIN}. One row an utterance, arrays
  {', '.join(_FIELDS)}; `split` 0/1/2, `split_bclstm` 0/2, `split_clean` -1/0/1/2.
  """
  DESCRIPTION = """
  CMU-MOSI, one vector per utterance and modality: `text` (sentence embedding of the transcript), `audio` (openSMILE,
  73) and `vision` (3D convolutions, 100, trained on the labels of 62 videos). `video` and `raw_text` are extras, and so
  is `sentiment`, the annotation in [-3, 3] whatever the task.
  """
  HOMEPAGE = 'http://multicomp.cs.cmu.edu/resources/cmu-mosi-dataset/'
  LICENSE = 'CMU-MOSI is for academic research; features: MIT (declare-lab)'
  CITATION = """
@article{zadeh2016mosi,
  author = {Zadeh, Amir and Zellers, Rowan and Pincus, Eli and Morency, Louis-Philippe},
  title = {{MOSI}: Multimodal Corpus of Sentiment Intensity and Subjectivity Analysis in Online Opinion Videos},
  journal = {arXiv:1606.06259},
  year = {2016},
}
@inproceedings{poria2017context,
  author = {Poria, Soujanya and Cambria, Erik and Hazarika, Devamanyu and Majumder, Navonil and Zadeh, Amir and Morency,
            Louis-Philippe},
  title = {Context-Dependent Sentiment Analysis in User-Generated Videos},
  booktitle = {Proceedings of ACL},
  year = {2017},
}
"""

  @property
  def own_config(self) -> MosiUtteranceConfig:
    """The TFDS config, by its own type."""
    return cast(MosiUtteranceConfig, self.builder_config)

  @property
  def dataset_spec(self) -> DatasetSpec:
    config = self.own_config
    if config.text == 'words':
      text = ModalitySpec('text', 'tokens', (_WORDS,), vocab_size=_VOCAB + 1, unk_id=_VOCAB)  # Every id is a word.
    else:
      text = ModalitySpec('text', 'vector', (_TEXTS[config.text][1],))
    known = {'text': text, 'audio': ModalitySpec('audio', 'vector', (73,))}
    known['vision'] = ModalitySpec('vision', 'vector', (100,))
    classes = {'binary': ('negative', 'non-negative'), 'multiclass': tuple(f'{c:+d}' for c in range(-3, 4))}
    return DatasetSpec(
      name=f'{self.name}/{config.name}',
      modalities=tuple(known[name] for name in config.modalities),
      task=config.task,
      num_outputs=7 if config.task == 'multiclass' else 1,
      data_kind='real',
      class_names=classes.get(config.task, ()),
      label_range=(-3.0, 3.0) if config.task == 'regression' else (0.0, 0.0),
    )

  def extra_features(self) -> dict[str, tfds.features.FeatureConnector]:
    return {
      'video': tfds.features.Text(),
      'raw_text': tfds.features.Text(),
      'sentiment': tfds.features.Scalar(dtype=np.float32),
    }

  @classmethod
  def config_from_options(cls, name, options, folder=None):
    super().config_from_options(name, {}, folder)
    default = next(c for c in cls.BUILDER_CONFIGS if name in (None, c.name))
    config = cast(MosiUtteranceConfig, custom_config(default, options))
    _one_of('task', config.task, ('binary', 'regression', 'multiclass'))
    _one_of('text', config.text, (*_TEXTS, 'words'))
    if config.split != default.split or config.modalities != default.modalities:
      names = ', '.join(c.name for c in cls.BUILDER_CONFIGS)
      raise UserError(
        f'data options split and modalities belong to the config of mosi_utterance; choose one of {names}'
      )
    if default.name == 'official' and config.text == 'cnn':
      raise UserError("data option text is 'cnn', whose extractor was trained on official test labels; use minilm")
    return config

  def find_source(self, manual_dir: str, *, explicit: bool = True) -> str:
    return source_file.find(
      FILE, manual_dir, f'{self.name}/{self.own_config.name}', folders=('mosi',), origin=_ORIGIN, explicit=explicit
    )

  def _split_generators(self, dl_manager):
    path = self.find_source(os.fspath(dl_manager.manual_dir))
    arrays = npz_source.read(path, _FIELDS)
    codes = arrays[self.own_config.split]
    if self.own_config.split == 'split_bclstm':
      codes = _with_validation(codes, arrays['video_id'])
    transcripts = npz_source.texts(path, arrays['transcript_utf8'], arrays['transcript_offsets'], len(arrays['utt_id']))
    return {
      name: self._generate_examples(arrays, transcripts, np.flatnonzero(codes == code))
      for name, code in _SPLIT_CODES.items()
    }

  def _generate_examples(self, arrays, transcripts, rows) -> Iterator[tuple[str, dict]]:
    spec, config = self.dataset_spec, self.own_config
    label = label_of(arrays['label'], cast(Any, config.task))
    sources = {'text': _TEXTS.get(config.text, ('text_word_ids', 0))[0]}
    sources |= {'audio': 'audio_opensmile', 'vision': 'vision_c3d_supervised'}
    for i in rows:
      key = str(arrays['utt_id'][i])
      sample = {'id': key, 'label': label[i], 'sentiment': arrays['label'][i]}
      sample |= {'video': str(arrays['video_id'][i]), 'raw_text': transcripts[i]}
      sample |= {m.name: arrays[sources[m.name]][i] for m in spec.modalities}
      if config.text == 'words':
        sample['text_length'] = max(1, int(arrays['text_word_len'][i]))
      yield key, sample


def label_of(sentiment: np.ndarray, task: Literal['binary', 'regression', 'multiclass']) -> np.ndarray:
  """The target [N] of a task from sentiments [N] in [-3, 3]."""
  if task == 'binary':
    return (sentiment >= 0).astype(np.int32)
  if task == 'multiclass':
    return (np.round(np.clip(sentiment, -3, 3)) + 3).astype(np.int32)
  return sentiment.astype(np.float32)


def _with_validation(codes: np.ndarray, videos: np.ndarray) -> np.ndarray:
  """Split codes [N] with every fifth training video, in the order of their ids, as validation."""
  training = np.unique(videos[codes == _SPLIT_CODES['train']])
  return np.where(np.isin(videos, training[2::5]), _SPLIT_CODES['validation'], codes)


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
  if value not in known:
    raise UserError(f'data option {option} is {value!r}; expected one of {", ".join(known)}')
