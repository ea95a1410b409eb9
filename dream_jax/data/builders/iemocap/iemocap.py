"""IEMOCAP: the emotion of acted utterances from vectors of text, audio and vision, which the user fetches or extracts.

None of the files could be opened by us. What is relied on, and where it was read:

* GCNet (github.com/zeroQiaoba/GCNet, c2dfd3b: `gcnet/dataloader_iemocap.py`, `gcnet/train_gcnet.py`, `preprocess.py`,
  `detect.py`, README): the order of the pickle, sets of dialogues, the files of features, faces chosen by the letter F
  or M in their names, zeros where there is no face, the mean over frames, folds by session from the fifth letter.
  Label order of the four-way file: happy, sad, neutral, angry, as in the same author's AffectGPT, which reads these
  labels through MERBench's unchanged copy (`MERBench/toolkit/preprocess/iemocap.py`; `datasets/iemocap.py` as in
  wcycqjy/AffectGPT-with-Pose). ASSUMED for the six-way file: DialogueGCN's order, on whose files GCNet builds.
  Widths: the README's commands for MMIN (audio 512, vision 1024, text 1024).
* DialogueRNN and DialogueGCN (declare-lab/conv-emotion, `dataloader.py`), bc-LSTM (soujanyaporia/
  multimodal-sentiment-analysis, `dataset/iemocap/raw/loadIEMOCAP.py`), MMGCN (hujingwen6666/MMGCN, `dataloader.py`,
  `train.py`): nine parts in one order, label order happy, sad, neutral, angry, excited, frustrated. Widths of text,
  audio and vision: 100, 100, 512, in MMGCN's file 100, 1582, 342 (from readers of the files). They list 7,433
  utterances, 53 more than the corpus has of these labels, so `four` of them is larger than the usual 5,531.
* MMIN (AIM3-RUC/MMIN, `data/multimodal_dataset.py`, `scripts/CAP_mmin.sh`): names, keys, one-hot labels, widths of
  text, audio and vision 1024, 130, 342. Label order angry, happy, neutral, sad: the counts by class that a run on the
  files shows (1103, 1636, 1708, 1084; zuzianto/Gender-Bias-Multimodal, `notebooks/01_dataset_exploration.ipynb`) are
  the known ones of these. ASSUMED: text and faces are padded with frames of zeros, as extraction code of this layout
  does it (`padding_to_fixlen`); where they are not, nothing changes.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

import numpy as np
import tensorflow_datasets as tfds

from dream_jax.data import reading
from dream_jax.data.builders.base import ModalityBuilder
from dream_jax.data.builders.iemocap import sources
from dream_jax.data.builders.iemocap.utterance import CLASSES, MODALITIES, Utterance
from dream_jax.data.builders.options import custom_config
from dream_jax.errors import UserError
from dream_jax.settings import setting
from dream_jax.spec import DatasetSpec, ModalitySpec

SESSIONS = (1, 2, 3, 4, 5)
_VALIDATION_SHARE = 1 / 8  # Of the dialogues of each training session.
_WIDTHS_OPTION = '--config.data.options.widths'


@dataclasses.dataclass(eq=False)
class IemocapConfig(tfds.core.BuilderConfig):
  """Options, by which the prepared files are named; the defaults are GCNet's features."""

  fold: int = setting(5, 'the session that is tested on; the others are for training and validation', least=1, most=5)
  features: tuple[str, str, str] = setting(
    ('deberta-large-4-UTT', 'wav2vec-large-c-UTT', 'manet_UTT'),
    "names of GCNet's feature folders of text, audio and vision",
    filled=True,
  )
  # Known before the files are read, and after they are gone.
  widths: tuple[int, int, int] = setting(
    (1024, 512, 1024), 'of the vectors of text, audio and vision', least=1, most=1_000_000
  )

  @property
  def task(self) -> str:
    """'four' or 'six'; options add to the name of a config."""
    return self.name.partition('_')[0]

  @property
  def classes(self) -> tuple[str, ...]:
    return CLASSES if self.task == 'six' else CLASSES[:4]


