"""Every config and every variant that it names loads, is a recipe, and traces a train step; no data are read."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from small_runs import optax_promotes  # noqa: F401

from dream_jax.api import empty_inputs
from dream_jax.cli.flags import load_config
from dream_jax.config.recipe import recipe_from_config
from dream_jax.errors import UserError
from dream_jax.missingness.missing import validate
from dream_jax.missingness.protocols import conditions
from dream_jax.models.registry import build, find_method
from dream_jax.spec import DatasetSpec, ModalitySpec
from dream_jax.training.step import create_optimizer, create_state, train_call

_ROOT = Path(__file__).resolve().parent.parent
_STEPS = 2


def _variants(path):
  """'' and every variant that the config compares its argument with."""
  text = path.read_text()
  named = re.findall(r"variant (?:==|!=) '(\w+)'", text)
  for group in re.findall(r'variant (?:not )?in \(([^)]*)\)', text):
    named += re.findall(r"'(\w+)'", group)
  return ['', *dict.fromkeys(named)]


_CONFIGS = [f'{p}:{v}' if v else str(p) for p in sorted((_ROOT / 'configs').glob('*.py')) for v in _variants(p)]


# Shapes like those of the data sets, written down here so that nothing is downloaded or prepared.
def _vectors(name, widths, task, num_outputs):
  names = ('text', 'audio', 'vision')
  modalities = tuple(ModalitySpec(n, 'vector', (w,)) for n, w in zip(names, widths, strict=True))
  return DatasetSpec(name, modalities, task, num_outputs, 'real')


def _sequences(name, widths, highest):
  names = ('text', 'audio', 'vision')
  modalities = tuple(ModalitySpec(n, 'sequence', (50, w)) for n, w in zip(names, widths, strict=True))
  return DatasetSpec(name, modalities, 'regression', 1, 'real', label_range=(-highest, highest))


_SPECS = {
  'digits': DatasetSpec(
    'digits',
    (ModalitySpec('audio', 'sequence', (12, 13)), *(ModalitySpec(n, 'image', (4, 8, 1)) for n in ('upper', 'lower'))),
    'multiclass',
    10,
    'real',
  ),
  'synthetic': DatasetSpec(
    'synthetic', tuple(ModalitySpec(f'm{i}', 'sequence', (6, 8)) for i in range(4)), 'multiclass', 5, 'synthetic'
  ),
  'mosei': _sequences('mosei', (768, 74, 35), 3.0),
  'cmu_mosi': _sequences('cmu_mosi', (768, 5, 20), 3.0),
  'ch_sims': _sequences('ch_sims', (768, 33, 709), 1.0),
  'mosi_utterance': _vectors('mosi_utterance', (384, 73, 100), 'binary', 1),
  'iemocap': _vectors('iemocap', (1024, 512, 1024), 'multiclass', 4),
  'folder': _vectors('folder', (3, 4, 5), 'multiclass', 3),
}


def _spec_of(recipe):
  name = recipe.data.name or recipe.suite.data[0]  # A suite trains on each of its data sets.
  return next(spec for key, spec in _SPECS.items() if key in name)


def test_variants_are_found():
  names = [Path(c).name for c in _CONFIGS]
  assert {'digits.py', 'digits.py:quick', 'synthetic.py', 'mosi.py:utterance', 'iemocap.py:six'} <= set(names)


@pytest.mark.parametrize('config', _CONFIGS, ids=lambda c: Path(c).name)
def test_config_is_a_recipe_that_fits_its_data(config):
  recipe = recipe_from_config(load_config(config))
  spec = _spec_of(recipe)
  validate(recipe.train_missing, spec)
  validate(recipe.inject.missing(), spec)
  assert all(conditions(protocol, spec) for protocol in recipe.protocols)
  assert build(find_method(recipe.model.name), spec, recipe.model).spec == spec


# Tracing takes seconds: of sequences, vectors and images one each; the rest differs in sizes and is slow.
_TRACED = ('digits.py:quick', 'mosi.py', 'mosi.py:utterance', 'synthetic.py')


@pytest.mark.parametrize(
  'config',
  [c if Path(c).name in _TRACED else pytest.param(c, marks=pytest.mark.slow) for c in _CONFIGS],
  ids=lambda c: Path(c).name,
)
def test_config_traces_a_train_step(config):
  recipe = recipe_from_config(load_config(config))
  spec = _spec_of(recipe)
  method = find_method(recipe.model.name)
  model = build(method, spec, recipe.model)
  optimizer = create_optimizer(recipe.optimizer, 100)
  sample = empty_inputs(spec, recipe.train.batch_size)

  def step(seeds):
    state = create_state(model, optimizer, sample, seeds)
    lead = (_STEPS, recipe.num_seeds, recipe.train.batch_size)
    inputs = {k: jnp.broadcast_to(x[None, None], (*lead[:2], *x.shape)) for k, x in sample.items()}
    label = jnp.zeros(lead, jnp.float32 if spec.task == 'regression' else jnp.int32)
    batches = {'inputs': inputs, 'clean': inputs, 'label': label, 'kept': jnp.ones((*lead, spec.num_modalities))}
    return state, train_call(lambda _: (model.gradient, optimizer), 0.99, state, batches, seeds, {})

  before, (after, terms) = jax.eval_shape(step, jax.ShapeDtypeStruct((recipe.num_seeds,), jnp.uint32))
  assert jax.tree.structure(before) == jax.tree.structure(after)
  for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
    assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
  assert all(term.shape == (recipe.num_seeds,) for term in terms.values())
  assert {'loss', 'task'} <= set(terms)


@pytest.mark.parametrize('path', sorted((_ROOT / 'configs').glob('*.py')), ids=lambda p: p.name)
def test_unknown_variant_names_the_config(path):
  with pytest.raises(UserError, match=path.name):
    load_config(f'{path}:nonsense')


@pytest.mark.parametrize('path', sorted((_ROOT / 'configs').glob('*.py')), ids=lambda p: p.name)
def test_docstring_says_the_command(path):
  assert re.search(rf'python -m dream_jax.main (--mode=study )?--config=configs/{path.name}', path.read_text())
