"""What replaces the missing, in standardised space: raw zeros, noise, another sample, the mean.

Every fill is a copy of a stored value, never a computation, so it is the same bits in NumPy, TensorFlow and JAX.

The length of a sequence that is gone becomes that of another sample, drawn at random, whatever the fill: the true
length would tell of the removed content, and a length of zero would tell that something was removed.

Dimension letters: B batch, M modalities, T time, D features, n samples of a split, k rows to be replaced.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dream_jax.missingness import counter
from dream_jax.missingness.counter import Array, NumpyBackend
from dream_jax.missingness.missing import FRAME_KINDS, Keep, Missing
from dream_jax.spec import DatasetSpec, ModalitySpec

# Streams of words; those below 16 belong to `missing`.
_FILL, _NOISE, _BANK = range(16, 19)

_BANK_ROWS = 2**14
_BANK_WIDTH = 16


@functools.cache
def noise_words() -> np.ndarray:
  """The bank of random words that token noise reads, uint32 [2^14, 16]."""
  rows = np.arange(_BANK_ROWS, dtype=np.uint32)
  state = counter.sample_state(0, 0, np.stack([rows, np.zeros_like(rows)], 1), counter.NUMPY)
  return counter.words(state, _BANK, 0, np.arange(_BANK_WIDTH), counter.NUMPY)[0]


@functools.cache
def noise_bank() -> np.ndarray:
  """The bank of standard normal values that noise reads, float32 [2^14, 16].

  Each is the centred and scaled sum of twelve 16-bit uniforms (Irwin-Hall: variance 1, tails to 6). Sums of integers
  over a power of two are exact in float32, so the values are the same bits everywhere.
  """
  total = np.zeros([_BANK_ROWS, _BANK_WIDTH], np.int32)
  rows = np.arange(_BANK_ROWS, dtype=np.uint32)
  for i in range(3):
    state = counter.sample_state(0, 1 + i, np.stack([rows, np.zeros_like(rows)], 1), counter.NUMPY)
    for word in counter.words(state, _BANK, 0, np.arange(_BANK_WIDTH), counter.NUMPY):
      total += (word & 0xFFFF).astype(np.int32) + (word >> 16).astype(np.int32)
  return ((total - 6 * 0xFFFF) / np.float32(2**16)).astype(np.float32)


class _Draw(NamedTuple):
  """What was drawn for each sample and modality, [B, M] each."""

  choice: Array  # int32: which of the fills.
  donor: Array  # int32: row of the donors.
  start: Array  # int32: first row of the noise bank that is read.
  stride: Array  # int32, odd: so many rows on for every `_BANK_WIDTH` values.


def _draw(missing, spec, *, rows, num_donors, seed, keys, epoch, backend: NumpyBackend) -> _Draw:
  state = counter.sample_state(seed, epoch, keys, backend)
  slots, first = backend.arange(spec.num_modalities), backend.arange(1)
  fill, donor = counter.words(state, _FILL, slots, first, backend)
  start, stride = counter.words(state, _NOISE, slots, first, backend)
  # Counting on from the sample itself by 1 to n - 1 never comes back to it.
  donor = (backend.int32(rows)[:, None] + 1 + counter.below(donor, num_donors - 1, backend)) % num_donors
  start = counter.below(start, _BANK_ROWS, backend)
  stride = 2 * counter.below(stride, _BANK_ROWS // 2, backend) + 1
  return _Draw(counter.below(fill, len(missing.fills), backend), donor, start, stride)


def apply_missing(
  missing: Missing,
  spec: DatasetSpec,
  inputs: Mapping[str, Array],
  *,
  zero: Mapping[str, Array],
  donors: Mapping[str, Array],
  rows: Array,
  keep: Keep,
  seed: int | Array,
  keys: Array,
  epoch: int | Array,
  backend: NumpyBackend,
  donor_rows: Array | None = None,
) -> dict[str, Array]:
  """The inputs with all that `keep` removes replaced.

  A sequence that loses frames keeps its length, and swapped frames are the donor's at the same time, the
  donor repeated where it is shorter. Nothing that is removed is read.

  Args:
    missing: what goes missing, as `keep` was drawn.
    spec: the data set.
    inputs: features of the batch, name -> [B, ...], and `<name>_length` [B]; standardised.
    zero: name -> [D], where raw zero lies (`prepare.Prepared.zero`); tokens absent.
    donors: features of a whole split, name -> [n, ...] with n >= 2; standardised.
    rows: int32 [B], where the samples lie among the donors: none is its own donor.
    keep: from `missing.draw_keep` with the same seed, keys and epoch.
    seed: an integer or uint32 [B].
    keys: [B, 2] uint32 sample keys.
    epoch: an integer or uint32 [B].
    backend: whose arrays these are.
    donor_rows: int32 [B, M], donors chosen by the caller; drawn when not given.
  """
  inputs = dict(inputs)
  if missing.kind == 'none':
    return inputs
  num_donors = donors[spec.names[0]].shape[0]
  draw = _draw(missing, spec, rows=rows, num_donors=num_donors, seed=seed, keys=keys, epoch=epoch, backend=backend)
  if donor_rows is not None:
    draw = draw._replace(donor=donor_rows)
  for m, modality in enumerate(spec.modalities):
    drawn = _Draw(*(d[:, m] for d in draw))
    if modality.name in keep.frames:
      _replace_frames(missing, modality, inputs, zero, donors, drawn, keep.frames[modality.name], backend)
    if missing.kind not in FRAME_KINDS or not modality.has_length:
      _replace_slots(missing, modality, inputs, zero, donors, drawn, keep.slots[:, m], backend)
  return inputs


def _replace_slots(missing, modality, inputs, zero, donors, draw: _Draw, keep, backend: NumpyBackend) -> None:
  """Replaces the samples of one modality where `keep` [B] is False, in place of the dict's entries."""
  name, length_name = modality.name, modality.length_name

  def make(index):
    drawn = _Draw(*(backend.take(d, index) for d in draw))
    rows = _plain(modality, zero, backend.shape(index), 'zeros', backend)
    for i, fill in enumerate(missing.fills):
      rows = backend.replace_rows(
        rows, drawn.choice == i, functools.partial(_slot_rows, fill, modality, zero, donors, drawn, backend)
      )
    if modality.has_length:
      inside = backend.arange(modality.shape[0])[None, :] < backend.take(donors[length_name], drawn.donor)[:, None]
      rows = backend.where(inside[:, :, None] if modality.kind == 'sequence' else inside, rows, _nothing(rows))
    return rows

  inputs[name] = backend.replace_rows(inputs[name], ~keep, make)
  if modality.has_length:
    lengths = backend.take(donors[length_name], draw.donor)
    inputs[length_name] = backend.where(keep, inputs[length_name], lengths)