class Iemocap(ModalityBuilder):
  """Emotion of an utterance, four or six classes, from one vector a modality; splits by session and dialogue."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES: ClassVar = {'1.0.0': 'First version.'}
  BUILDER_CONFIGS: ClassVar = [
    IemocapConfig(name='four', description='Happy (with excited), sad, neutral, angry.'),
    IemocapConfig(name='six', description='Happy, sad, neutral, angry, excited, frustrated.'),
  ]
  MANUAL_DOWNLOAD_INSTRUCTIONS = '\n'.join(
    (
      'Put the files of one of these layouts into the manual folder:',
      *(f'  {layout}' for layout in sources.description(4, IemocapConfig.features)),
      f'For six classes {sources.label_file(6)} stands in place of {sources.label_file(4)}, and MMIN has none.',
      f'They are also found in the folders {", ".join(sources.FOLDERS[1:])} of it.',
      f'Widths of text, audio and vision that differ from {IemocapConfig.widths} are set with {_WIDTHS_OPTION}:',
      '  (100, 100, 512) for DialogueRNN, (100, 1582, 342) for MMGCN, (1024, 130, 342) for MMIN.',
      'The recordings are licensed by USC: https://sail.usc.edu/iemocap/iemocap_release.htm',
    )
  )
  DESCRIPTION = """
  IEMOCAP: ten actors, two in each of five sessions, in scripted and improvised dialogues; each utterance has the
  emotion that most annotators saw. Features are one vector an utterance and modality, as earlier work publishes them;
  frames are averaged, and a speaker whose face was not found has zeros in vision. Fold k tests on session k. An eighth
  of the dialogues of each other session, those whose names have the lowest hashes, is for validation, the same in every
  fold. With files of six classes, `four` takes excited as happy and leaves frustrated out. `speaker`, `session`,
  `dialogue` and `raw_text` are extras.
  """
  HOMEPAGE = 'https://sail.usc.edu/iemocap/'
  LICENSE = 'see the licence agreement of the recordings at the home page; features by the authors of the files'
  CITATION = """
