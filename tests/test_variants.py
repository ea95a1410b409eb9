"""A method with settings of its own in brackets: read, checked, trained as a method like others."""

import dataclasses

import numpy as np
import pytest
from small_runs import optax_promotes, small_prepared, small_recipe  # noqa: F401

from dream_jax.config.recipe import recipe_of
from dream_jax.errors import UserError
from dream_jax.experiments.units import Plan, Unit, run_key
from dream_jax.experiments.workbench import Workbench
from dream_jax.missingness.missing import Missing
from dream_jax.models.registry import build, find_method
from dream_jax.training.programs import program_key

_FILLS = "dream[inject.fills=('zeros', 'noise'), model.sharpness=1.0]"


def test_settings_change_the_recipe_of_that_method_alone():
  recipe, method = small_recipe(controls=(_FILLS,)), find_method(_FILLS)
  own = recipe_of(method, recipe)
  assert (own.inject.fills, own.model.sharpness) == (('zeros', 'noise'), 1.0)
  same = dataclasses.replace(own, inject=recipe.inject, model=recipe.model)
  assert same == recipe
  assert recipe_of(find_method('dream'), recipe) is recipe
  assert (method.name, method.title) == (_FILLS, 'DREAM: fills zeros+noise, sharpness 1.0')


def test_a_word_needs_no_quotes_and_a_control_takes_sizes():
  recipe = small_recipe()
  assert recipe_of(find_method('dream[model.reconstruct=never]'), recipe).model.reconstruct == 'never'
  wide = find_method('late+dropout[model.width=24]')
  spec = small_prepared().spec
  assert build(wide, spec, recipe_of(wide, recipe).model).sizes.width == 24
  assert build(find_method('late+dropout'), spec, recipe.model).sizes.width == 8


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('dream[model.reconstrct=never]', "method 'dream[model.reconstrct=never]': config.model.reconstrct does not exist"),
    ('dream[model.width=wide]', 'config.model.width is '),
    ('dream[model.dropout=2.0]', 'config.model.dropout is 2.0; expected at least 0 and below 1'),
    ('dream[train.epochs=3]', "'train.epochs=3' cannot be read; expected one of model.FIELD=VALUE"),
    ('dream[model.dropout]', "'model.dropout' cannot be read"),
    ('dream[model.dropout=0.1', 'cannot be read; expected for instance dream[model.reconstruct=never]'),
    ('majority[model.dropout=0.1]', 'cannot be read'),
    ('drem[model.dropout=0.1]', 'did you mean dream?'),
  ],
)
def test_a_mistake_inside_the_brackets_is_told_when_the_config_is_read(name, words):
  with pytest.raises(UserError) as told:
    small_recipe(study__methods=(name,))
  assert words in str(told.value)


def test_variants_share_programs_only_where_nothing_compiled_differs():
  recipe, spec = small_recipe(inject__parts=('frames', 'block'), model__frames=True), small_prepared().spec

  def key(name):
    method = find_method(name)
    return program_key(method, recipe_of(method, recipe), spec)

  assert key("dream[inject.fills=('zeros',)]") == key('dream')
  assert key("dream[inject.parts=('block',)]") == key('dream')
  assert key('dream[inject.parts=()]') != key('dream')  # Batches do not say which frames were kept.
  assert key('dream[model.reconstruct=never]') != key('dream')
  assert key('dream[losses.coalition=0.0]') != key('dream')


def test_a_variant_is_a_run_of_its_own():
  recipe = small_recipe()

  def key(name, recipe=recipe):
    return run_key(Unit(name, 'complete'), Plan('study', (name,), {'complete': Missing()}), recipe, 'data', {})

  assert key('dream[model.dropout=0.1]') != key('dream[model.dropout=0.3]')
  assert key('dream[model.dropout=0.1]') != key('dream', recipe)


@pytest.mark.slow
def test_a_variant_trains_on_its_own_damage():
  prepared = small_prepared('multiclass', ('face', 'pose'))
  bench = Workbench(small_recipe(), prepared)
  zeros = bench.trainer(find_method("late+dropout[inject.fills=('zeros',), inject.rate=0.9]"))
  both = bench.trainer(find_method('late+dropout'))
  assert zeros.programs is both.programs
  first, second = (next(iter(t.batches(0)))['inputs']['pose'] for t in (zeros, both))
  assert not np.array_equal(first, second)
  raw_zero = prepared.zero['pose']
  gone = np.isclose(np.asarray(first), raw_zero).all(-1)
  assert gone.mean() > 0.2
