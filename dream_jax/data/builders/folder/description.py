"""`dataset.toml`: what a user says about a folder of data, read strictly. The data files themselves are not opened."""

import dataclasses
import glob
import json
import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from dream_jax.errors import UserError, did_you_mean, near
from dream_jax.machine.paths import expanded
from dream_jax.spec import DATA_KINDS, MODALITY_KINDS, TAKEN, TASKS

FILE = 'dataset.toml'
SPLITS = ('train', 'validation', 'test')
SUFFIXES = ('.npz', '.parquet')
_ALIASES = {'valid': 'validation', 'val': 'validation', 'dev': 'validation'}
_KEYS = ('name', 'task', 'label', 'classes', 'splits', 'group', 'id', 'data_kind', 'label_range', 'modalities')
_MODALITY_KEYS = ('kind', 'array', 'length', 'max_length', 'vocab_size', 'unk_id')
_KINDS_WITH = {
  'length': ('sequence', 'tokens'),
  'max_length': ('sequence', 'tokens'),
  'vocab_size': ('tokens',),
  'unk_id': ('tokens',),
}
_EXAMPLE = 'splits = { train = 0.7, validation = 0.1, test = 0.2 }'
_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*')
_LONGEST_NAME = 100
_LARGEST = 2**31 - 1  # Ids and lengths are int32.
_WIDEST = 3.4e38  # Labels are float32.


@dataclasses.dataclass(frozen=True)
class Modality:
  """One modality as the user describes it.

  Attributes:
    name: in outputs and reports.
    kind: one of MODALITY_KINDS.
    array: the array or column that holds it.
    length: the array of lengths, where the user names one.
    max_length: frames or tokens that are kept; all when None.
    vocab_size: number of token ids; counted when None.
    unk_id: the id that stands for a missing token.
  """

  name: str
  kind: str
  array: str
  length: str | None = None
  max_length: int | None = None
  vocab_size: int | None = None
  unk_id: int = 1

  @property
  def has_length(self) -> bool:
    return self.kind in ('sequence', 'tokens')


@dataclasses.dataclass(frozen=True)
class Description:
  """A checked `dataset.toml`.

  Attributes:
    path: the file, for messages.
    text: the file as it is.
    name: name of the data set.
    task: one of TASKS.
    label: the array or column with the target.
    classes: names of the classes; empty when not given.
    modalities: at least two, in order.
    split_column: the array or column that names the split of each row, or None.
    fractions: split -> share of the samples; with `split_files` at most validation's share of the train files.
    files: path -> the split that all its rows belong to, None where fractions or a column decide; sorted by path.
    group: array or column whose equal values must share a split, or None.
    id: array or column with unique names of the samples, or None.
    data_kind: one of DATA_KINDS.
    label_range: (lowest, highest) label of a regression task; (0, 0) when not given.
  """

  path: str
  text: str
  name: str
  task: str
  label: str
  classes: tuple[str, ...]
  modalities: tuple[Modality, ...]
  split_column: str | None
  fractions: Mapping[str, float]
  files: Mapping[str, str | None]
  group: str | None
  id: str | None
  data_kind: str
  label_range: tuple[float, float]

  @property
  def folder(self) -> str:
    return os.path.dirname(self.path)

  def relative(self, path: str) -> str:
    """The path of a data file as the user would name it in `dataset.toml`."""
    return os.path.relpath(path, self.folder)

  def unread(self) -> list[str]:
    """Data files directly in the folder that no split names."""
    return [path for path in _files_in(self.folder) if path not in self.files]


def split_named(text: str) -> str | None:
  """The split that people mean by a word: 'valid', 'val' and 'dev' are validation; None for any other word."""
  text = _ALIASES.get(text, text)
  return text if text in SPLITS else None


