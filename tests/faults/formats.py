"""Small files in every format that the program reads, and its readers below the writing of prepared data.

A reader gives the examples that would be prepared, which takes milliseconds; `whole` prepares them and loads them.
"""

import dataclasses
import hashlib
import pickle
import shutil
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from faults import place

_ROWS = {'train': 3, 'valid': 2, 'test': 2}
_MMSA_SHAPES = ((6, 4), (6, 3), (6, 2))
_WIDTHS = (4, 3, 2)
_SCENES = ('F_impro01', 'M_impro02', 'F_script01_1')


@dataclasses.dataclass(frozen=True)
class Format:
  """One kind of file.

  Attributes:
    dataset: the data set that reads it; '' for a config.
    file: that is mutated, relative to the folder.
    content: what a file of the kind holds, before it is written: what structured mutations change.
    dump: (path, content) -> the file.
    sealed: whether checksums cover all values, so that any other value can be told.
    free: whether another content may well mean another data set, such as in a description.
    options: of the data set.
  """

  dataset: str
  file: str
  content: Callable[[], Any]
  dump: Callable[[Path, Any], None]
  sealed: bool = False
  free: bool = False
  options: tuple[tuple[str, Any], ...] = ()

  def write(self, folder: Path) -> Path:
    """The folder with all that the data set needs; the path of the file that is mutated."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / self.file
    if self.dataset == 'folder':
      place.write_data(folder)
      if path.suffix == '.parquet':
        (folder / 'data.npz').unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    self.dump(path, self.content())
    return path


def _npz(path: Path, content: dict[str, Any], save: Callable[..., None] = np.savez) -> None:
  with open(path, 'wb') as file:
    save(file, **content)


def _compressed(path: Path, content: dict[str, Any]) -> None:
  _npz(path, content, np.savez_compressed)


def _columns() -> dict[str, list[Any]]:
  """The same as lists."""
  arrays = place.arrays()
  found = {name: values.tolist() for name, values in arrays.items() if not name.endswith('_length')}
  for name in ('pulse', 'words'):
    found[name] = [row[:n] for row, n in zip(found[name], arrays[f'{name}_length'].tolist(), strict=True)]
  return found


def _parquet(path: Path, content: Any, **options: Any) -> None:
  table = content if isinstance(content, pa.Table) else pa.table(content)
  pq.write_table(table, path, row_group_size=15, **options)


def _parquet_with_checksums(path: Path, content: Any) -> None:
  _parquet(path, content, write_page_checksum=True)


def _text(path: Path, content: str) -> None:
  path.write_text(content, encoding='utf-8')


def _pickled(protocol: int) -> Callable[[Path, Any], None]:
  return lambda path, content: path.write_bytes(pickle.dumps(content, protocol=protocol)) and None


def _mmsa() -> dict[str, Any]:
  rng = np.random.default_rng(0)
  found = {}
  for name, n in _ROWS.items():
    words = _MMSA_SHAPES[0][0]
    bert = np.ones((n, 3, words), np.int64)
    bert[:, 1] = np.arange(words) < rng.integers(2, words + 1, n)[:, None]
    found[name] = {
      'raw_text': np.array([f'text {i}' for i in range(n)], dtype=object),
      'id': [f'{name}{i}$_${i}' for i in range(n)],
      'text_bert': bert,
      'annotations': ['Neutral'] * n,
      'regression_labels': rng.uniform(-3, 3, n),
      **{
        key: rng.standard_normal((n, *shape)).astype(np.float32)
        for key, shape in zip(('text', 'audio', 'vision'), _MMSA_SHAPES, strict=True)
      },
    }
  return found


def _iemocap() -> list[Any]:
  """The pickle of bc-LSTM."""
  rng = np.random.default_rng(0)
  ids: dict[str, list[str]] = {}
  for session in range(1, 6):
    for scene in _SCENES:
      dialogue = f'Ses0{session}{scene}'
      ids[dialogue] = [f'{dialogue}_{speaker}{i:03d}' for i, speaker in enumerate('FM')]

  def vectors(width: int) -> dict[str, list[np.ndarray]]:
    return {d: [rng.standard_normal(width).astype(np.float32) for _ in names] for d, names in ids.items()}

  said = {d: [f'said {n}' for n in names] for d, names in ids.items()}
  labels = {d: [int(rng.integers(6)) for _ in names] for d, names in ids.items()}
  speakers = {d: ['F', 'M'] for d in ids}
  train = {d for d in ids if not d.startswith('Ses05')}
  return [ids, speakers, labels, *map(vectors, _WIDTHS), said, train, sorted(set(ids) - train)]


def _mosi_words() -> dict[str, np.ndarray]:
  rng, n, words = np.random.default_rng(0), 15, 44
  texts = [f'words {i}'.encode() for i in range(n)]
  return {
    'utt_id': np.array([f'v{i % 5}_{i}' for i in range(n)]),
    'video_id': np.array([f'v{i % 5}' for i in range(n)]),
    'label': rng.uniform(-3, 3, n).astype(np.float32),
    'length': rng.integers(1, words, n),
    'text_word_ids': rng.integers(2, 680, (n, words), np.int32),
    'audio_covarep': rng.standard_normal((n, words, 74)).astype(np.float32),
    'vision_facet': rng.standard_normal((n, words, 47)).astype(np.float32),
    'transcript_utf8': np.frombuffer(b''.join(texts), np.uint8),
    'transcript_offsets': np.cumsum([0, *map(len, texts)]),
  }


def _mosi_utterance() -> dict[str, np.ndarray]:
  rng, n = np.random.default_rng(0), 12
  texts = [f'said {i}'.encode() for i in range(n)]
  split = np.arange(n) % 3
  widths = {'audio_opensmile': 73, 'vision_c3d_supervised': 100, 'text_cnn_supervised': 100, 'text_minilm': 384}
  return {
    'utt_id': np.array([f'v{i}_{i}' for i in range(n)]),
    'video_id': np.array([f'v{i}' for i in range(n)]),
    'label': rng.uniform(-3, 3, n).astype(np.float32),
    'split': split,
    'split_bclstm': np.where(split == 2, 2, 0),
    'split_clean': split,
    **{name: rng.standard_normal((n, width)).astype(np.float32) for name, width in widths.items()},
    'text_word_ids': rng.integers(2, 3000, (n, 50), np.int32),
    'text_word_len': rng.integers(1, 50, n),
    'transcript_utf8': np.frombuffer(b''.join(texts), np.uint8),
    'transcript_offsets': np.cumsum([0, *map(len, texts)]),
  }


def _config() -> str:
  return (Path(place.__file__).resolve().parents[2] / 'configs' / 'npz.py').read_text(encoding='utf-8')


_IEMOCAP = {'dataset': 'iemocap/six', 'file': 'IEMOCAP_features.pkl', 'options': (('widths', _WIDTHS),)}
FORMATS = {
  'npz': Format('folder', 'data.npz', place.arrays, _npz, sealed=True),
  'compressed npz': Format('folder', 'data.npz', place.arrays, _compressed, sealed=True),
  'parquet': Format('folder', 'data.parquet', _columns, _parquet),
  'parquet with checksums': Format('folder', 'data.parquet', _columns, _parquet_with_checksums, sealed=True),
  'dataset.toml': Format('folder', 'dataset.toml', lambda: place.TOML, _text, free=True),
  **{f'mmsa {p}': Format('cmu_mosi/aligned', 'aligned_50.pkl', _mmsa, _pickled(p)) for p in (2, 3, 4, 5)},
  **{f'iemocap {p}': Format(content=_iemocap, dump=_pickled(p), **_IEMOCAP) for p in (2, 4)},
  'mosi_words': Format('mosi_words', 'mosi_valid_aligned.npz', _mosi_words, _npz, sealed=True),
  'mosi_utterance': Format('mosi_utterance/clean', 'mosi_utterance.npz', _mosi_utterance, _npz, sealed=True),
  'config': Format('', 'config.py', _config, _text, free=True),
}


def small_shapes() -> None:
  """Lets CMU-MOSI be small; before it is used."""
  from dream_jax.data.builders.cmu_mosi.cmu_mosi import CmuMosi

  for config in CmuMosi.BUILDER_CONFIGS:
    config.shapes = _MMSA_SHAPES


def examples(of: Format, folder: Path, scratch: Path) -> dict[str, Any]:
  """What a reader finds: spec, and of every split the examples.

  Raises:
    UserError: it is refused.
  """
  if not of.dataset:
    from dream_jax.cli import flags
    from dream_jax.config import recipe

    config = flags.parse(['main', f'--config={folder / of.file}', '--config.model.width=4']).config
    return {'config': str(recipe.recipe_from_config(config))}
  from dream_jax.data.catalogue import builder_class

  name, _, variant = of.dataset.partition('/')
  own = str(folder) if name == 'folder' else None
  made = builder_class(of.dataset)
  config = made.config_from_options(variant or None, dict(of.options), own)
  builder = made(data_dir=str(scratch), config=config)
  builder.find_source(str(folder), explicit=True)
  splits = builder._split_generators(types.SimpleNamespace(manual_dir=str(folder)))
  # TFDS writes what its features can hold; that is a reader, too.
  encode = builder.info.features.encode_example
  found: dict[str, Any] = {'spec': str(builder.dataset_spec)}
  for split, generated in splits.items():
    found[split] = {str(key): _digest(encode(sample)) for key, sample in generated}
  return found


def whole(of: Format, folder: Path, scratch: Path) -> dict[str, Any]:
  """The same through `load_dataset`.

  Raises:
    UserError: it is refused.
  """
  if not of.dataset:
    return examples(of, folder, scratch)
  from dream_jax.data.datasets import load_dataset

  shutil.rmtree(scratch, ignore_errors=True)
  own = {'folder': str(folder)} if of.dataset == 'folder' else {'manual_dir': str(folder)}
  dataset = load_dataset(of.dataset, tfds_dir=str(scratch), options=dict(of.options), **own)
  found: dict[str, Any] = {'spec': str(dataset.spec)}
  for name, split in dataset.splits.items():
    arrays = {'label': split.label, **split.features, **split.extras}
    found[name] = {str(key): _digest({n: values[i] for n, values in arrays.items()}) for i, key in enumerate(split.ids)}
  return found


def _digest(sample: dict[str, Any]) -> str:
  digest = hashlib.sha256()
  for part in _leaves('', sample):
    digest.update(part)
  return digest.hexdigest()


def _leaves(name: str, value: Any) -> Iterator[bytes]:
  if isinstance(value, dict):
    for key in sorted(value):
      yield from _leaves(f'{name}/{key}', value[key])
  else:
    array = np.asarray(value)
    yield f'{name}:{array.dtype.kind}{array.shape}'.encode()
    yield str(value).encode() if array.dtype.kind in 'OUS' else array.tobytes()
