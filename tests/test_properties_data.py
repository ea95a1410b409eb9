"""Readers, masks and fills on whatever hypothesis thinks of: what was written is read, and all backends agree."""

import tempfile
from pathlib import Path

import numpy as np
import small_data
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dream_jax.data.builders.folder.npz_table import NpzTable
from dream_jax.data.builders.folder.parquet_table import ParquetTable
from dream_jax.data.builders.folder.tables import Wanted
from dream_jax.data.pickles.safe_pickle import load_arrays
from dream_jax.data.prepare import prepare, standardise
from dream_jax.missingness import counter, fills
from dream_jax.missingness.counter import NUMPY
from dream_jax.missingness.missing import FILLS, Keep, Missing, draw_keep

QUICK = settings(derandomize=True, deadline=None, max_examples=40, database=None)
SPEC = small_data.SPEC
SPLIT = small_data.small_split(9, 'p')
ZERO = {m.name: np.linspace(-2, -1, m.shape[-1], dtype=np.float32) for m in SPEC.modalities if m.kind != 'tokens'}
RATES = st.floats(0, 0.99)


@st.composite
def missing(draw):
  """Any specification that fits the small data."""
  kind = draw(st.sampled_from(('none', 'modality', 'subset', 'frames', 'imbalanced', 'block')))
  some = st.lists(st.sampled_from(SPEC.names), min_size=1, max_size=3, unique=True)
  return Missing(
    kind,
    0.0 if kind in ('none', 'subset') else draw(RATES),
    draw(st.sampled_from(('fixed', 'uniform'))),
    rates=tuple((name, draw(RATES)) for name in draw(some)) if kind == 'imbalanced' else (),
    kept=tuple(draw(some)) if kind == 'subset' else (),
    parts=draw(st.sampled_from(((), ('frames',), ('block', 'frames')))) if kind in ('modality', 'imbalanced') else (),
    fills=tuple(draw(st.lists(st.sampled_from(FILLS), min_size=1, max_size=4, unique=True))),
  )


def _apply(what, seed, backend=NUMPY):
  features = {k: backend.asarray(v) for k, v in SPLIT.features.items()}
  drawn = {'seed': seed, 'keys': backend.asarray(SPLIT.keys), 'epoch': 2, 'backend': backend}
  lengths = {m.name: features[m.length_name] for m in SPEC.modalities if m.has_length}
  keep = draw_keep(what, SPEC, lengths=lengths, **drawn)
  rows = backend.int32(np.arange(len(SPLIT)))
  return fills.apply_missing(what, SPEC, features, zero=ZERO, donors=features, rows=rows, keep=keep, **drawn), keep


@settings(QUICK, max_examples=12)
@given(missing(), st.integers(0, 2**31 - 1))
def test_masks_and_fills_are_the_same_bits_in_numpy_tensorflow_and_jax(what, seed):
  expected, keep = _apply(what, seed)
  for name in ('tensorflow', 'jax'):
    found, kept = _apply(what, seed, counter.backend(name))
    np.testing.assert_array_equal(np.asarray(kept.slots) & True, np.broadcast_to(keep.slots, kept.slots.shape))
    assert found.keys() == expected.keys()
    for key, values in expected.items():
      other = np.asarray(found[key])
      assert other.dtype == values.dtype
      assert other.tobytes() == np.ascontiguousarray(values).tobytes(), (name, key)


@QUICK
@given(missing(), st.integers(0, 2**31 - 1))
def test_what_stays_is_untouched_and_something_stays(what, seed):
  found, keep = _apply(what, seed)
  slots = np.broadcast_to(keep.slots, (len(SPLIT), SPEC.num_modalities))
  assert slots.any(1).all()
  for m, modality in enumerate(SPEC.modalities):
    old, new = SPLIT.features[modality.name], found[modality.name]
    stays = slots[:, m]
    if modality.name in keep.frames:
      frames, length = keep.frames[modality.name] & stays[:, None], modality.length_name
      np.testing.assert_array_equal(new[frames], old[frames])
      np.testing.assert_array_equal(found[length][stays], SPLIT.features[length][stays])
    else:
      np.testing.assert_array_equal(new[stays], old[stays])
    if modality.has_length:
      beyond = np.arange(modality.shape[0]) >= found[modality.length_name][:, None]
      assert not new[beyond].any()


@QUICK
@given(st.sampled_from(('frames', 'modality')), st.integers(0, 2**31 - 1), st.tuples(RATES, RATES))
def test_what_is_gone_at_one_rate_is_gone_at_every_higher(kind, seed, rates):
  low, high = (Missing(kind, rate) for rate in sorted(rates))
  keeps: list[Keep] = [_apply(w, seed)[1] for w in (low, high)]
  for name, frames in keeps[0].frames.items():
    assert not (keeps[1].frames[name] & ~frames).any(), name
  # One slot may be given back to a sample that would lose all.
  back = (keeps[1].slots & ~keeps[0].slots).sum(1)
  assert ((back == 0) | (keeps[1].slots.sum(1) == 1)).all()


