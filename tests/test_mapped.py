"""The same step on any devices: one, eight that share rows, eight that share seeds, both, and by pmap."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from small_runs import FAST_COMPILE, numpy_batches, optax_promotes, small_prepared, small_recipe  # noqa: F401

from dream_jax.errors import UserError
from dream_jax.models.model import ORACLE_MASK
from dream_jax.models.registry import METHODS, find_method
from dream_jax.parallel import rows
from dream_jax.parallel.mesh import make_mesh, mesh_over, put, sharding
from dream_jax.training.programs import lower, mesh_of
from dream_jax.training.runs import Runs

_SEEDS, _ROWS, _STEPS = 8, 16, 20
# (devices along seed, along data, how)
_ONE = (1, 1, 'jit')
_LAYOUTS = [(1, 8, 'jit'), (8, 1, 'jit'), (2, 4, 'jit'), (1, 8, 'pmap')]
# Their losses are means over rows, as the plainest method's is.
_ALIKE = ('late+dropout', 'late-mlp+dropout', 'tfn+dropout', 'lmf+dropout', 'mult+dropout')
_TRAINED = [
  name for name, method in METHODS.items() if method.module is not None and method.inject and name not in _ALIKE
]
# Sums over a batch are added up in another order: the last bits of float32 differ, and twenty steps of Adam, which
# divides by the root of small second moments, carry them into the losses. Measured: 3e-7 at most.
_RTOL = 2e-6
_COLLECTIVE = re.compile(r' = (\S+) (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(?:-start)?\(')


@pytest.fixture(scope='module')
def prepared():
  return small_prepared('multiclass', ('face', 'pose'))


class _Run:
  """Twenty steps of a method on a layout."""

  def __init__(self, name, prepared, layout):
    seed, data, how = layout
    method = find_method(name)
    recipe = small_recipe(num_seeds=_SEEDS, train__batch_size=_ROWS, parallel=how, inject__rate=0.9)
    mesh = mesh_over(jax.devices()[: seed * data], seed)
    runs = Runs(recipe.seeds)
    lowered = lower(method, recipe, prepared.spec, mesh, num_steps=_STEPS, per_call=5, runs=runs)
    call = lowered.call.compile(FAST_COMPILE)
    self.params = sum(x.size for x in jax.tree.leaves(lowered.state.params)) // _SEEDS
    seeds = put(np.arange(_SEEDS, dtype=np.uint32), sharding(mesh, 'seed'))
    state = dataclasses.replace(lowered.create.compile(FAST_COMPILE)(seeds), best=None)
    self.losses = []
    for batch in numpy_batches(
      prepared,
      inject=recipe.inject.missing(),
      batch_size=_ROWS,
      seeds=recipe.seeds,
      num_steps=_STEPS,
      steps_per_call=5,
      with_clean='clean' in lowered.batch,
    ):
      if 'mask' in method.uses_oracle:
        batch['inputs'] = {**batch['inputs'], ORACLE_MASK: batch['kept']}
      state, terms = call(state, put(batch, sharding(mesh, None, 'seed', 'data')), seeds, {})
      self.losses.append(np.asarray(terms['loss']))
    self.state = jax.tree.map(np.asarray, state)
    compiled = call if how == 'jit' else lowered.call.lowered.compile(FAST_COMPILE)
    self.collectives = _COLLECTIVE.findall(compiled.as_text())


@pytest.fixture(scope='module')
def one(prepared):
  """name -> its run on one device."""
  runs = {}

  def get(name):
    if name not in runs:
      runs[name] = _Run(name, prepared, _ONE)
    return runs[name]

  return get


def _cases():
  """DREAM and the plainest method on every layout, the others on both axes at once; most take minutes together."""
  for name in _TRAINED:
    for layout in _LAYOUTS if name in ('dream', 'concat+dropout') else [(2, 4, 'jit')]:
      quick = (name, layout) == ('concat+dropout', (2, 4, 'jit'))
      marks = () if quick else pytest.mark.slow
      yield pytest.param(name, layout, id=f'{name}-{layout[0]}x{layout[1]}-{layout[2]}', marks=marks)


@pytest.mark.parametrize(('name', 'layout'), list(_cases()))
def test_losses_and_collectives_are_those_of_the_layout(prepared, one, name, layout):
  alone, run = one(name), _Run(name, prepared, layout)
  np.testing.assert_allclose(run.losses, alone.losses, rtol=_RTOL)
  assert run.losses[-1].mean() < run.losses[0].mean()
  assert alone.collectives == []
  if layout[1] == 1:  # Seeds need nothing of each other.
    assert run.collectives == []
    return
  here = _SEEDS // layout[0]
  kinds = {kind for _, kind in run.collectives}
  shapes = [re.match(rf'f32\[{here},(\d+)\]', shape) for shape, _ in run.collectives]
  assert kinds == {'all-reduce'}
  assert all(shapes), run.collectives  # float32, and every row of it one of this device's seeds
  sizes = sorted(int(shape[1]) for shape in shapes)
  # One for the gradient with the values of the losses, all parameters in one; before it what is counted in the batch.
  twice = 2 if name.startswith('mmpareto') else 1  # it combines two gradients
  assert twice * run.params < sizes[-1] <= twice * run.params + 8
  assert len(sizes) <= (3 if name == 'mmin' else 2), sizes
  assert all(size <= 5 for size in sizes[:-1])


def test_sums_counts_and_draws_are_those_of_the_whole_batch():
  def step(x, counted):
    drawn = rows.draw(lambda shape: jax.random.uniform(jax.random.key(0), shape), x.shape)
    return drawn, rows.mean((x * counted).sum() / rows.divisor(counted.sum()))

  mesh = mesh_over(jax.devices()[:4], 1)
  mapped = jax.jit(
    jax.shard_map(step, mesh=mesh, in_specs=(P('data'), P('data')), out_specs=(P('data'), P()), check_vma=False)
  )
  x = np.arange(8, dtype=np.float32) + 1
  counted = np.float32([1, 1, 1, 0, 0, 0, 0, 1])  # Not as many on each device, none on the third.
  drawn, mean = mapped(x, counted)
  np.testing.assert_array_equal(drawn, jax.random.uniform(jax.random.key(0), (8,)))
  np.testing.assert_allclose(mean, x[counted > 0].mean(), rtol=1e-6)
  assert mapped(x, 0 * counted)[1] == 0


def test_devices_that_share_rows_hold_equal_parameters_to_the_bit(prepared):
  recipe = small_recipe(num_seeds=_SEEDS, train__batch_size=_ROWS)
  mesh = mesh_over(jax.devices(), 2)
  lowered = lower(
    find_method('concat+dropout'), recipe, prepared.spec, mesh, num_steps=2, per_call=2, runs=Runs(recipe.seeds)
  )
  seeds = put(np.arange(_SEEDS, dtype=np.uint32), sharding(mesh, 'seed'))
  state = dataclasses.replace(lowered.create.compile(FAST_COMPILE)(seeds), best=None)
  (batch,) = numpy_batches(
    prepared,
    inject=recipe.inject.missing(),
    batch_size=_ROWS,
    seeds=recipe.seeds,
    num_steps=2,
    steps_per_call=2,
    with_clean=False,
  )
  state, _ = lowered.call.compile(FAST_COMPILE)(state, put(batch, sharding(mesh, None, 'seed', 'data')), seeds, {})
  for leaf in jax.tree.leaves(state.params):
    by_seeds = {}
    for shard in leaf.addressable_shards:
      by_seeds.setdefault(shard.index[0].start, []).append(np.asarray(shard.data))
    assert len(by_seeds) == 2
    for copies in by_seeds.values():
      assert len(copies) == 4
      for copy in copies[1:]:
        np.testing.assert_array_equal(copy, copies[0])


def test_pmap_of_a_mesh_with_seeds_is_refused(prepared):
  recipe = small_recipe(num_seeds=2, train__batch_size=_ROWS, parallel='pmap', mesh__seed=2)
  with pytest.raises(UserError, match=r'pmap spreads the rows.*mesh\.seed=1'):
    lower(
      find_method('late+dropout'), recipe, prepared.spec, mesh_of(recipe), num_steps=1, per_call=1, runs=Runs((0, 1))
    )


@pytest.mark.parametrize(
  ('sizes', 'words'),
  [
    ((3, -1), 'config.mesh.seed is 3; 8 devices cannot be divided by it'),
    ((-1, 5), 'config.mesh.data is 5; 8 devices cannot be divided by it'),
    ((2, 2), 'config.mesh asks for 2 x 2 devices; there are 8'),
    ((-1, -1), 'are both -1'),
  ],
)
def test_mesh_that_does_not_fit_the_devices_is_refused(sizes, words):
  with pytest.raises(UserError) as told:
    make_mesh(*sizes)
  assert words in str(told.value)


def test_mesh_fills_what_is_left():
  assert dict(make_mesh(-1, 2).shape) == {'seed': 4, 'data': 2}
  assert dict(make_mesh(2, -1).shape) == {'seed': 2, 'data': 4}


def test_seeds_that_do_not_divide_are_refused(prepared):
  recipe = small_recipe(num_seeds=3, train__batch_size=_ROWS)
  with pytest.raises(UserError, match='num_seeds is 3; 8 devices share the seeds'):
    lower(
      find_method('late+dropout'), recipe, prepared.spec, make_mesh(8, 1), num_steps=1, per_call=1, runs=Runs((0, 1, 2))
    )
