"""Saved models: a folder with sealed JSON and the arrays that it names; nothing in it is code."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from dream_jax.config.recipe import recipe_from_config, recipe_of
from dream_jax.data.prepare import Statistics
from dream_jax.errors import InputError, UserError
from dream_jax.estimator.ensemble import Ensemble
from dream_jax.estimator.fitting import Model
from dream_jax.estimator.modality import Modality
from dream_jax.evaluation.predict import LabelScale
from dream_jax.machine import environment, paths
from dream_jax.models.registry import build, find_method
from dream_jax.settings import from_config
from dream_jax.spec import DatasetSpec
from dream_jax.workdir import sealed
from dream_jax.workdir.method_files import PredictorParts

_FILE = 'estimator.json'


def predictor(model: Model) -> Ensemble:
  """The compiled predictor of a model."""
  environment.start_devices()
  with environment.single_precision():
    try:
      recipe, method = recipe_from_config(model.config), find_method(model.method)
    except UserError as error:
      hint = 'if it is of your own, import the file that registers it first'
      raise InputError(f'the model names what is not known here: {error}; {hint}') from error
    module = build(method, model.parts.spec, recipe_of(method, recipe).model)
    return Ensemble(module, model.params, model.parts, model.method, model.temperatures, model.margin)


def write(path: str | os.PathLike[str], model: Model, more: Mapping[str, Any], classes: np.ndarray | None) -> None:
  """Stores a model.

  Args:
    path: a folder; it is made.
    model: what was trained.
    more: whatever else, as `sealed.plain` takes it.
    classes: of a classifier.
  """
  statistics = model.parts.statistics
  arrays = {f'mean:{name}': x for name, x in statistics.mean.items()}
  arrays |= {f'std:{name}': x for name, x in statistics.std.items()}
  flat: Any = traverse_util.flatten_dict(model.params, sep='/')
  arrays |= {f'param:{name}': x for name, x in flat.items()}
  arrays['validation:'] = model.validation
  if classes is not None:  # Objects would need a pickle.
    arrays['classes:'] = classes.astype(str) if classes.dtype.kind == 'O' else classes
  content = {
    'model': {
      'method': model.method,
      'config': model.config,
      'spec': dataclasses.asdict(model.parts.spec),
      'label_scale': dataclasses.asdict(model.parts.scale),
      'temperatures': model.temperatures,
      'margin': model.margin,
    },
    'classes_are_objects': classes is not None and classes.dtype.kind == 'O',
    **more,
  }
  sealed.write_with_arrays(os.path.join(paths.expanded(path), _FILE), content, arrays)


def read(path: str | os.PathLike[str]) -> tuple[Model, dict[str, Any], np.ndarray | None]:
  """(model, more, classes) as `write` stored them.

  Raises:
    InputError: there is no saved model, or it is damaged.
  """
  file = os.path.join(paths.expanded(path), _FILE)
  try:
    content, arrays, _ = sealed.read_with_arrays(file, remedy='save the model again')
  except FileNotFoundError:
    hint = ' (dream_jax.load opens workdirs of python -m dream_jax.main)' if os.path.isdir(path) else ''
    raise InputError(f'{file} is not there; expected a folder that save() made{hint}') from None
  except UserError as error:
    raise InputError(str(error)) from error
  parts: dict[str, dict[str, Any]] = {'mean': {}, 'std': {}, 'param': {}, 'classes': {}, 'validation': {}}
  for key, values in arrays.items():
    part, _, name = key.partition(':')
    parts[part][name] = values
  of = content.pop('model')
  model = Model(
    of['method'],
    of['config'],
    PredictorParts(
      from_config(DatasetSpec, of['spec'], 'spec'),
      Statistics(parts['mean'], parts['std']),
      from_config(LabelScale, of['label_scale'], 'label_scale'),
    ),
    traverse_util.unflatten_dict(parts['param'], sep='/'),
    of['temperatures'],
    of['margin'],
    parts['validation'][''],
  )
  classes = parts['classes'].get('')
  if classes is not None and content.pop('classes_are_objects'):
    classes = classes.astype(object)
  return model, content, classes


def modalities_as_json(modalities: Any) -> Any:
  """The argument `modalities` as JSON has it."""
  if modalities is None:
    return None

  def one(given: Any) -> Any:
    if isinstance(given, Modality):
      return dataclasses.asdict(given)
    return given if isinstance(given, (str, int, Mapping)) else [str(c) for c in given]

  return {str(name): one(given) for name, given in modalities.items()}