def _slot_rows(fill, modality: ModalitySpec, zero, donors, draw: _Draw, backend: NumpyBackend, index) -> Array:
  """Whole slots [k, ...] of one fill for the samples at `index` [k] of the draw."""
  if fill == 'swap':
    return backend.take(donors[modality.name], backend.take(draw.donor, index))
  if fill == 'noise' and _has_noise(modality):
    size = int(np.prod(modality.shape))
    chunks = backend.arange(-(-size // _BANK_WIDTH))[None, :]
    rows = (backend.take(draw.start, index)[:, None] + chunks * backend.take(draw.stride, index)[:, None]) % _BANK_ROWS
    values = backend.take(backend.asarray(_bank(modality)), rows)
    values = backend.reshape(values, (-1, chunks.shape[1] * _BANK_WIDTH))[:, :size]
    return backend.reshape(values, (-1, *modality.shape))
  return _plain(modality, zero, backend.shape(index), fill, backend)


def _replace_frames(missing, modality, inputs, zero, donors, draw: _Draw, keep, backend: NumpyBackend) -> None:
  """Replaces the frames of one sequence where `keep` [B, T] is False, in place of the dict's entry."""
  name, steps, width = modality.name, modality.shape[0], modality.shape[1:]

  def make(index):
    drawn = _Draw(*(backend.take(d, index // steps) for d in draw))
    time = index % steps
    rows = _plain(modality, zero, backend.shape(index), 'zeros', backend, frame=True)
    for i, fill in enumerate(missing.fills):
      rows = backend.replace_rows(
        rows, drawn.choice == i, functools.partial(_frame_rows, fill, modality, zero, donors, drawn, time, backend)
      )
    return rows

  flat = backend.reshape(inputs[name], (-1, *width))
  flat = backend.replace_rows(flat, backend.reshape(~keep, (-1,)), make)
  inputs[name] = backend.reshape(flat, (-1, steps, *width))


def _frame_rows(fill, modality: ModalitySpec, zero, donors, draw: _Draw, time, backend: NumpyBackend, index) -> Array:
  """Frames [k, D] (tokens: [k]) of one fill, for the entries at `index` [k] of the draw and of `time`."""
  steps, width = modality.shape[0], modality.shape[1:]
  time = backend.take(time, index)
  if fill == 'swap':
    donor = backend.take(draw.donor, index)
    length = backend.take(donors[modality.length_name], donor)
    # A donor without frames gives what lies beyond its length.
    time = backend.where(length > 0, time % backend.where(length > 0, length, length * 0 + 1), time)
    return backend.take(backend.reshape(donors[modality.name], (-1, *width)), donor * steps + time)
  if fill == 'noise' and _has_noise(modality):
    size = int(np.prod(width))
    values = time[:, None] * size + backend.arange(size)[None, :]
    rows = backend.take(draw.start, index)[:, None]
    rows = (rows + (values // _BANK_WIDTH) * backend.take(draw.stride, index)[:, None]) % _BANK_ROWS
    values = backend.take(
      backend.reshape(backend.asarray(_bank(modality)), (-1,)), rows * _BANK_WIDTH + values % _BANK_WIDTH
    )
    return backend.reshape(values, (-1, *width))
  return _plain(modality, zero, backend.shape(index), fill, backend, frame=True)


def _plain(modality: ModalitySpec, zero, count: tuple, fill: str, backend: NumpyBackend, frame: bool = False) -> Array:
  """The constant fill of `count` slots or frames: the unknown id, raw zero, or the mean, which is 0."""
  shape = (*count, *(modality.shape[1:] if frame else modality.shape))
  if modality.kind == 'tokens':
    return backend.broadcast_to(backend.asarray(np.int32(modality.unk_id)), shape)
  value = zero[modality.name] if fill == 'zeros' else np.zeros(modality.shape[-1], np.float32)
  return backend.broadcast_to(backend.asarray(value), shape)


def _nothing(rows: Array) -> Array:
  """A scalar zero of the same type."""
  return np.zeros((), np.int32 if 'int' in str(rows.dtype) else np.float32)


def _has_noise(modality: ModalitySpec) -> bool:
  """Whether there is an id besides padding and unknown to draw."""
  return modality.kind != 'tokens' or modality.vocab_size > 2


def _bank(modality: ModalitySpec) -> np.ndarray:
  """The bank of noise for this modality, [2^14, 16]: normal values, or ids in [2, vocab_size)."""
  if modality.kind != 'tokens':
    return noise_bank()
  return 2 + counter.below(noise_words(), modality.vocab_size - 2, counter.NUMPY)