def read_description(folder: str) -> Description:
  """What the `dataset.toml` of a folder says.

  Raises:
    UserError: no such folder or file, or anything in it that is unknown, missing or of the wrong type.
  """
  folder = os.path.abspath(expanded(folder, 'config.data.dir'))
  path = os.path.join(folder, FILE)
  if not os.path.isdir(folder):
    what = 'is a file' if os.path.exists(folder) else 'does not exist'
    raise UserError(f'the data folder {folder} {what}; expected a folder with {FILE} and .npz or .parquet files')
  try:
    with open(path, encoding='utf-8-sig') as file:
      text = file.read()
    content = tomllib.loads(text)
  except FileNotFoundError:
    found = ', '.join(sorted(os.listdir(folder))[:8]) or 'nothing'
    message = f'{folder} has no {FILE}; found {found}: write one with task, label, splits and [modalities]'
    raise UserError(f'{message}; the first lines of configs/npz.py show it') from None
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'{path} cannot be read ({error}); expected a UTF-8 text file') from None
  except (ValueError, RecursionError) as error:  # Of TOML, of numbers with thousands of digits, of endless brackets.
    raise UserError(f'{path} is not valid TOML: {error}; expected lines such as task = "binary"') from None
  return _checked(path, text, content)


def _checked(path: str, text: str, content: dict[str, Any]) -> Description:
  table = _Table(path, content, _KEYS, '')
  task = table.choice('task', TASKS)
  classes = tuple(table.strings('classes'))
  column, fractions, files = _read_splits(table, os.path.dirname(path))
  description = Description(
    path=path,
    text=text,
    name=table.string('name', os.path.basename(os.path.dirname(path)) or 'folder').strip(),
    task=task,
    label=table.string('label'),
    classes=classes,
    modalities=_read_modalities(table),
    split_column=column,
    fractions=fractions,
    files=files,
    group=table.string('group', '') or None,
    id=table.string('id', '') or None,
    data_kind=table.choice('data_kind', DATA_KINDS, 'real'),
    label_range=_read_label_range(table, task),
  )
  if not description.name.isprintable() or not 0 < len(description.name) <= _LONGEST_NAME:
    raise table.fault('name', f'one line of text of at most {_LONGEST_NAME} characters')
  _check_classes(table, task, classes)
  for modality in description.modalities:
    if modality.array == description.label:
      raise UserError(f'{path}: modality {modality.name} is the label {description.label!r}; remove it or name another')
  return description


class _Table:
  """A TOML table whose keys are taken one by one, each with its type; a key that is not known is refused at once."""

  def __init__(self, path: str, content: Mapping[str, Any], known: Sequence[str], prefix: str):
    self.path, self.content, self.prefix = path, content, prefix
    for key in content:
      if key not in known:
        raise UserError(f'{path}: unknown key {prefix + key!r}; {did_you_mean(key, known)}')

  def fault(self, key: str, expected: str) -> UserError:
    """The error for a value that is not as expected, or not there."""
    if key in self.content:
      return UserError(f'{self.path}: {self.prefix}{key} is {_show(self.content[key])}; expected {expected}')
    return UserError(f'{self.path} has no {self.prefix}{key}; expected {expected}')

  def string(self, key: str, default: str | None = None) -> str:
    value = self.content.get(key, default)
    if not isinstance(value, str) or (key in self.content and not value.strip()):
      raise self.fault(key, 'text in quotes' + ('' if key == 'name' else ', the name of an array or column'))
    return value

  def strings(self, key: str) -> list[str]:
    value = self.content.get(key, [])
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
      raise self.fault(key, 'a list of names in quotes such as ["calm", "tired"]')
    return value

  def choice(self, key: str, known: Sequence[str], default: str | None = None) -> str:
    value = self.content.get(key, default)
    if value not in known:
      meant = near(value, known) if isinstance(value, str) else []
      hint = f'; did you mean {" or ".join(meant)}?' if meant else ''
      raise self.fault(key, f'one of {", ".join(known)}{hint}')
    return value

  def integer(self, key: str, lowest: int) -> int | None:
    value = self.content.get(key)
    if value is not None and (type(value) is not int or not lowest <= value <= _LARGEST):
      raise self.fault(key, f'a whole number from {lowest} to {_LARGEST}')
    return value


