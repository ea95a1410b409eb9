"""Small recipes and data sets for every task, for the tests that train, predict and evaluate."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np
import pytest
import small_data

from dream_jax.config.default import get_default
from dream_jax.config.recipe import Recipe, recipe_from_config
from dream_jax.data import pipeline
from dream_jax.data.datasets import Dataset, Split
from dream_jax.data.prepare import Prepared, prepare
from dream_jax.missingness.counter import NUMPY
from dream_jax.missingness.missing import Missing
from dream_jax.models.registry import find_method
from dream_jax.parallel.mesh import make_mesh
from dream_jax.spec import TASKS, DatasetSpec
from dream_jax.training import feed, programs, train
from dream_jax.training.feed import Feed
from dream_jax.training.train import Trainer

NUM_OUTPUTS = dict(zip(TASKS, (1, 1, 3, 4), strict=True))  # regression, binary, multiclass, multilabel
# Compilation is most of the time of these tests; nothing here runs long enough for optimised code to pay.
FAST_COMPILE = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}


def jit(function, **options):
  """`jax.jit` that compiles fast."""
  return jax.jit(function, compiler_options=FAST_COMPILE, **options)


def small_spec(task: str = 'multiclass', names: tuple[str, ...] = small_data.SPEC.names) -> DatasetSpec:
  """The spec of `small_data` with another target and, if wanted, fewer modalities."""
  modalities = tuple(m for m in small_data.SPEC.modalities if m.name in names)
  return dataclasses.replace(small_data.SPEC, task=task, num_outputs=NUM_OUTPUTS[task], modalities=modalities)


def small_dataset(task: str = 'multiclass', names: tuple[str, ...] = small_data.SPEC.names, **sizes: int) -> Dataset:
  """A data set whose label every modality says something about, so that there is something to learn."""
  spec = small_spec(task, names)
  whole = small_data.small_dataset(**sizes, spec=spec)
  return dataclasses.replace(whole, splits={name: _labelled(split, spec) for name, split in whole.splits.items()})


def _labelled(split: Split, spec: DatasetSpec) -> Split:
  n = len(split)
  rng = np.random.default_rng(n + 17)
  target = rng.normal(size=(n, max(3, spec.num_outputs))).astype(np.float32)
  features = dict(split.features)
  for m in spec.modalities:
    if m.kind == 'tokens':
      shown = 2 + target[:, :1].clip(-3, 3).round().astype(np.int32) + 3
      inside = np.arange(m.shape[0]) < features[m.length_name][:, None]
      features[m.name] = np.where(inside & (rng.random((n, *m.shape)) < 0.5), shown, features[m.name]).astype(np.int32)
      continue
    axes = (n,) + (1,) * (len(m.shape) - 1)
    width = min(m.shape[-1], target.shape[1])
    shift = np.zeros((n, m.shape[-1]), np.float32)
    shift[:, :width] = 3 * target[:, :width]
    x = features[m.name] + shift.reshape(*axes, m.shape[-1])
    if m.has_length:
      x[np.arange(m.shape[0]) >= features[m.length_name][:, None]] = 0
    features[m.name] = x
  if spec.task == 'regression':
    label = 5 + 2 * target[:, 0]
  elif spec.task == 'binary':
    label = (target[:, 0] > 0).astype(np.int32)
  elif spec.task == 'multiclass':
    label = target[:, : spec.num_outputs].argmax(1).astype(np.int32)
  else:
    label = (target[:, : spec.num_outputs] > 0).astype(np.float32)
  return dataclasses.replace(split, features=features, label=label)


def small_prepared(task: str = 'multiclass', names: tuple[str, ...] = small_data.SPEC.names, **sizes: int) -> Prepared:
  """The same, prepared, nothing missing."""
  return prepare(small_dataset(task, names, **sizes), train_missing=Missing(), seed=0)


def small_config(**overrides):
  """A ConfigDict of two seeds and a few steps; `overrides` are dotted fields with '__' for the dot."""
  config = get_default()
  config.update_from_flattened_dict(
    {
      'name': 'small',
      'num_seeds': 2,
      'controls': (),
      'protocols': ('modality/zeros',),
      'data.name': 'small',
      'model.width': 8,
      'model.hidden': 8,
      'train.batch_size': 8,
      'train.epochs': 2,
      'train.num_evals': 3,
      'train.validation_draws': 2,
      'train.eval_batch_size': 16,
      **{name.replace('__', '.'): value for name, value in overrides.items()},
    }
  )
  return config


def small_recipe(**overrides) -> Recipe:
  """The recipe of `small_config`."""
  return recipe_from_config(small_config(**overrides))


def numpy_batches(
  prepared: Prepared,
  *,
  inject: Missing,
  batch_size: int,
  seeds: Sequence[int],
  num_steps: int,
  steps_per_call: int,
  with_clean: bool,
) -> Iterator[pipeline.Batch]:
  """What `train_batches` gives from the first step on, see `test_pipeline.py`, without the seconds TensorFlow takes."""
  data = pipeline.training_arrays(prepared, inject, seeds, None)
  positions = np.arange(batch_size)
  for first in range(0, num_steps, steps_per_call):
    steps = np.arange(first, min(first + steps_per_call, num_steps))
    flat = pipeline.flat_batch(prepared.spec, inject, data, steps, positions, batch_size, with_clean, NUMPY)
    lead = (len(steps), len(seeds), batch_size)
    yield jax.tree.map(lambda x, lead=lead: np.reshape(x, lead + x.shape[1:]), flat)


def small_trainer(name: str, recipe: Recipe, prepared: Prepared, *, num_devices: int = 2) -> Trainer:
  """A trainer compiled fast, in calls of two steps; parameters in pieces on more devices take longer to save."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train, '_CALL_BYTES', 5000)
    for module in (programs, feed):
      patch.setattr(module, 'compiler_options', lambda **_: FAST_COMPILE)
    patch.setattr(programs, 'make_mesh', lambda seed, data, _: make_mesh(seed, data, jax.devices()[:num_devices]))
    return Trainer(find_method(name), recipe, Feed(recipe, prepared))


@pytest.fixture(scope='module', autouse=True)
def optax_promotes() -> Iterator[None]:
  """Optax multiplies its float decay with an integer count; a test file that trains imports this fixture.

  The models and the losses are held to the strict rules in `test_models.py`.
  """
  with jax.numpy_dtype_promotion('standard'):
    yield
