"""Arrays from outside, as a data set holds them: every number that is given to a model is looked at here.

An input is used for what it holds, or refused in one line that names it, the row, what was found and what was expected.

Dimension letters: B samples of a batch, T time, D features.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from dream_jax.errors import UserError, did_you_mean
from dream_jax.spec import DatasetSpec, ModalitySpec

_CHUNK = 1024  # Samples looked at together.
_KINDS = {
  'b': 'true and false',
  'c': 'complex numbers',
  'm': 'durations',
  'M': 'dates',
  'O': 'Python objects',
  'S': 'text',
  'T': 'text',
  'U': 'text',
  'V': 'records',
}


def received(spec: DatasetSpec, inputs: Mapping[str, Any], *, beyond: bool = True) -> dict[str, np.ndarray]:
  """Name -> float32 [B, ...], tokens int32 [B, T], and for both sequences and tokens `<name>_length` int32 [B], 1 to T.

  A length of 0 says that the sample lacks the modality: it becomes zeros of the full length T, whatever was in its
  place. Without lengths, those of the content are taken: up to the last frame that holds more than zeros and NaN, T
  where none does. Arrays that are as they should be are not copied.

  Args:
    spec: the data set.
    inputs: name -> anything that NumPy reads as numbers [B, ...] of the spec's shape; `<name>_length` [B] or absent.
    beyond: refuse what lies beyond a length, unless it is zeros, NaN, or one frame or id up to the end.

  Raises:
    UserError: an input is unknown, absent, no numbers, of another shape, or of another number of samples; a length that
      is no whole number from 0 to T; a token id that is outside the vocabulary; a number that float32 cannot hold; or
      content beyond a length.
  """
  _check_names(spec, inputs)
  outputs: dict[str, np.ndarray] = {}
  for modality in spec.modalities:
    x = _array(modality.name, inputs[modality.name])
    _check_shape(modality, x)
    outputs[modality.name] = x
  _check_sizes(spec, outputs)
  for modality in spec.modalities:
    name, x = modality.name, outputs[modality.name]
    x = _ids(name, x) if modality.kind == 'tokens' else _float32(name, x)
    if modality.has_length:
      given = inputs.get(modality.length_name)
      length = used_length(x) if given is None else _lengths(modality, given, len(x))
      if (length == 0).any():
        x = np.where((length == 0).reshape(-1, *[1] * (x.ndim - 1)), x.dtype.type(0), x)
        length = np.where(length == 0, modality.shape[0], length).astype(np.int32)
      if beyond and given is not None:
        _check_beyond(modality, x, length)
      outputs[modality.length_name] = length
      if modality.kind == 'tokens':
        x = _known_ids(modality, x, length)
    outputs[name] = x
  return outputs


def used_length(x: np.ndarray) -> np.ndarray:
  """Lengths, int32 [B], up to the last frame of [B, T, ...] that holds more than zeros and NaN; T where none does."""
  used = _holding(x)
  last = x.shape[1] - np.argmax(used[:, ::-1], axis=1)
  return np.where(used.any(1), last, x.shape[1]).astype(np.int32)


def _holding(x: np.ndarray) -> np.ndarray:
  """Which frames of [B, T, ...] hold more than zeros and NaN, bool [B, T]."""
  return ((x != 0) & ~np.isnan(x)).any(tuple(range(2, x.ndim)))


def _check_names(spec: DatasetSpec, inputs: Mapping[str, Any]) -> None:
  """Refuses inputs that no modality reads, and modalities without input."""
  if not isinstance(inputs, Mapping):
    raise UserError(f'inputs are a {type(inputs).__name__}; expected a dict of arrays, {", ".join(spec.names)}')
  known = [*spec.names, *(m.length_name for m in spec.modalities if m.has_length)]
  for name in inputs:
    if name not in known:
      raise UserError(f'unknown input {name!r}; {did_you_mean(str(name), known)}')
  for name in spec.names:
    if name not in inputs:
      raise UserError(f'input {name!r} is absent; {spec.name} needs {", ".join(spec.names)}')


def _check_sizes(spec: DatasetSpec, inputs: Mapping[str, np.ndarray]) -> None:
  """Refuses modalities that disagree on the batch."""
  sizes = {name: len(inputs[name]) for name in spec.names}
  if len(set(sizes.values())) > 1:
    found = ', '.join(f'{name} {size}' for name, size in sizes.items())
    raise UserError(f'inputs have batches of different sizes: {found}; expected as many samples of each')


def _array(name: str, value: Any) -> np.ndarray:
  """The value as an array of numbers of any kind."""
  if value is None:
    raise UserError(f'input {name!r} is None; expected an array: a modality you do not have is zeros')
  parts = value if isinstance(value, (list, tuple)) else (value,)
  if any(np.ma.is_masked(part) for part in parts):
    raise UserError(
      f'input {name!r} has masked values, and a mask is not read; expected plain numbers: x.filled(np.nan) makes their '
      'frames count as missing'
    )
  try:
    x = np.asarray(value)
  except Exception as error:  # Whatever the library that made it raises.
    if isinstance(value, (list, tuple)) and isinstance(error, ValueError):
      raise UserError(
        f'input {name!r} is made of rows of different sizes; expected one array: pad them with zeros to one shape'
      ) from None
    reason = ' '.join(str(error).split())[:160] or type(error).__name__
    raise UserError(f'input {name!r} cannot be read as an array ({reason}); expected numbers [B, ...]') from None
  if x.dtype.type.__module__ == 'ml_dtypes':  # bfloat16 and its kin, which NumPy does not know as numbers.
    x = x.astype(np.float32)
  if x.dtype.kind == 'O':
    _refuse_objects(name, value, x)
  if x.dtype.kind not in 'biuf':
    raise UserError(f'input {name!r} holds {_KINDS.get(x.dtype.kind, str(x.dtype))}; expected numbers')
  return x


def _refuse_objects(name: str, value: Any, x: np.ndarray) -> NoReturn:
  if not x.ndim:
    raise UserError(f'input {name!r} is a {type(value).__name__}; expected an array of numbers')
  odd = next(((i[0], v) for i, v in np.ndenumerate(x) if not isinstance(v, (int, float, np.number))), None)
  where = f' (row {odd[0]}: {type(odd[1]).__name__})' if odd else ''
  raise UserError(f'input {name!r} holds Python objects{where}; expected numbers: x.astype(np.float32)')


def _check_shape(modality: ModalitySpec, x: np.ndarray) -> None:
  if x.ndim and x.shape[1:] == modality.shape:
    return
  hint = _shape_hint(modality, x.shape)
  raise UserError(
    f'input {modality.name!r} has shape {x.shape}; expected a batch of {modality.shape}, so (B, '
    f'{", ".join(map(str, modality.shape))}){f": {hint}" if hint else ""}'
  )


def _shape_hint(modality: ModalitySpec, found: tuple[int, ...]) -> str:
  """What to do about a wrong shape, where one of the usual slips explains it."""
  wanted = modality.shape
  if found == wanted:
    return 'a single sample is a batch of one, x[None]'
  if (*found[1:], 1) == wanted:
    return 'add the last axis, x[..., None]'
  if modality.kind == 'image' and found[1:] == (wanted[2], *wanted[:2]):
    return 'channels come last, np.moveaxis(x, 1, -1)'
  if modality.kind == 'sequence' and found[1:] == wanted[::-1]:
    return 'time comes before features, np.swapaxes(x, 1, 2)'
  if modality.has_length and len(found) == len(wanted) + 1 and found[2:] == wanted[1:]:
    return f'pad with zeros to {wanted[0]}' if found[1] < wanted[0] else f'longer ones are cut to {wanted[0]}'
  return ''


def _float32(name: str, x: np.ndarray) -> np.ndarray:
  if x.dtype == np.float32:
    return x
  try:
    with np.errstate(over='raise'):
      return x.astype(np.float32)
  except FloatingPointError:
    with np.errstate(over='ignore'):
      lost = np.isfinite(x) & ~np.isfinite(x.astype(np.float32))
    at = tuple(np.argwhere(lost)[0])
    raise UserError(
      f'row {at[0]} of input {name!r} holds {x[at]:.4g}{_more(lost)}; expected numbers that float32 can hold, up to '
      f'{np.finfo(np.float32).max:.2g}: choose another unit, as for training'
    ) from None


def _ids(name: str, x: np.ndarray) -> np.ndarray:
  """Token ids as integers of any size."""
  if x.dtype.kind == 'b':
    raise UserError(f'input {name!r} holds {_KINDS["b"]}; expected token ids, whole numbers')
  if x.dtype.kind == 'f':
    _refuse_fractions(name, x, 'token ids, whole numbers')
  return x


def _refuse_fractions(name: str, x: np.ndarray, expected: str) -> None:
  odd = ~(np.isfinite(x) & (x == np.floor(x)))
  if odd.any():
    at = tuple(np.argwhere(odd)[0])
    raise UserError(f'row {at[0]} of input {name!r} holds {x[at]:.6g}{_more(odd)}; expected {expected}')


def _lengths(modality: ModalitySpec, given: Any, size: int) -> np.ndarray:
  """Lengths, int32 [B], 0 to T."""
  name, longest = modality.length_name, modality.shape[0]
  length = _array(name, given)
  expected = f'a whole number from 1 to {longest}, or 0 where {modality.name} is missing'
  if length.shape != (size,):
    raise UserError(f'{name} has shape {length.shape}; expected one length for each of {size} samples, ({size},)')
  if length.dtype.kind == 'b':
    raise UserError(f'input {name!r} holds {_KINDS["b"]}; expected {expected}')
  if length.dtype.kind == 'f':
    _refuse_fractions(name, length, expected)
  wrong = (length < 0) | (length > longest)
  if wrong.any():
    row = int(np.argmax(wrong))
    long = length[row] > longest
    hint = f': cut what is longer to {longest}, as in training' if long else ''
    raise UserError(f'row {row} of input {name!r} holds {length[row]:g}{_more(wrong)}; expected {expected}{hint}')
  return length.astype(np.int32)


def _known_ids(modality: ModalitySpec, x: np.ndarray, length: np.ndarray) -> np.ndarray:
  """Ids int32 [B, T], those beyond the length 0."""
  inside = np.arange(modality.shape[0]) < length[:, None]
  wrong = inside & ((x < 0) | (x >= modality.vocab_size))
  if wrong.any():
    row, place = np.argwhere(wrong)[0]
    raise UserError(
      f'row {row} of input {modality.name!r} has token id {x[row, place]:g}; expected 0 to {modality.vocab_size - 1}: '
      f'give unknown words id {modality.unk_id}, and {modality.length_name} if that is padding'
    )
  return x if x.dtype == np.int32 and not x[~inside].any() else np.where(inside, x, 0).astype(np.int32)


def _check_beyond(modality: ModalitySpec, x: np.ndarray, length: np.ndarray) -> None:
  """Refuses content beyond the lengths: cut away, it would be lost without a word."""
  wrong: list[int] = []
  unsure: list[tuple[int, int]] = []
  known: set[int] = set()
  for start in range(0, len(x), _CHUNK):
    found = look_beyond(modality, x[start : start + _CHUNK], length[start : start + _CHUNK])
    wrong += [start + int(row) for row in np.flatnonzero(found.content)]
    unsure += [(start + row, pad) for row, pad in found.unsure]
    known |= found.known
  wrong = sorted(wrong + [row for row, pad in unsure if pad not in known])
  if not wrong:
    return
  one, unit = wrong[0], 'token' if modality.kind == 'tokens' else 'frame'
  last = int(np.flatnonzero(_holding(x[one : one + 1])[0])[-1]) + 1
  front = sum(not _begins(x[row : row + 1], 1)[0] for row in wrong)
  hint = (
    'they seem to be padded in front: move what they hold to the start'
    if front > len(wrong) / 2
    else 'correct the lengths, or set what lies beyond them to zero'
  )
  raise UserError(
    f'input {modality.name!r} has content beyond {modality.length_name} in {len(wrong)} of {len(x)} rows (row {one}: '
    f'length {length[one]}, content up to {unit} {last}); expected zeros there, which pad: {hint}'
  )


class Beyond(NamedTuple):
  """What lies beyond the lengths of B samples.

  Attributes:
    content: which hold more there than padding, bool [B].
    unsure: (sample, id) of tokens that hold one id there, which pads if it is `known` from another sample.
    known: ids that pad a sample at least twice.
  """

  content: np.ndarray
  unsure: list[tuple[int, int]]
  known: set[int]


def look_beyond(modality: ModalitySpec, x: np.ndarray, length: np.ndarray) -> Beyond:
  """Tells padding from content beyond the lengths [B] of sequences [B, T, ...] or tokens [B, T].

  Whoever gives lengths may pad with anything, but with one frame (or id) up to the end, and behind content. The first
  word of another vocabulary may be 0: a sample may begin so where it, or another one, is padded with the same id twice.
  """
  outside = np.arange(x.shape[1]) >= length[:, None]
  held = _holding(x) & outside
  pad = x[np.arange(len(x)), np.argmax(held, axis=1)][:, None]
  alike = held.any(1) & (~outside | (x == pad).all(tuple(range(2, x.ndim)))).all(1)
  pads = ~held.any(1) | (alike & (length > 0) & _begins(x, 1))
  unsure: list[tuple[int, int]] = []
  known: set[int] = set()
  if modality.kind == 'tokens':
    late = alike & ~pads & (length > 1) & _begins(x, 2)
    twice = alike & (held.sum(1) > 1)
    known = {int(i) for i in np.unique(pad[twice])}
    unsure = [(int(row), int(pad[row, 0])) for row in np.flatnonzero(late & ~twice)]
    pads |= late
  return Beyond(~pads, unsure, known)


def _begins(x: np.ndarray, within: int) -> np.ndarray:
  """Which samples [B, T, ...] hold something within so many frames, bool [B]."""
  return np.asarray(_holding(x[:, :within]).any(1))


def _more(wrong: np.ndarray) -> str:
  """How many other rows are wrong too."""
  others = int(wrong.reshape(len(wrong), -1).any(1).sum()) - 1
  return f' (and {others} other rows likewise)' if others > 1 else ' (and another row likewise)' if others else ''
