"""What goes missing: one frozen specification and a pure function of (specification, seed, sample key, epoch).

The same specification makes a training set incomplete, damages a sample in training and sets the conditions of an
evaluation. Masks come from integer comparisons on `counter`, so they are the same bits in NumPy, TensorFlow and JAX,
whatever the batch, the host or the day. What is gone at one rate is gone at every higher rate, save the one modality
given back to a sample that would lose all. What takes the place of the removed is in `fills`.

Dimension letters: B batch, M modalities, T time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from dream_jax.errors import UserError
from dream_jax.missingness import counter
from dream_jax.missingness.counter import Array, NumpyBackend
from dream_jax.settings import check, setting
from dream_jax.spec import DatasetSpec

_BUILT_IN = ('none', 'modality', 'subset', 'frames', 'imbalanced', 'block')
KINDS = [*_BUILT_IN]
FILLS = ('zeros', 'noise', 'swap', 'mean')
RATE_LAWS = ('fixed', 'uniform')
FRAME_KINDS = ('frames', 'block')

# Epochs that no training reaches: what is missing from the data set itself and what an evaluation removes must be
# independent of what training injects under the same seed.
PREPARE_EPOCH = 0xFFFFFFFF
EVALUATE_EPOCH = 0xFFFFFFFE

# Streams of words; `fills` has its own, from 16 on, and kinds of the user's own those from 64 on.
_RATE, _MASK, _KEPT, _FRAME, _BLOCK, _PART, _PART_RATE = range(7)

# Kinds of the user's own, see `register`.
Removal = Callable[[DatasetSpec, Array, tuple[Array, Array], NumpyBackend], Array]
_own: dict[str, Removal] = {}


def register(kind: str, removal: Removal) -> None:
  """Makes a kind of missingness of yours known by its name; it removes whole modalities.

  The file of a `--config` is a good place to call it: it is read before any name is looked up.

  Args:
    kind: how it is called.
    removal: (spec, thresholds, state, backend) -> bool [B, M], True where a modality goes. `thresholds` are uint32
      [B, M] or [1, M]: a random word is below one with probability `rate`. `state` is what `counter.words` takes;
      streams from 64 on are yours. Use operations of `backend` and operators only, since the same function runs in
      NumPy, TensorFlow and JAX. A sample that would lose everything gets one modality back, drawn at random.

  Raises:
    UserError: the name is one of ours.
  """
  if kind in _BUILT_IN:
    raise UserError(f'missingness {kind!r} is built in; choose another name')
  if kind not in KINDS:
    KINDS.append(kind)
  _own[kind] = removal


def own_kinds() -> tuple[Removal, ...]:
  """The functions of all kinds that were registered."""
  return tuple(_own.values())


@dataclasses.dataclass(frozen=True)
class Missing:
  """What is removed and what stands in its place.

  Under 'frames' and 'block' a vector or an image has one frame: it goes as a whole with probability `rate`. For tokens
  the fills 'zeros' and 'mean' are the unknown id and 'noise' is random ids.
  """

  kind: str = setting(
    'none',
    "'none'; 'modality' (each modality with probability `rate`, at least one kept); 'imbalanced' (the same with a rate"
    " per modality); 'subset' (all but `kept`, in every sample); 'frames' (each frame or token with probability"
    " `rate`); 'block' (a contiguous share `rate` of each sequence)",
    choices=KINDS,
  )
  rate: float = setting(0.0, 'probability or share', least=0, below=1)
  rate_law: str = setting(
    'fixed', "'fixed', or 'uniform': every sample draws its own from U(0, rate)", choices=RATE_LAWS
  )
  rates: tuple[tuple[str, float], ...] = setting(
    (), "(modality, rate) pairs of 'imbalanced'; modalities not named use `rate`", least=0, below=1
  )
  kept: tuple[str, ...] = setting((), "modalities that 'subset' keeps", unique=True)
  parts: tuple[str, ...] = setting(
    (),
    'what sequences and tokens that are left lose besides: each draws nothing or one of these, and a rate of its own',
    choices=FRAME_KINDS,
    unique=True,
  )
  fills: tuple[str, ...] = setting(
    ('zeros',),
    "what replaces a removed slot, drawn per sample and modality: 'zeros' (raw zero), 'noise' (standard normal in"
    " standardised space), 'swap' (another sample's content), 'mean'",
    choices=FILLS,
    filled=True,
  )

  def contradictions(self) -> Iterator[str]:
    """Values that do not go together, as messages that begin with a field."""
    rated = [name for name, _ in self.rates]
    if len(set(rated)) != len(rated):
      yield f'rates name a modality twice: {", ".join(rated)}; expected each once'
    if self.kind == 'imbalanced' and not self.rates:
      yield "rates are empty; kind 'imbalanced' needs (modality, rate) pairs"
    if self.kind != 'imbalanced' and self.rates:
      yield f"rates are {self.rates}, of which kind {self.kind!r} uses none; expected () or kind 'imbalanced'"
    if self.kind == 'subset' and not self.kept:
      yield "kept is empty; kind 'subset' needs at least one modality that it keeps"
    if self.kind != 'subset' and self.kept:
      yield f"kept is {self.kept}, which kind {self.kind!r} does not use; expected () or kind 'subset'"
    if self.parts and self.kind in ('none', 'subset', *FRAME_KINDS):
      yield f"parts are {self.parts}, which kind {self.kind!r} does not use; expected () or kind 'modality'"
    unused = {'none': ('rate', 'rate_law', 'fills'), 'subset': ('rate', 'rate_law')}.get(self.kind, ())
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.name in unused and value != field.default:
        yield f"{field.name} is {value!r}, which kind {self.kind!r} does not use; expected another kind, as 'modality'"


def validate(missing: Missing, spec: DatasetSpec) -> None:
  """Nothing, if the specification makes sense for this data set.

  Raises:
    UserError: a value that a config could not hold either, or an unknown modality.
  """
  check(missing, 'missingness')
  for name in (*missing.kept, *(name for name, _ in missing.rates)):
    spec.index(name)


def describe(missing: Missing) -> str:
  """A few words for tables and logs, such as 'modality up to 0.5, zeros or noise'."""
  if missing.kind == 'none':
    return 'complete'
  if missing.kind == 'subset':
    return f'only {"+".join(missing.kept)}, {" or ".join(missing.fills)}'
  rates = f'{missing.rate:g}'
  if missing.kind == 'imbalanced':
    others = (('others', missing.rate),) if missing.rate else ()
    rates = ', '.join(f'{name} {rate:g}' for name, rate in (*missing.rates, *others))
  law = 'up to ' if missing.rate_law == 'uniform' else ''
  parts = f', then {" or ".join(missing.parts)} of sequences' if missing.parts else ''
  return f'{missing.kind} {law}{rates}{parts}, {" or ".join(missing.fills)}'


def in_parts(missing: Missing) -> bool:
  """Whether sequences and tokens can lose some of their frames and keep others."""
  return missing.kind in FRAME_KINDS or bool(missing.parts)


def removes(missing: Missing) -> bool:
  """Whether anything can go missing at all."""
  if missing.kind == 'imbalanced':
    return missing.rate > 0 or any(rate > 0 for _, rate in missing.rates)
  return missing.kind == 'subset' or (missing.kind != 'none' and missing.rate > 0)


class Keep(NamedTuple):
  """What stays of a batch.

  Attributes:
    slots: bool [B, M], False where a whole modality goes.
    frames: name -> bool [B, T] of each sequence that can lose a part, see `in_parts`, else empty. What stays of the
      frames where the whole modality stays: of one that goes, `slots` tells.
    share: float32 [B, M], how much of each modality stays. A quotient where frames go, so compilers may differ in its
      last bit; all else is exact.
  """

  slots: Array
  frames: dict[str, Array]
  share: Array

  def of(self, rows: slice) -> Keep:
    """What stays of some of the rows."""
    return Keep(self.slots[rows], {name: x[rows] for name, x in self.frames.items()}, self.share[rows])


def draw_keep(
  missing: Missing,
  spec: DatasetSpec,
  *,
  lengths: Mapping[str, Array],
  seed: int | Array,
  keys: Array,
  epoch: int | Array,
  backend: NumpyBackend,
  limit: Array | None = None,
) -> Keep:
  """All masks of a batch.

  Args:
    missing: what goes missing.
    spec: the data set.
    lengths: name -> int32 [B] for sequences and tokens; read where frames go only.
    seed: an integer or uint32 [B].
    keys: [B, 2] uint32 sample keys.
    epoch: an integer or uint32 [B].
    backend: whose arrays these are.
    limit: uint32 [B], `counter.threshold` of a rate for each sample instead of `missing.rate`.
  """
  drawn = {'seed': seed, 'keys': keys, 'epoch': epoch, 'backend': backend, 'limit': limit}
  slots = slot_keep(missing, spec, **drawn)
  frames = frame_keep(missing, spec, lengths=lengths, **drawn) if in_parts(missing) else {}
  return Keep(slots, frames, _kept_share(spec, slots, frames, lengths, backend))


def _thresholds(
  missing: Missing, spec: DatasetSpec, state, backend: NumpyBackend, limit: Array | None, own: bool = False
) -> Array:
  """uint32 [B, M] (or [1, M]): a word below it means removed. Each modality draws its `own` rate, or all share one."""
  rates = dict(missing.rates)
  limits = np.array([[counter.threshold(rates.get(name, missing.rate)) for name in spec.names]], np.uint32)
  limits = backend.uint32(limits)
  if limit is not None:
    limits = backend.uint32(limit)[:, None] + (limits ^ limits)
  if missing.rate_law == 'fixed':
    return limits
  slots = backend.arange(spec.num_modalities) if own else 0
  share, _ = counter.words(state, _PART_RATE if own else _RATE, slots, backend.arange(1), backend)
  return counter.multiply_high(share, limits, backend)


def _keep_one(removed: Array, spec: DatasetSpec, state, backend: NumpyBackend) -> Array:
  """Keep masks [B, M] with one slot, drawn uniformly, given back where all would go."""
  word, _ = counter.words(state, _KEPT, 0, backend.arange(1), backend)
  chosen = counter.below(word, spec.num_modalities, backend)
  saved = backend.all(removed, 1)[:, None] & (chosen == backend.arange(spec.num_modalities)[None, :])
  return ~removed | saved


def slot_keep(
  missing: Missing,
  spec: DatasetSpec,
  *,
  seed: int | Array,
  keys: Array,
  epoch: int | Array,
  backend: NumpyBackend,
  limit: Array | None = None,
) -> Array:
  """Which modalities of each sample stay, bool [B, M]; under 'frames' and 'block' all sequences and tokens do.

  Args:
    missing: what goes missing.
    spec: the data set.
    seed: an integer or uint32 [B].
    keys: [B, 2] uint32 sample keys.
    epoch: an integer or uint32 [B].
    backend: whose arrays these are.
    limit: see `draw_keep`.
  """
  keys = backend.uint32(keys)
  if missing.kind in ('none', 'subset'):
    kept = np.array([[missing.kind == 'none' or name in missing.kept for name in spec.names]])
    return (keys[:, :1] != keys[:, :1]) | backend.asarray(kept)
  state = counter.sample_state(seed, epoch, keys, backend)
  limits = _thresholds(missing, spec, state, backend, limit)
  if missing.kind in _own:
    return _keep_one(_own[missing.kind](spec, limits, state, backend), spec, state, backend)
  word, _ = counter.words(state, _MASK, backend.arange(spec.num_modalities), backend.arange(1), backend)
  removed = word < limits
  if missing.kind in FRAME_KINDS:
    removed = removed & backend.asarray(np.array([[not m.has_length for m in spec.modalities]]))
  return _keep_one(removed, spec, state, backend)


def frame_keep(
  missing: Missing,
  spec: DatasetSpec,
  *,
  lengths: Mapping[str, Array],
  seed: int | Array,
  keys: Array,
  epoch: int | Array,
  backend: NumpyBackend,
  limit: Array | None = None,
) -> dict[str, Array]:
  """Which frames of each sequence stay, of whole modalities apart, name -> bool [B, T]; True beyond the length.

  Args:
    missing: what goes missing.
    spec: the data set.
    lengths: name -> int32 [B], for sequences and tokens.
    seed: an integer or uint32 [B].
    keys: [B, 2] uint32 sample keys.
    epoch: an integer or uint32 [B].
    backend: whose arrays these are.
    limit: see `draw_keep`.
  """
  state = counter.sample_state(seed, epoch, keys, backend)
  limits = _thresholds(missing, spec, state, backend, limit, own=bool(missing.parts))
  first, kinds = backend.arange(1), missing.parts or (missing.kind,)
  keep = {}
  for m, modality in enumerate(spec.modalities):
    if not modality.has_length:
      continue
    time = backend.arange(modality.shape[0])
    length = backend.int32(lengths[modality.name])[:, None]
    share = limits[:, m : m + 1]
    chosen = backend.int32(share ^ share)
    if missing.parts:  # One more than there are kinds: nothing goes.
      chosen = counter.below(counter.words(state, _PART, m, first, backend)[0], 1 + len(kinds), backend)
    removed = time[None, :] < chosen ^ chosen
    for i, kind in enumerate(kinds):
      if kind == 'frames':
        gone = counter.words(state, _FRAME, m, time, backend)[0] < share
      else:
        # The span is the rounded share of the length; its start is uniform among those that fit.
        word, _ = counter.words(state, _BLOCK, m, first, backend)
        half = backend.uint32(2**15)
        span = backend.uint32(length) * backend.shift_right(share, 16) + half
        span = backend.int32(backend.shift_right(span, 16))
        start = counter.below(word, length - span + backend.int32(1), backend)
        gone = (time[None, :] >= start) & (time[None, :] < start + span)
      removed = removed | (gone & (chosen == i))
    keep[modality.name] = ~(removed & (time[None, :] < length))
  return keep


def _kept_share(spec: DatasetSpec, slots: Array, frames: Mapping[str, Array], lengths, backend: NumpyBackend) -> Array:
  shares = []
  for m, modality in enumerate(spec.modalities):
    share = backend.float32(slots[:, m])
    if modality.name in frames:
      length = backend.int32(lengths[modality.name])
      removed = backend.sum(backend.int32(~frames[modality.name]), 1)
      length = backend.where(length > 0, length, length * 0 + 1)
      share = share * (backend.float32(length - removed) / backend.float32(length))
    shares.append(share)
  return backend.stack(shares, 1)
