"""Reads the feature files of MMSA (github.com/thuiar/MMSA), the form in which sentiment data sets are passed around.

A file is a pickle `{'train'|'valid'|'test': {'id', 'text', 'audio', 'vision', 'regression_labels', ...}}`. Its arrays
are checked here against the shapes a data set declares: files of different data sets bear the same name. Features stay
in the file and are read row by row. Letters: N samples of a split, T time steps, D feature width.
"""

import collections
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dream_jax.data import reading
from dream_jax.data.pickles.file_arrays import FileArray, StackedRows
from dream_jax.data.pickles.safe_pickle import load_arrays
from dream_jax.errors import UserError

SPLITS = {'train': 'train', 'validation': 'valid', 'test': 'test'}
_REQUIRED = ('id', 'text', 'audio', 'vision', 'regression_labels')
# Labels of single modalities, which CH-SIMS has.
UNIMODAL_LABELS = {'text': 'regression_labels_T', 'audio': 'regression_labels_A', 'vision': 'regression_labels_V'}
_ID = re.compile(r'^(.+?)\$_\$(.+)$')
_TEXTS = ('raw_text', 'annotations')


def read_mmsa(
  path: str,
  shapes: Mapping[str, tuple[int, int]],
  *,
  aligned: bool,
  label_range: tuple[float, float],
  unimodal_labels: bool = False,
  published: bool = False,
) -> dict[str, dict[str, Any]]:
  """Checked content of an MMSA pickle: our split name -> key -> [N, ...] array, as in the file.

  Args:
    path: the file.
    shapes: [T, D] of 'text', 'audio' and 'vision'.
    aligned: whether all modalities share the time steps of the text; else the file has lengths of audio and vision.
    label_range: (lowest, highest) regression label.
    unimodal_labels: whether the file has to have the labels of single modalities, too.
    published: whether it is the file that everybody has. Lengths above T, which MMSA's tools write where they have cut
      a longer sample, are those of whole samples there; in another file they may as well be mistakes.

  Raises:
    UserError: not such a file; the message says what was found and what was expected.
  """
  with reading.naming(path, 'a file of MMSA', 'fetch it again'):
    splits = _read(path, shapes, aligned, label_range, unimodal_labels)
    if not published:
      for ours, theirs in SPLITS.items():
        _refuse_longer(splits[ours], shapes, f'{path}: split {theirs!r}')
    return splits


def _read(path: str, shapes: Mapping[str, tuple[int, int]], aligned: bool, label_range, unimodal_labels: bool) -> dict:
  content = load_arrays(path)
  required = _REQUIRED if aligned else (*_REQUIRED, 'audio_lengths', 'vision_lengths')
  if unimodal_labels:
    required = (*required, *UNIMODAL_LABELS.values())
  if not isinstance(content, dict):
    raise UserError(f'{path} holds a {type(content).__name__}; expected a dict with the splits train, valid and test')
  splits = {}
  for ours, theirs in SPLITS.items():
    if not isinstance(content.get(theirs), dict):
      raise UserError(f'{path} has no split {theirs!r}; found {_keys(content)}; expected train, valid and test')
    split = content[theirs]
    missing = [key for key in required if key not in split]
    if missing:
      kind = 'aligned' if aligned else 'unaligned'
      found = f'found {_keys(split)}: is this the file of another data set?'
      raise UserError(f'{path}: split {theirs!r} lacks {", ".join(missing)}, which {kind} files have; {found}')
    splits[ours] = _checked(split, shapes, label_range, f'{path}: split {theirs!r}')
  for key in ('text_bert', *_TEXTS):
    having = [theirs for ours, theirs in SPLITS.items() if key in splits[ours]]
    if having and len(having) < len(SPLITS):
      raise UserError(
        f'{path} has {key} in split {having[0]!r} and not in all; expected it in all or none: fetch it again'
      )
  return splits