def _read_modalities(table: _Table) -> tuple[Modality, ...]:
  entries = table.content.get('modalities')
  if not isinstance(entries, dict):
    raise table.fault('modalities', 'a table [modalities] with lines such as eeg = "sequence"')
  modalities = [_read_modality(table.path, name, entry) for name, entry in entries.items()]
  names = [m.name for m in modalities]
  if len(modalities) < 2:
    found = ', '.join(names) or 'none'
    raise UserError(f'{table.path} has {len(modalities)} modalities ({found}); expected at least 2 in [modalities]')
  for m in modalities:
    for other in modalities if m.has_length else ():
      found = next((n for n in (other.name, other.array) if n in length_names(m)), None)
      if found is not None and other is not m:
        raise UserError(
          f'{table.path}: modality {other.name} is called like the lengths of {m.name} ({found}); if it is those, '
          'remove the line: they are found by that name; else rename it'
        )
  return tuple(modalities)


def length_names(modality: Modality) -> list[str]:
  """The names by which the lengths of a modality are found where the user names none."""
  return [f'{name}_{end}' for name in (modality.name, modality.array) for end in ('length', 'lengths')]


def _read_modality(path: str, name: str, entry: Any) -> Modality:
  is_kind = isinstance(entry, str) and entry in MODALITY_KINDS
  if name in _KEYS and not is_kind and not (isinstance(entry, dict) and 'kind' in entry):
    raise UserError(f'{path}: {name} stands below [modalities]; move it above that line')
  if not _NAME.fullmatch(name) or name in TAKEN or len(name) > _LONGEST_NAME:
    raise UserError(
      f'{path}: a modality is called {_show(name)}; expected letters, digits and _, a letter first, at most '
      f'{_LONGEST_NAME}, and none of {", ".join(TAKEN)}: choose another name, and say array = {_show(name)}'
    )
  content = entry if isinstance(entry, dict) else {'kind': entry}
  table = _Table(path, content, _MODALITY_KEYS, f'modalities.{name}.')
  kind = table.choice('kind', MODALITY_KINDS)
  for key in content:
    if kind not in _KINDS_WITH.get(key, MODALITY_KINDS):
      raise UserError(f'{path}: modalities.{name} has {key}, which kind {kind} does not take; remove it')
  modality = Modality(
    name=name,
    kind=kind,
    array=table.string('array', name),
    length=table.string('length', '') or None,
    max_length=table.integer('max_length', 1),
    vocab_size=table.integer('vocab_size', 2),
    unk_id=table.integer('unk_id', 1) or 1,
  )
  if modality.vocab_size is not None and modality.unk_id >= modality.vocab_size:
    raise table.fault('unk_id', f'an id below vocab_size = {modality.vocab_size}')
  return modality


def _read_splits(table: _Table, folder: str) -> tuple[str | None, dict[str, float], dict[str, str | None]]:
  """(column, fractions, files) as in `Description`."""
  value = table.content.get('splits')
  expected = f'{_EXAMPLE}, or names of files in their place, or the name of a column'
  if isinstance(value, str) and value:
    return value, {}, dict.fromkeys(_data_files(table.path, folder))
  if not isinstance(value, dict):
    raise table.fault('splits', expected)
  names = [split_named(key) or key for key in value]
  twice = next((name for name in names if names.count(name) > 1), None)
  if twice is not None:
    raise UserError(f'{table.path}: splits names {twice} twice, as {" and ".join(value)}; expected each split once')
  value = dict(zip(names, value.values(), strict=True))
  own = _Table(table.path, value, SPLITS, 'splits.')
  if sorted(value) != sorted(SPLITS):
    raise UserError(f'{table.path}: splits lacks {", ".join(s for s in SPLITS if s not in value)}; expected {expected}')
  fractions = {split: value[split] for split in SPLITS if isinstance(value[split], int | float)}
  for split, share in fractions.items():
    if isinstance(share, bool) or not 0 < share < 1:
      raise own.fault(split, 'a share above 0 and below 1, or names of files')
  if len(fractions) == len(SPLITS):
    if not math.isclose(sum(fractions.values()), 1, abs_tol=1e-6):
      raise UserError(f'{table.path}: the fractions of splits sum to {sum(fractions.values()):g}; expected 1')
    return None, fractions, dict.fromkeys(_data_files(table.path, folder))
  if fractions.keys() - {'validation'}:
    raise UserError(
      f'{table.path}: splits mixes fractions and files; expected all fractions, all files, or files with a fraction '
      'for validation, which is then taken from the train files'
    )
  return None, fractions, _split_files(own, folder)


