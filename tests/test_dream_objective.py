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
  spec, batch = _batch()
  model = build(find_method('dream'), spec, small_recipe().model)
  params = jit(lambda key: model.init({'params': key}, batch['inputs'], train=False)['params'])(jax.random.key(0))
  run = jit(lambda batch: model.loss(params, batch, jax.random.key(2))[1])
  return spec, batch, run


def _batch(*names):
  """(spec, a batch with removed slots) of these modalities, of all if none is named."""
  prepared = small_prepared('multiclass', *([names] if names else []), train=16, validation=4, test=4)
  batches = numpy_batches(
    prepared,
    inject=Missing('modality', 0.6, fills=('noise',)),
    batch_size=8,
    seeds=(0,),
    num_steps=1,
    steps_per_call=1,
    with_clean=True,
  )
  return prepared.spec, jax.tree.map(lambda x: x[0, 0], next(batches))


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


@pytest.fixture(scope='module')
def terms_and_gradients():
  """(batch, weights, terms, forward pass, target of reconstructions, gradients of each term, of one by the target)."""
  spec, batch = _batch('face', 'pose')
  weights = losses.LossWeights(unimodal=0.2, coalition=0.4, recognition=0.7, reconstruction=0.6, confidence=0.5)
  model = build(find_method('dream'), spec, small_recipe().model, weights)
  params = jit(lambda key: model.init({'params': key}, batch['inputs'], train=False)['params'])(jax.random.key(0))
  key = jax.random.key(2)
  named = ('recognition', 'reconstruction', 'confidence')

  def everything(params):
    dropout, draw = jax.random.split(key)
    rngs = {'dropout': dropout, 'draw': draw}
    trace = model.apply({'params': params}, batch['inputs'], train=True, method='trace', rngs=rngs)
    truth = model.apply({'params': params}, batch['clean'], train=False, method='encode')

    def each(params, face):
      terms = model.loss(params, {**batch, 'clean': {**batch['clean'], 'face': face}}, key)[1]
      return jnp.stack([terms[name] for name in named]), terms

    by, terms = jax.jacrev(each, argnums=(0, 1), has_aux=True)(params, jnp.asarray(batch['clean']['face']))
    grads = {name: jax.tree.map(lambda g, i=i: g[i], by[0]) for i, name in enumerate(named)}
    return terms, trace, truth, grads, by[1][named.index('reconstruction')]

  return batch, weights, *jit(everything)(params)


def test_terms_about_what_was_removed_are_as_defined(terms_and_gradients):
  batch, weights, terms, trace, truth, _, _ = terms_and_gradients
  kept = np.asarray(batch['kept']) >= 0.5
  assert (~kept).any(1).any()
  rows = coalition_matrix(kept.shape[1])
  left = [int(np.flatnonzero((rows == kept[b]).all(1))[0]) for b in range(len(kept))]
  log_left = np.asarray(trace.log_coalition)[np.arange(len(kept)), left]
  np.testing.assert_allclose(terms['recognition'], -weights.recognition * log_left.mean(), rtol=1e-5)
  error = np.square(np.asarray(trace.outputs.reconstructions) - np.asarray(truth)).mean(-1)
  np.testing.assert_allclose(terms['reconstruction'], weights.reconstruction * error[~kept].mean(), rtol=1e-4)
  missed = np.square(np.asarray(trace.confidence) - np.exp(-error))
  np.testing.assert_allclose(terms['confidence'], weights.confidence * missed[~kept].mean(), rtol=1e-4)


def test_each_of_these_terms_teaches_its_own_part(terms_and_gradients):
  *_, grads, of_clean = terms_and_gradients
  largest = jax.tree.map(lambda g: float(np.abs(g).max()), grads)
  # Evidence and prior are read by recognition, and not bent by it.
  for part in ('encoders', 'heads', 'prior', 'fusion', 'reconstructor'):
    assert not any(jax.tree.leaves(largest['recognition'][part])), part
  assert any(jax.tree.leaves(largest['recognition']['recogniser']))
  # Reconstructions go to the truth, the truth does not come to them.
  assert largest['reconstruction']['reconstructor']['kernel'] > 0
  assert not np.asarray(of_clean).any()
  # How sure to be is learned from reconstructions as they are.
  confidence = dict(largest['confidence'])
  parts = confidence.pop('reconstructor')
  assert all(any(jax.tree.leaves(parts.pop(name))) for name in ('confidence_in', 'confidence_out'))
  assert not any(jax.tree.leaves((confidence, parts)))