def longer(split: Mapping[str, Any], shapes: Mapping[str, tuple[int, int]]) -> dict[str, np.ndarray]:
  """Modality -> which samples of a split that `read_mmsa` returned have a length above T, bool [N]."""
  given = {name: split[f'{name}_lengths'] for name in shapes if f'{name}_lengths' in split}
  return {name: lengths > shapes[name][0] for name, lengths in given.items()}


def _refuse_longer(split: Mapping[str, Any], shapes: Mapping[str, tuple[int, int]], where: str) -> None:
  for name, above in longer(split, shapes).items():
    if above.any():
      row, longest = int(np.argmax(above)), shapes[name][0]
      raise UserError(
        f'{where}: {name}_lengths has {split[f"{name}_lengths"][row]:g} in row {row} ({above.sum()} of {len(above)} '
        f'rows are above {longest}); expected 0 to {longest}, the frames that {name} has: where longer samples were '
        f'cut, write {longest} there'
      )


def samples(
  path: str, split: Mapping[str, Any], shapes: Mapping[str, tuple[int, int]], *, unimodal_labels: bool = False
) -> Iterator[dict[str, Any]]:
  """Samples of a split that `read_mmsa` returned: id, modalities [T, D] float32 and their lengths, label and extras.

  Values beyond the length are zero. NaN and infinities are left as they are.

  Args:
    path: the file, for messages.
    split: as `read_mmsa` returned it.
    shapes: as there.
    unimodal_labels: as there.

  Raises:
    UserError: a row of `text_bert` is not what it should be, or the file cannot be read any more.
  """
  for i in range(len(split['id'])):
    with reading.naming(path, 'a file of MMSA', 'fetch it again'), np.errstate(over='ignore'):
      sample = _sample(split, i, shapes, f'{path}: row {i}', unimodal_labels)
    yield sample


def _sample(split: Mapping[str, Any], i: int, shapes, where: str, unimodal_labels: bool) -> dict[str, Any]:
  sample = {'id': split['id'][i], 'label': np.float32(split['regression_labels'][i])}
  bert = _whole(split['text_bert'][i], f'{where} of text_bert') if 'text_bert' in split else None
  if bert is not None and not ((bert[1] == 0) | (bert[1] == 1)).all():
    raise UserError(f'{where} of text_bert has an attention mask of other than 0 and 1: fetch the file again')
  # BERT gives padding tokens a state too, so for text only the attention mask tells the length.
  text_length = int(bert[1].sum()) if bert is not None else 0
  for name, (longest, _) in shapes.items():
    frames = np.array(split[name][i], np.float32)
    length = text_length or _last_frame(frames)
    if name != 'text':
      declared = int(split[f'{name}_lengths'][i]) if f'{name}_lengths' in split else length
      length = max(declared, _last_frame(frames))  # A frame that says something is not padding.
    length = min(max(length, 1), longest)
    frames[length:] = 0.0
    sample |= {name: frames, f'{name}_length': length}
  sample['text_bert'] = np.zeros((3, shapes['text'][0]), np.int32) if bert is None else bert
  sample['raw_text'] = split['raw_text'][i] if 'raw_text' in split else ''
  sample['annotation'] = split['annotations'][i] if 'annotations' in split else ''
  if unimodal_labels:
    sample |= {f'label_{name}': np.float32(split[key][i]) for name, key in UNIMODAL_LABELS.items()}
  return sample


def _whole(values: np.ndarray, where: str) -> np.ndarray:
  """The values as int32; raises UserError where one is none."""
  with np.errstate(invalid='ignore'):
    whole = values.astype(np.int32)
  if (whole != values).any():
    raise UserError(f'{where} holds {values[whole != values][0]}; expected whole numbers of 32 bits: fetch it again')
  return whole