def _split_files(table: _Table, folder: str) -> dict[str, str | None]:
  """The files of each split that names files."""
  files: dict[str, str | None] = {}
  for split in SPLITS:
    patterns = table.content[split]
    if isinstance(patterns, int | float):
      continue
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, list) or not patterns or not all(isinstance(p, str) for p in patterns):
      raise table.fault(split, 'a share, the name of a file such as "train.npz", or a list of names')
    for pattern in patterns:
      is_file = os.path.isfile(os.path.join(folder, pattern))  # Its name may hold what a pattern reads otherwise.
      found = [pattern] if is_file else sorted(glob.glob(pattern, root_dir=folder, recursive=True))
      if not found:
        raise UserError(f'{table.path}: splits.{split} names {pattern!r}; no such file among {_content(folder)}')
      for path in (part for f in found for part in _parts(os.path.join(folder, f))):
        if files.setdefault(path, split) != split:
          raise UserError(f'{table.path}: {path} is in the splits {files[path]} and {split}; expected one split a file')
  for path in files:
    if not path.endswith(SUFFIXES):
      raise UserError(f'{table.path}: splits names {path}; expected {" or ".join(SUFFIXES)} files')
  return dict(sorted(files.items()))


def _data_files(path: str, folder: str) -> list[str]:
  """Every data file directly in the folder."""
  found = _files_in(folder)
  if not found:
    raise UserError(f'{path}: no .npz or .parquet file among {_content(folder)}; put the data there')
  if len({os.path.splitext(f)[1] for f in found}) > 1:  # Most likely the same samples twice.
    raise UserError(f'{path}: found .npz and .parquet files side by side; keep one kind, or name files in splits')
  return found


def _files_in(folder: str) -> list[str]:
  names = [f for f in sorted(os.listdir(folder)) if f.endswith(SUFFIXES) and f[0] not in '._']
  return [part for name in names for part in _parts(os.path.join(folder, name))]


def _parts(path: str) -> list[str]:
  """The file itself; of a table that Spark or Dask wrote as a folder called x.parquet, its part files."""
  if not os.path.isdir(path):
    return [path]
  found = sorted(f for f in os.listdir(path) if f[0] not in '._')
  parts = [os.path.join(path, f) for f in found if f.endswith('.parquet')]
  other = [f for f in found if not f.endswith('.parquet') or os.path.isdir(os.path.join(path, f))]
  if other or not parts or not path.endswith('.parquet'):
    shown = ', '.join(other[:4] or found[:4]) or 'nothing'
    raise UserError(
      f'{path} is a folder with {shown} in it; expected a file, or a folder NAME.parquet of .parquet files and nothing '
      f'else: name the files in splits, as train = "{os.path.basename(path)}/*.parquet"'
    )
  return parts


def _content(folder: str) -> str:
  names = sorted(os.listdir(folder))
  return f'{", ".join(names[:8])}{" ..." if len(names) > 8 else ""} (in {folder})'


def _read_label_range(table: _Table, task: str) -> tuple[float, float]:
  value = table.content.get('label_range')
  if value is None:
    return 0.0, 0.0
  numbers = isinstance(value, list) and len(value) == 2 and all(type(v) in (int, float) for v in value)
  if not numbers or not -_WIDEST <= value[0] < value[1] <= _WIDEST or task != 'regression':
    raise table.fault('label_range', '[LOWEST, HIGHEST] of a regression task')
  return float(value[0]), float(value[1])


def _check_classes(table: _Table, task: str, classes: tuple[str, ...]) -> None:
  if 'classes' not in table.content:
    return
  if task == 'regression':
    raise UserError(f'{table.path} has classes, which task regression has not; remove them or change the task')
  if len(classes) < 2 or (task == 'binary' and len(classes) != 2):
    raise table.fault('classes', 'two names, of 0 and of 1' if task == 'binary' else 'at least two names')
  if len(set(classes)) < len(classes) or not all(c and c == c.strip() and c.isprintable() for c in classes):
    raise table.fault('classes', 'different names without space around them')


def _show(value: Any) -> str:
  """A value as TOML writes it, shortened."""
  try:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)
  except (ValueError, RecursionError):  # Thousands of digits, or brackets in brackets.
    text = f'a {type(value).__name__} too long to show'
  return text if len(text) <= 60 else text[:57] + '...'
