"""Evidence is learned from the slots that the trainer kept: the draw of coalitions, and the terms that use it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import jit, numpy_batches, small_prepared, small_recipe

from dream_jax.missingness.missing import Missing
from dream_jax.models.coalitions import coalition_matrix
from dream_jax.models.dream import losses
from dream_jax.models.registry import build, find_method

_DRAWS = 4000


@pytest.mark.parametrize('kept', [(1, 1, 1), (1, 0, 1), (0, 1, 0), (0, 1, 1, 1)], ids=str)
def test_coalitions_are_drawn_uniformly_from_the_kept_slots(kept):
  rows = coalition_matrix(len(kept))
  all_kept = jnp.broadcast_to(jnp.asarray(kept, bool), (_DRAWS, len(kept)))
  drawn = np.asarray(losses.draw_coalition(jax.random.key(0), jnp.asarray(rows), all_kept))
  allowed = ~(rows & ~np.asarray(kept, bool)).any(1)
  assert allowed.sum() == 2 ** sum(kept) - 1
  counts = np.bincount(drawn, minlength=len(rows))
  assert not counts[~allowed].any()
  expected = _DRAWS / allowed.sum()
  # Five standard deviations of a binomial count.
  assert np.abs(counts[allowed] - expected).max() <= 5 * np.sqrt(expected * (1 - 1 / allowed.sum()))


def test_every_sample_draws_for_itself():
  rows = coalition_matrix(3)
  kept = np.random.default_rng(0).random((500, 3)) < 0.5
  kept[~kept.any(1), 1] = True
  drawn = np.asarray(losses.draw_coalition(jax.random.key(1), jnp.asarray(rows), jnp.asarray(kept)))
  assert not (rows[drawn] & ~kept).any()
  assert len(set(drawn[kept.all(1)])) == len(rows)


@pytest.fixture(scope='module')
def terms_of():
  """A batch with removed slots, and the terms of DREAM's loss of it as a compiled function."""
  prepared = small_prepared('multiclass', train=16, validation=4, test=4)
  model = build(find_method('dream'), prepared.spec, small_recipe().model)
  batches = numpy_batches(
    prepared,
    inject=Missing('modality', 0.6, fills=('noise',)),
    batch_size=8,
    seeds=(0,),
    num_steps=1,
    steps_per_call=1,
    with_clean=True,
  )
  batch = jax.tree.map(lambda x: x[0, 0], next(batches))
  params = jit(lambda key: model.init({'params': key}, batch['inputs'], train=False)['params'])(jax.random.key(0))
  run = jit(lambda batch: model.loss(params, batch, jax.random.key(2))[1])
  return prepared.spec, batch, run


def _with_other_content(spec, batch, where):
  """The batch with other values in the slots of `where` [B, M]."""
  rng = np.random.default_rng(3)
  inputs = dict(batch['inputs'])
  for m, modality in enumerate(spec.modalities):
    x = inputs[modality.name].copy()
    rows = where[:, m]
    assert rows.any()
    if modality.kind == 'tokens':
      x[rows] = rng.integers(2, modality.vocab_size, x[rows].shape)
    else:
      x[rows] = rng.normal(4, 3, x[rows].shape)
    inputs[modality.name] = x
  return {**batch, 'inputs': inputs}


def test_evidence_learns_nothing_from_slots_that_the_trainer_removed(terms_of):
  spec, batch, run = terms_of
  removed = np.asarray(batch['kept']) < 0.5
  before = run(batch)
  after = run(_with_other_content(spec, batch, removed))
  for term in ('unimodal', 'coalition'):
    np.testing.assert_array_equal(before[term], after[term])
  # Recognition reads it: that is how it learns what removed slots look like.
  assert before['recognition'] != after['recognition']
  changed = run(_with_other_content(spec, batch, ~removed))
  for term in ('unimodal', 'coalition'):
    assert before[term] != changed[term]