def _checked(split: dict[str, Any], shapes, label_range: tuple[float, float], where: str) -> dict[str, Any]:
  """The split with ids as list of str and labels as float32 [N]; raises UserError where anything is off."""
  ids = _texts(split['id'], f'{where}: id')
  if not ids:
    raise UserError(f'{where} is empty')
  odd = next((i for i in ids if not _ID.match(i)), None)
  if odd is not None:
    raise UserError(f'{where} has id {odd!r}; expected VIDEO$_$CLIP')
  twice = [i for i, count in collections.Counter(ids).items() if count > 1]
  if twice:
    raise UserError(f'{where} has id {min(twice)!r} more than once; expected every id once')
  expected = {name: (len(ids), *shape) for name, shape in shapes.items()}
  lengths = [key for key in ('audio_lengths', 'vision_lengths') if key in split]
  labels = [key for key in ('regression_labels', *UNIMODAL_LABELS.values()) if key in split]
  expected |= {key: (len(ids),) for key in (*lengths, *labels)}
  if 'text_bert' in split:
    expected['text_bert'] = (len(ids), 3, shapes['text'][0])
  checked = dict(split, id=ids)
  for key, shape in expected.items():
    values = _as_array(split[key], f'{where}: {key}')
    found = values.shape[:1] if key in labels and values.shape == (len(ids), 1) else values.shape
    if found != shape:
      question = 'is this the file of another data set?'
      raise UserError(f'{where}: {key} has shape {values.shape}; expected {shape}: {question}')
    if values.dtype.kind not in 'fiu':
      raise UserError(f'{where}: {key} holds {values.dtype}; expected numbers')
    # What is small is read by row often.
    checked[key] = np.asarray(values).reshape(shape) if len(shape) == 1 else values
  for key in _TEXTS:
    if key in split:
      checked[key] = _texts(split[key], f'{where}: {key}', also=(int, float, type(None)))
      if len(checked[key]) != len(ids):
        raise UserError(f'{where}: {key} has {len(checked[key])} rows; expected {len(ids)}')
  for key in lengths:
    _whole(checked[key], f'{where}: {key}')
    if (checked[key] < 0).any():
      raise UserError(
        f'{where}: {key} has {checked[key].min()} in it; expected numbers of frames: fetch the file again'
      )
  low, high = label_range
  for key in labels:
    values = checked[key]
    if not (np.isfinite(values).all() and values.min() >= low - 1e-6 and values.max() <= high + 1e-6):
      raise UserError(f'{where}: {key} lie in [{values.min()}, {values.max()}]; expected [{low}, {high}]')
  return checked


def _texts(values: Any, where: str, also: tuple[type, ...] = ()) -> list[str]:
  """A list or an array of texts, each exactly as in the file, values of the types in `also` as Python writes them."""
  if isinstance(values, np.ndarray | FileArray) and len(values.shape) == 1:
    values = np.asarray(values).tolist()
  if not isinstance(values, list | tuple):
    raise UserError(f'{where} is a {type(values).__name__}; expected a list of texts')
  values = [str(value) if isinstance(value, also) else value for value in values]
  return [reading.exact_text(value, f'{where} of row {i}') for i, value in enumerate(values)]


def _as_array(values: Any, where: str) -> np.ndarray | FileArray | StackedRows:
  """What has a shape as it is; a list as an array, arrays of one shape in it unread."""
  if isinstance(values, np.ndarray | FileArray):
    return values
  parts = values if isinstance(values, list) else []
  arrays = [p for p in parts if isinstance(p, np.ndarray | FileArray) and p.shape]
  if arrays and len(arrays) == len(parts) and len({(a.shape, a.dtype) for a in arrays}) == 1:
    return StackedRows(arrays)
  try:
    return np.asarray(values)
  except ValueError as error:
    raise UserError(f'{where} is a list of unequal parts; expected one array') from error


def _last_frame(frames: np.ndarray) -> int:
  """Number of frames up to the last that is not all zero (NaN is not zero)."""
  used = np.flatnonzero((frames != 0).any(axis=-1))
  return int(used[-1]) + 1 if len(used) else 0


def _keys(content: dict) -> str:
  return ', '.join(str(k) for k in list(content)[:20]) or 'nothing'
