"""Missingness: the same bits everywhere, the rates that were asked for, and fills that tell nothing of what is gone."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from small_data import SPEC, small_split

from dream_jax.errors import UserError
from dream_jax.missingness import counter, fills, protocols
from dream_jax.missingness.counter import NUMPY
from dream_jax.missingness.missing import Missing, describe, draw_keep, removes, slot_keep, validate
from dream_jax.spec import DatasetSpec, ModalitySpec

ZERO = {m.name: np.linspace(-2, -1, m.shape[-1], dtype=np.float32) for m in SPEC.modalities if m.kind != 'tokens'}
ALL_FILLS = ('zeros', 'noise', 'swap', 'mean')
EXAMPLES = (
  Missing(),
  Missing('modality', 0.6, fills=ALL_FILLS),
  Missing('modality', 0.9, 'uniform', fills=('noise',)),
  Missing('imbalanced', 0.1, rates=(('text', 0.8), ('face', 0.5)), fills=('swap', 'zeros')),
  Missing('subset', kept=('face', 'audio'), fills=ALL_FILLS),
  Missing('frames', 0.5, fills=ALL_FILLS),
  Missing('frames', 0.9, 'uniform', fills=('swap',)),
  Missing('block', 0.5, 'uniform', fills=ALL_FILLS),
  Missing('modality', 0.6, 'uniform', parts=('frames', 'block'), fills=ALL_FILLS),
  Missing('imbalanced', 0.1, rates=(('text', 0.8),), parts=('block',), fills=('swap', 'zeros')),
)
MANY = np.random.default_rng(0).integers(0, 2**32, (20000, 2), dtype=np.uint32)


def _lengths(features):
  return {m.name: features[m.length_name] for m in SPEC.modalities if m.has_length}


def _apply(missing, split, rows, backend=NUMPY, *, seed=3, epoch=5, inputs=None):
  """Inputs of the rows after and masks, all as the pipeline would call it."""
  features = {k: backend.asarray(v) for k, v in split.features.items()}
  rows = backend.int32(rows)
  inputs = inputs or {k: backend.take(v, rows) for k, v in features.items()}
  drawn = {'seed': seed, 'keys': backend.take(backend.asarray(split.keys), rows), 'epoch': epoch, 'backend': backend}
  keep = draw_keep(missing, SPEC, lengths=_lengths(inputs), **drawn)
  return fills.apply_missing(missing, SPEC, inputs, zero=ZERO, donors=features, rows=rows, keep=keep, **drawn), keep


# Tracing a graph takes seconds: of slots, rates of their own, frames and blocks one each.
@pytest.mark.parametrize(
  ('missing', 'name'),
  [
    *itertools.product(EXAMPLES, ('tensorflow', 'jax')),
    *((m, 'tensorflow graph') for m in (EXAMPLES[1], EXAMPLES[3], EXAMPLES[5], EXAMPLES[7])),
  ],
  ids=lambda x: x if isinstance(x, str) else describe(x),
)
def test_all_backends_agree_to_the_bit(missing, name):
  split, rows = small_split(19, 'x'), np.array([4, 18, 0, 4, 7, 9, 12, 1, 2, 3])
  seed, epoch = np.arange(10, dtype=np.uint32) // 5 + 3, np.arange(10, dtype=np.uint32) % 3
  expected = _apply(missing, split, rows, seed=seed, epoch=epoch)
  b = counter.backend(name.split()[0])

  def run():
    return _apply(missing, split, rows, b, seed=b.uint32(seed), epoch=b.uint32(epoch))

  if name == 'jax':
    run = jax.jit(run)
  elif name == 'tensorflow graph':
    run = b.tf.function(run)
  found = run()
  exact = ((expected[0], expected[1][:2]), (found[0], found[1][:2]))
  for x, y in zip(*map(jax.tree.leaves, exact), strict=True):
    y = np.ascontiguousarray(y)
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x.view(np.uint8), y.view(np.uint8))
  np.testing.assert_allclose(expected[1].share, np.asarray(found[1].share), rtol=1e-6)


@pytest.mark.parametrize('missing', EXAMPLES, ids=describe)
def test_a_sample_loses_the_same_in_any_company(missing):
  split = small_split(19, 'x')
  together, keep = _apply(missing, split, np.arange(19))
  for row in (0, 7, 18):
    alone, kept = _apply(missing, split, np.array([row]))
    for name in together:
      np.testing.assert_array_equal(alone[name][0], together[name][row])
    np.testing.assert_array_equal(kept.share[0], keep.share[row])


@pytest.mark.parametrize('missing', EXAMPLES[1:], ids=describe)
def test_what_is_removed_is_never_read(missing):
  split, rows = small_split(19, 'x'), np.arange(19)
  expected, keep = _apply(missing, split, rows)
  inputs = {k: v.copy() for k, v in split.features.items()}
  removed = 0
  for m, modality in enumerate(SPEC.modalities):
    whole = ~keep.slots[:, m]
    gone = whole
    if modality.name in keep.frames:
      gone = ~keep.frames[modality.name] | whole[:, None]
    inputs[modality.name][gone] = -7 if modality.kind == 'tokens' else np.nan
    if modality.has_length:
      inputs[modality.length_name][whole] = -5
    removed += gone.sum()
  assert removed
  found, _ = _apply(missing, split, rows, inputs=inputs)
  for name, x in expected.items():
    np.testing.assert_array_equal(found[name], x)


@pytest.mark.parametrize('rate', [0.1, 0.5, 0.7, 0.95])
def test_modality_rates(rate):
  keep = slot_keep(Missing('modality', rate), SPEC, seed=1, keys=MANY, epoch=0, backend=NUMPY)
  assert keep.any(1).all()
  # One of M is given back, at random, in the share rate^M of samples that would have lost all.
  np.testing.assert_allclose(1 - keep.mean(0), rate - rate**4 / 4, atol=4 * 0.5 / np.sqrt(len(MANY)))


def test_modalities_go_missing_independently():
  removed = ~slot_keep(Missing('modality', 0.3), SPEC, seed=1, keys=MANY, epoch=0, backend=NUMPY)
  assert abs((removed[:, 0] & removed[:, 1]).mean() - 0.09) < 0.01
  other = ~slot_keep(Missing('modality', 0.3), SPEC, seed=1, keys=MANY, epoch=1, backend=NUMPY)
  assert abs((removed & other).mean() - 0.09) < 0.01
  other = ~slot_keep(Missing('modality', 0.3), SPEC, seed=2, keys=MANY, epoch=0, backend=NUMPY)
  assert abs((removed & other).mean() - 0.09) < 0.01


@pytest.mark.parametrize('law', ['fixed', 'uniform'])
def test_parts_are_what_sequences_lose_besides(law):
  lengths = {'audio': np.full(len(MANY), 7, np.int32), 'text': np.full(len(MANY), 6, np.int32)}
  drawn = {'lengths': lengths, 'seed': 1, 'keys': MANY, 'epoch': 0, 'backend': NUMPY}
  whole = draw_keep(Missing('modality', 0.6, law), SPEC, **drawn)
  keep = draw_keep(Missing('modality', 0.6, law, parts=('frames', 'block')), SPEC, **drawn)
  # Whole modalities go as ever, and what has no frames loses nothing else.
  np.testing.assert_array_equal(keep.slots, whole.slots)
  np.testing.assert_array_equal(keep.share[:, 2:], whole.share[:, 2:])
  audio, text = ~keep.frames['audio'], ~keep.frames['text']
  expected = np.where(keep.slots[:, 0], 1 - audio.mean(1), 0)
  np.testing.assert_allclose(keep.share[:, 0], expected, atol=1e-6)
  # A third of the sequences loses nothing, a third frames, a third a span; each modality draws for itself.
  mean = 0.6 if law == 'fixed' else 0.3
  assert abs(audio.mean() - 2 / 3 * mean) < 0.02
  inner = (np.diff(audio.astype(int), axis=1) == 1).sum(1) + audio[:, 0]  # spans that begin
  assert (inner > 1).mean() > 0.05
  assert abs(np.corrcoef(audio.mean(1), text.mean(1))[0, 1]) < 0.03
  only = ~draw_keep(Missing('modality', 0.6, law, parts=('block',)), SPEC, **drawn).frames['audio']
  assert ((np.diff(only.astype(int), axis=1) == 1).sum(1) + only[:, 0] <= 1).all()
  assert abs((only.any(1)).mean() - 0.5) < (0.02 if law == 'fixed' else 0.1)


def test_parts_belong_to_kinds_that_remove_whole_modalities():
  for kind in ('frames', 'block', 'none'):
    with pytest.raises(UserError, match='parts'):
      validate(Missing(kind, 0.5 if kind != 'none' else 0.0, parts=('frames',)), SPEC)


def test_uniform_law_draws_a_rate_per_sample():
  keep = slot_keep(Missing('modality', 0.8, 'uniform'), SPEC, seed=1, keys=MANY, epoch=0, backend=NUMPY)
  count = (~keep).sum(1)
  p = np.linspace(0, 0.8, 2001)
  np.testing.assert_allclose(1 - keep.mean(), (p - p**4 / 4).mean(), atol=0.01)
  # A shared rate makes slots of a sample alike: none missing is commoner than at the mean rate.
  np.testing.assert_allclose((count == 0).mean(), ((1 - p) ** 4).mean(), atol=0.015)


def test_imbalanced_rates_and_subsets():
  missing = Missing('imbalanced', 0.1, rates=(('text', 0.7), ('face', 0.0)))
  keep = slot_keep(missing, SPEC, seed=1, keys=MANY, epoch=0, backend=NUMPY)
  np.testing.assert_allclose(1 - keep.mean(0), [0.1, 0.7, 0.0, 0.1], atol=0.015)
  keep = slot_keep(Missing('subset', kept=('pose', 'text')), SPEC, seed=1, keys=MANY[:5], epoch=0, backend=NUMPY)
  np.testing.assert_array_equal(keep, [[False, True, False, True]] * 5)


@pytest.mark.parametrize('kind', ['modality', 'frames', 'block'])
def test_more_goes_at_a_higher_rate_and_nothing_comes_back(kind):
  if kind == 'modality':
    masks = [
      slot_keep(Missing(kind, r / 20), SPEC, seed=1, keys=MANY[:2000], epoch=0, backend=NUMPY) for r in range(20)
    ]
    alone = [m.sum(1, keepdims=True) == 1 for m in masks]  # The one that stays may have been given back.
    assert all(((low >= high) | one).all() for low, high, one in zip(masks, masks[1:], alone[1:], strict=False))
    return
  lengths = {'audio': np.full(2000, 7, np.int32), 'text': np.arange(2000, dtype=np.int32) % 6 + 1}
  drawn = {'lengths': lengths, 'seed': 1, 'keys': MANY[:2000], 'epoch': 0, 'backend': NUMPY}
  shares = [draw_keep(Missing(kind, r / 20), SPEC, **drawn).share for r in range(20)]
  assert all((low >= high).all() for low, high in itertools.pairwise(shares))


def test_frames_go_at_the_rate_and_not_beyond_the_length():
  lengths = {'audio': np.arange(20000, dtype=np.int32) % 8, 'text': np.full(20000, 6, np.int32)}
  drawn = {'lengths': lengths, 'seed': 1, 'keys': MANY, 'epoch': 0, 'backend': NUMPY}
  keep = draw_keep(Missing('frames', 0.3), SPEC, **drawn)
  inside = np.arange(7) < lengths['audio'][:, None]
  assert keep.frames['audio'][~inside].all()
  assert abs(keep.frames['audio'][inside].mean() - 0.7) < 0.01
  np.testing.assert_allclose(keep.frames['text'].mean(0), 0.7, atol=0.015)
  np.testing.assert_allclose(1 - keep.slots.mean(0), [0, 0, 0.3, 0.3], atol=0.015)
  np.testing.assert_allclose(keep.share[:, 1], keep.frames['text'].mean(1), atol=1e-6)
  expected = np.where(inside, keep.frames['audio'], 0).sum(1) / np.maximum(lengths['audio'], 1)
  np.testing.assert_allclose(keep.share[:, 0], np.where(lengths['audio'] > 0, expected, 1), atol=1e-6)


def test_a_block_is_one_span_of_the_asked_share():
  lengths = {'audio': np.arange(20000, dtype=np.int32) % 8, 'text': np.full(20000, 6, np.int32)}
  drawn = {'lengths': lengths, 'seed': 1, 'keys': MANY, 'epoch': 0, 'backend': NUMPY}
  removed = ~draw_keep(Missing('block', 0.4), SPEC, **drawn).frames['audio']
  np.testing.assert_array_equal(removed.sum(1), np.floor(0.4 * lengths['audio'] + 0.5))
  starts = (np.diff(removed.astype(int), axis=1, prepend=0) == 1).sum(1)
  assert starts.max() == 1
  full = removed[lengths['audio'] == 7]
  first = np.bincount(full.argmax(1), minlength=7)
  assert first[5:].sum() == 0
  np.testing.assert_allclose(first[:5] / len(full), 0.2, atol=0.04)


def test_without_sequences_frames_leave_one_modality():
  spec = DatasetSpec(
    'two', (ModalitySpec('a', 'vector', (2,)), ModalitySpec('b', 'vector', (2,))), 'binary', 1, 'synthetic'
  )
  keep = slot_keep(Missing('frames', 0.9), spec, seed=0, keys=MANY, epoch=0, backend=NUMPY)
  assert keep.any(1).all()


def test_masks_do_not_depend_on_the_fill():
  keeps = [_apply(Missing('modality', 0.5, fills=(f,)), small_split(19, 'x'), np.arange(19))[1] for f in ALL_FILLS]
  assert all((k.slots == keeps[0].slots).all() for k in keeps)


def _donor_lengths(fill):
  split, rows = small_split(300, 'x'), np.arange(300)
  after, keep = _apply(Missing('modality', 0.7, fills=(fill,)), split, rows)
  return split, after, keep


@pytest.mark.parametrize('fill', ALL_FILLS)
def test_the_length_of_what_is_gone_is_another_samples(fill):
  split, after, keep = _donor_lengths(fill)
  for m, name in ((0, 'audio'), (1, 'text')):
    before, now, gone = split.features[f'{name}_length'], after[f'{name}_length'], ~keep.slots[:, m]
    np.testing.assert_array_equal(now[~gone], before[~gone])
    # Independent of the true length, distributed as lengths are.
    assert abs(np.corrcoef(before[gone], now[gone])[0, 1]) < 0.25
    assert set(now[gone]) == set(before)
    np.testing.assert_array_equal(now, _donor_lengths('zeros')[1][f'{name}_length'])
    beyond = np.arange(after[name].shape[1]) >= now[:, None]
    assert (after[name][beyond] == 0).all()
    assert (after[name][~beyond & gone[:, None]] != 0).any() or fill == 'mean'


def test_zeros_and_mean_are_constants():
  for fill, unknown in (('zeros', 1), ('mean', 1)):
    split, after, keep = _donor_lengths(fill)
    for m, modality in enumerate(SPEC.modalities):
      rows = after[modality.name][~keep.slots[:, m]]
      value = unknown if modality.kind == 'tokens' else ZERO[modality.name] if fill == 'zeros' else 0
      expected = np.broadcast_to(value, rows.shape)
      if modality.has_length:
        inside = np.arange(modality.shape[0]) < after[modality.length_name][~keep.slots[:, m]][:, None]
        rows, expected = rows[inside], expected[inside]
      np.testing.assert_array_equal(rows, expected)
      kept = keep.slots[:, m]
      np.testing.assert_array_equal(after[modality.name][kept], split.features[modality.name][kept])


def test_noise_is_standard_normal_and_tokens_are_known_ids():
  _, after, keep = _donor_lengths('noise')
  faces = after['face'][~keep.slots[:, 2]]
  assert abs(faces.mean()) < 0.1
  assert abs(faces.std() - 1) < 0.1
  assert len(np.unique(faces[:, 0, 0, 0])) > 0.9 * len(faces)
  gone = ~keep.slots[:, 1]
  tokens = after['text'][gone][np.arange(6) < after['text_length'][gone][:, None]]
  assert tokens.min() == 2
  assert tokens.max() == 49
  assert np.bincount(tokens, minlength=50)[2:].min() > 0


def test_the_noise_bank_is_standard_normal():
  bank = fills.noise_bank()
  assert bank.shape == (2**14, 16)
  assert bank.dtype == np.float32
  n = bank.size
  assert abs(bank.mean()) < 4 / np.sqrt(n)
  assert abs(bank.var() - 1) < 4 * np.sqrt(2 / n)
  quantiles = np.quantile(bank, [0.025, 0.16, 0.84, 0.975])
  np.testing.assert_allclose(quantiles, [-1.96, -0.994, 0.994, 1.96], atol=0.02)
  assert abs(np.corrcoef(bank.T) - np.eye(16)).max() < 4.5 / np.sqrt(2**14)


@pytest.mark.parametrize('n', [2, 3, 19])
def test_swap_is_another_sample_whole(n):
  split = small_split(n, 'x')
  seen = [set() for _ in range(n)]
  for epoch in range(60):
    after, keep = _apply(Missing('modality', 0.7, fills=('swap',)), split, np.arange(n), epoch=epoch)
    for m, modality in enumerate(SPEC.modalities):
      for row in np.flatnonzero(~keep.slots[:, m]):
        same = (after[modality.name][row] == split.features[modality.name]).reshape(n, -1).all(1)
        (donor,) = np.flatnonzero(same)
        assert donor != row
        if modality.has_length:
          assert after[modality.length_name][row] == split.features[modality.length_name][donor]
        seen[row].add(int(donor))
  assert all(donors == set(range(n)) - {row} for row, donors in enumerate(seen))


def test_swapped_frames_are_the_donors_at_that_time():
  split = small_split(9, 'x')
  after, keep = _apply(Missing('frames', 0.6, fills=('swap',)), split, np.arange(9))
  audio, lengths = split.features['audio'], split.features['audio_length']
  np.testing.assert_array_equal(after['audio_length'], lengths)
  for row in range(9):
    gone = np.flatnonzero(~keep.frames['audio'][row])
    givers = [
      d for d in range(9) if all((after['audio'][row, t] == audio[d, t % lengths[d]]).all() for t in gone) and d != row
    ]
    assert givers
    kept = keep.frames['audio'][row]
    np.testing.assert_array_equal(after['audio'][row, kept], audio[row, kept])


def test_frame_noise_does_not_repeat():
  after, keep = _apply(Missing('frames', 0.6, fills=('noise',)), small_split(50, 'x'), np.arange(50))
  values = after['audio'][~keep.frames['audio']]
  assert len(np.unique(values)) > 0.95 * values.size
  assert abs(values.std() - 1) < 0.1


def test_fills_are_drawn_uniformly():
  split = small_split(3000, 'x')
  after, keep = _apply(Missing('modality', 0.5, fills=('zeros', 'mean')), split, np.arange(3000))
  rows = after['pose'][~keep.slots[:, 3]]
  zeros = (rows == ZERO['pose']).all(1)
  assert ((rows == 0).all(1) | zeros).all()
  assert abs(zeros.mean() - 0.5) < 0.05


@pytest.mark.parametrize(
  ('missing', 'words'),
  [
    (Missing('modalities', 0.1), ['modalities', 'modality', 'frames']),
    (Missing('modality', 1.0), ['1.0', 'below 1']),
    (Missing('modality', -0.1), ['-0.1']),
    (Missing('modality', float('nan')), ['nan']),
    (Missing('modality', 0.1, 'beta'), ['beta', 'uniform']),
    (Missing('modality', 0.1, fills=('ones',)), ['ones', 'swap']),
    (Missing('modality', 0.1, fills=()), ['fills']),
    (Missing('modality', 0.1, fills='zeros'), ['tuple']),
    (Missing('imbalanced', rates=(('smell', 0.1),)), ['smell', 'audio']),
    (Missing('imbalanced', rates=(('audio', 1.0),)), ['rates[0]', '1.0']),
    (Missing('imbalanced', rates=(('audio', 0.1), ('audio', 0.2))), ['twice']),
    (Missing('imbalanced'), ['rates']),
    (Missing('modality', 0.1, rates=(('audio', 0.1),)), ['imbalanced']),
    (Missing('subset'), ['at least one']),
    (Missing('subset', kept=('smell',)), ['smell', 'audio']),
    (Missing('modality', 0.1, kept=('audio',)), ['subset']),
    (Missing('subset', 0.1, kept=('audio',)), ['rate is 0.1', 'subset']),
    (Missing('none', fills=('noise',)), ['fills', 'none']),
  ],
)
def test_a_wrong_specification_says_what_is_allowed(missing, words):
  with pytest.raises(UserError) as error:
    validate(missing, SPEC)
  message = str(error.value)
  assert '\n' not in message
  assert all(word in message for word in words), message


def test_descriptions():
  assert describe(Missing()) == 'complete'
  assert describe(Missing('modality', 0.3)) == 'modality 0.3, zeros'
  assert describe(Missing('modality', 0.5, 'uniform', fills=('zeros', 'noise'))) == 'modality up to 0.5, zeros or noise'
  assert describe(Missing('subset', kept=('audio', 'face'))) == 'only audio+face, zeros'
  assert describe(EXAMPLES[3]) == 'imbalanced text 0.8, face 0.5, others 0.1, swap or zeros'


def test_removes():
  assert not removes(Missing())
  assert not removes(Missing('modality', 0.0))
  assert not removes(Missing('imbalanced', rates=(('audio', 0.0),)))
  assert all(removes(missing) for missing in EXAMPLES[1:])


@pytest.mark.parametrize('protocol', protocols.protocol_names())
def test_every_protocol_fits_the_data(protocol):
  found = protocols.conditions(protocol, SPEC)
  assert len({c.name for c in found}) == len(found)
  for condition in found:
    validate(condition.missing, SPEC)
    assert condition.missing.fills == ((protocol.split('/')[1],) if '/' in protocol else ('zeros',))


def test_protocol_conditions():
  assert [c.rate for c in protocols.conditions('modality/swap', SPEC)] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
  assert [c.name for c in protocols.conditions('frames/zeros', SPEC)][-1] == '0.9'
  assert [c.rate for c in protocols.conditions('block/zeros', SPEC)] == [0.1, 0.3, 0.5, 0.7]
  subsets = protocols.conditions('subset/zeros', SPEC)
  assert len(subsets) == 2**4 - 2
  assert subsets[0].name == 'audio'
  assert subsets[-1].missing.kept == ('text', 'face', 'pose')
  assert subsets[4].name == 'audio+text'


def test_imbalanced_conditions_share_their_average():
  pair = dataclasses.replace(SPEC, modalities=SPEC.modalities[:2])
  for spec in (SPEC, pair):
    found = protocols.conditions('imbalanced/zeros', spec)
    averages = [np.mean([r for _, r in c.missing.rates]) if c.missing.rates else c.missing.rate for c in found]
    np.testing.assert_allclose(averages, [0.3] * (len(found) // 2) + [0.5] * (len(found) // 2), atol=1e-4)
    assert found[1].name == 'audio 0.6'


def test_an_unknown_protocol_lists_the_known():
  with pytest.raises(UserError, match='modality/zeros'):
    protocols.conditions('modality/ones', SPEC)