@article{busso2008iemocap,
  author = {Busso, Carlos and Bulut, Murtaza and Lee, Chi-Chun and Kazemzadeh, Abe and Mower, Emily and Kim, Samuel and
    Chang, Jeannette N. and Lee, Sungbok and Narayanan, Shrikanth S.},
  title = {{IEMOCAP}: Interactive Emotional Dyadic Motion Capture Database},
  journal = {Language Resources and Evaluation},
  volume = {42},
  pages = {335--359},
  year = {2008},
}
@article{lian2022gcnet,
  author = {Lian, Zheng and Chen, Lan and Sun, Licai and Liu, Bin and Tao, Jianhua},
  title = {{GCNet}: Graph Completion Network for Incomplete Multimodal Learning in Conversation},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year = {2022},
}
@inproceedings{majumder2019dialoguernn,
  author = {Majumder, Navonil and Poria, Soujanya and Hazarika, Devamanyu and Mihalcea, Rada and Gelbukh, Alexander and
    Cambria, Erik},
  title = {{DialogueRNN}: An Attentive {RNN} for Emotion Detection in Conversations},
  booktitle = {Proceedings of AAAI},
  year = {2019},
}
@inproceedings{zhao2021missing,
  author = {Zhao, Jinming and Li, Ruichen and Jin, Qin},
  title = {Missing Modality Imagination Network for Emotion Recognition with Uncertain Missing Modalities},
  booktitle = {Proceedings of ACL},
  year = {2021},
}
"""

  @property
  def own_config(self) -> IemocapConfig:
    """The TFDS config, by its own type."""
    return cast(IemocapConfig, self.builder_config)

  @property
  def dataset_spec(self) -> DatasetSpec:
    config = self.own_config
    return DatasetSpec(
      name=f'{self.name}/{config.task}, fold {config.fold}',
      modalities=tuple(ModalitySpec(n, 'vector', (w,)) for n, w in zip(MODALITIES, config.widths, strict=True)),
      task='multiclass',
      num_outputs=len(config.classes),
      data_kind='real',
      class_names=config.classes,
    )

  def extra_features(self) -> dict[str, tfds.features.FeatureConnector]:
    return {
      'speaker': tfds.features.Text(),
      'session': tfds.features.Scalar(dtype=np.int32),
      'dialogue': tfds.features.Text(),
      'raw_text': tfds.features.Text(),
    }

  @classmethod
  def config_from_options(cls, name, options, folder=None):
    name = super().config_from_options(name, {}, folder) or cls.BUILDER_CONFIGS[0].name
    default = next(c for c in cls.BUILDER_CONFIGS if c.name == name)
    return custom_config(default, options)

  def find_source(self, manual_dir: str, *, explicit: bool = True) -> str:
    return self._find(manual_dir, explicit=explicit).path

  def source_files(self, manual_dir: str, *, explicit: bool = True) -> list[str]:
    return self._find(manual_dir, explicit=explicit).files()

  def _find(self, manual_dir: str, *, explicit: bool = True) -> sources.Source:
    config = self.own_config
    source = sources.find(manual_dir, len(config.classes), config.features)
    if source is not None:
      return source
    layouts = '; or '.join(sources.description(len(config.classes), config.features))
    remedy = 'put the files there, or name' if explicit else 'name'
    raise UserError(
      f'data set {self.name}/{config.task} needs the files of one of these layouts: {layouts}; none was found in '
      f'{os.path.abspath(manual_dir)} nor its folders {", ".join(sources.FOLDERS[1:])}; {remedy} their folder with '
      '--config.data.manual_dir=DIR'
    )

  def _split_generators(self, dl_manager):
    source = self._find(os.fspath(dl_manager.manual_dir))
    # All of it is read before anything is written: some 60 MB as vectors, and a wrong file is reported at once.
    with reading.naming(source.path, 'features of IEMOCAP', 'fetch it again'):
      samples = self._read(source)
    self.require_memory(len(samples))
    self.notes = (f'{self.name}: {len(samples)} utterances from {source.path}', *_absent(samples))
    splits = split_dialogues({s['dialogue']: s['session'] for s in samples.values()}, self.own_config.fold)
    for name, dialogues in splits.items():
      if not dialogues:
        found = ', '.join(str(n) for n in sorted({s['session'] for s in samples.values()})) or 'none'
        raise UserError(
          f'{source.path}: no dialogue is left for {name} in fold {self.own_config.fold}; sessions found: {found}; '
          'expected several dialogues of each session 1 to 5: fetch the file again, or choose another '
          '--config.data.options.fold'
        )
    return {
      name: self._generate_examples({key: s for key, s in samples.items() if s['dialogue'] in dialogues})
      for name, dialogues in splits.items()
    }

  def _generate_examples(self, samples) -> Iterator[tuple[str, dict]]:
    yield from samples.items()

  def _read(self, source: sources.Source) -> dict[str, dict[str, Any]]:
    """Examples by utterance id; raises UserError where a file is not what it should be."""
    config = self.own_config
    samples = {}
    for utterance, frames in source.read():
      label = utterance.label
      if len(config.classes) == 4 and label >= 4:
        if CLASSES[label] != 'excited':
          continue
        label = CLASSES.index('happy')
      if utterance.id in samples:
        raise UserError(f'{source.path} has utterance {utterance.id} more than once; expected every one once: fetch it')
      samples[utterance.id] = {
        'id': utterance.id,
        **_vectors(frames, config.widths, utterance, source.path),
        'label': label,
        'speaker': utterance.speaker,
        'session': utterance.session,
        'dialogue': utterance.dialogue,
        'raw_text': utterance.text,
      }
    return samples


def split_dialogues(sessions: Mapping[str, int], fold: int) -> dict[str, set[str]]:
  """Dialogues of each split.

  Args:
    sessions: dialogue -> its session.
    fold: the session that is tested on.
  """
  splits: dict[str, set[str]] = {'train': set(), 'validation': set(), 'test': set()}
  for session in SESSIONS:
    # By hash, so that validation is no certain kind of dialogue: names say script or improvisation, and which.
    names = sorted((d for d, s in sessions.items() if s == session), key=lambda d: hashlib.sha256(d.encode()).digest())
    if session == fold:
      splits['test'].update(names)
    elif names:
      count = max(1, round(len(names) * _VALIDATION_SHARE))
      splits['validation'].update(names[:count])
      splits['train'].update(names[count:])
  return splits


def _vectors(
  frames: Mapping[str, np.ndarray | None], widths: tuple[int, ...], utterance: Utterance, path: str
) -> dict[str, np.ndarray]:
  """The mean frame of each modality, [D] float32; zeros where there is none. NaN and infinities stay."""
  found = tuple(w if f is None else f.shape[1] for f, w in zip(frames.values(), widths, strict=True))
  if found != widths:
    raise UserError(
      f'{path}: text, audio and vision of utterance {utterance.id} are {found} wide; expected {widths}: if all are, '
      f'set {_WIDTHS_OPTION}="{found}"'
    )
  with np.errstate(invalid='ignore', over='ignore'):
    return {
      name: np.zeros(width, np.float32) if f is None else f.mean(axis=0, dtype=np.float64).astype(np.float32)
      for (name, f), width in zip(frames.items(), widths, strict=True)
    }


def _absent(samples: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
  """A line a modality that some utterances really lack."""
  for name in MODALITIES:
    count = sum(not sample[name].any() for sample in samples.values())
    if count:
      yield f'iemocap: {count} of {len(samples)} utterances have no {name} (zeros)'