@QUICK
@given(missing(), st.integers(0, 2**31 - 1))
def test_the_removed_is_never_read(what, seed):
  poisoned = {key: values.copy() for key, values in SPLIT.features.items()}
  found, keep = _apply(what, seed)
  slots = np.broadcast_to(keep.slots, (len(SPLIT), SPEC.num_modalities))
  for m, modality in enumerate(SPEC.modalities):
    gone = ~slots[:, m]
    if modality.name in keep.frames:
      gone = gone[:, None] | ~keep.frames[modality.name]
    values = poisoned[modality.name]
    values[gone] = np.nan if values.dtype.kind == 'f' else 1
  drawn = {'seed': seed, 'keys': SPLIT.keys, 'epoch': 2, 'backend': NUMPY}
  again = fills.apply_missing(
    what, SPEC, poisoned, zero=ZERO, donors=SPLIT.features, rows=np.arange(len(SPLIT)), keep=keep, **drawn
  )
  for key, values in found.items():
    np.testing.assert_array_equal(again[key], values)


@QUICK
@given(RATES, st.integers(0, 2**31 - 1))
def test_as_much_is_gone_as_was_asked_for(rate, seed):
  n, m = 3000, SPEC.num_modalities
  keys = np.random.default_rng(seed).integers(0, 2**32, (n, 2), dtype=np.uint32)
  keep = draw_keep(Missing('modality', rate), SPEC, lengths={}, seed=seed, keys=keys, epoch=0, backend=NUMPY)
  # A sample that would lose all gets one back.
  expected = rate - rate**m / m
  assert abs((~keep.slots).mean() - expected) < 5 * np.sqrt(0.25 / (n * m))


@QUICK
@given(st.data())
def test_standardised_values_are_those_of_their_definition(data):
  dataset = small_data.small_dataset(6, 4, 4)
  prepared = prepare(dataset, train_missing=Missing(), seed=0)
  values = st.floats(-100, 100, width=32) | st.just(np.nan)
  pose = data.draw(arrays.arrays(np.float32, (2, 4), elements=values))
  audio = data.draw(arrays.arrays(np.float32, (2, 7, 5), elements=values))
  length = data.draw(arrays.arrays(np.int32, 2, elements=st.integers(1, 7)))
  audio[np.arange(7) >= length[:, None]] = 0  # Content there is refused.
  own = {'pose': pose, 'audio': audio, 'audio_length': length}
  inputs = {key: values[:2] for key, values in dataset.splits['test'].features.items()} | own
  found = standardise(prepared.statistics, dataset.spec, inputs)
  for name, x in (('pose', pose), ('audio', audio)):
    clean = np.where(np.isfinite(x).all(-1, keepdims=True), x, 0)
    expected = (clean - prepared.statistics.mean[name]) / prepared.statistics.std[name]
    if name == 'audio':
      expected[np.arange(7) >= length[:, None]] = 0
    np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(found['audio_length'], length)


NUMBERS = st.sampled_from(('f2', 'f4', 'f8', 'i1', 'i4', 'i8', 'u2', '?', '>f4', '>i2'))


@QUICK
@given(NUMBERS, arrays.array_shapes(min_dims=2, max_dims=3, max_side=5), st.booleans(), st.booleans(), st.data())
def test_npz_gives_back_what_was_saved(dtype, shape, fortran, compressed, data):
  values = data.draw(arrays.arrays(np.dtype(dtype), shape))
  values = np.asfortranarray(values) if fortran else values
  with tempfile.TemporaryDirectory() as folder:
    path = f'{folder}/a.npz'
    (np.savez_compressed if compressed else np.savez)(path, x=values)
    table = NpzTable(path)
    table.expect_rows('x', [])
    rows = [row for (row,) in table.rows([Wanted('x', shape[1:])])]
    with np.errstate(over='ignore'):
      np.testing.assert_array_equal(np.stack(rows), values.astype(np.float32))
    assert repr(list(table.values('x'))) == repr(values.tolist())


@QUICK
@given(st.lists(st.lists(st.integers(-(2**31), 2**31), max_size=5) | st.none(), min_size=1, max_size=12), st.booleans())
def test_parquet_gives_back_lists_of_any_length(rows, checksum):
  import pyarrow as pa
  import pyarrow.parquet as pq

  with tempfile.TemporaryDirectory() as folder:
    path = f'{folder}/a.parquet'
    column = pa.array(rows, pa.list_(pa.int64()))
    pq.write_table(pa.table({'x': column}), path, row_group_size=3, write_page_checksum=checksum)
    table = ParquetTable(path)
    found = [row.tolist() for (row,) in table.rows([Wanted('x', (5,), integers=True)])]
    assert found == [row or [] for row in rows]
    assert table.lengths('x').tolist() == [len(row or []) for row in rows]
    assert table.absent('x').tolist() == [not row for row in rows]


PLAIN = st.recursive(
  st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
  lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
  max_leaves=12,
)


@QUICK
@given(PLAIN, st.sampled_from((2, 3, 4, 5)))
def test_pickles_of_plain_values_come_back(content, protocol):
  import pickle

  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / 'a.pkl'
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = load_arrays(str(path))
  assert repr(found) == repr(content)


@QUICK
@given(NUMBERS, arrays.array_shapes(max_dims=3, max_side=4), st.sampled_from((2, 3, 4, 5)), st.booleans(), st.data())
def test_pickled_arrays_come_back_to_the_bit(dtype, shape, protocol, fortran, data):
  import pickle

  values = data.draw(arrays.arrays(np.dtype(dtype), shape))
  values = np.asfortranarray(values) if fortran else values
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / 'a.pkl'
    path.write_bytes(pickle.dumps({'x': values}, protocol=protocol))
    found = np.asarray(load_arrays(str(path))['x'])
  assert found.dtype == values.dtype
  assert found.tobytes() == values.tobytes()
