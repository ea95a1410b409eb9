"""Tiny trainings and studies in this process, for tests that damage workdirs or stop between two writes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.sharding import AxisType
from small_runs import FAST_COMPILE, small_config, small_dataset

from dream_jax.data.device_batches import DeviceBatches
from dream_jax.experiments import workbench
from dream_jax.report import page
from dream_jax.training import feed, programs, train

METHOD = 'concat'


def config(**overrides):
  """Of two methods, one of which trains nothing; three readings of the validation set, a save after each."""
  return small_config(
    **{
      'model__name': METHOD,
      'controls': ('majority',),
      'study__methods': ('majority',),
      'num_seeds': 1,
      'study__peek': False,
      'study__valuation': False,
      'train__checkpoint_seconds': 0.0,
      **overrides,
    }
  )


@contextmanager
def quick() -> Iterator[pytest.MonkeyPatch]:
  """Two light modalities in the place of whatever the config names; one device, programs compiled once, no figures."""
  dataset, compiled = small_dataset('multiclass', names=('face', 'pose'), train=24, validation=8, test=12), {}
  types = (AxisType.Auto, AxisType.Auto)
  mesh = jax.make_mesh((1, 1), ('seed', 'data'), devices=jax.devices()[:1], axis_types=types)
  compile_programs = programs.compile_programs

  def compile_once(method, recipe, prepared, *, runs, **rest):
    key = (programs.program_key(method, recipe, prepared.spec, runs), tuple(rest.values()))
    if key not in compiled:
      compiled[key] = compile_programs(method, recipe, prepared, runs=runs, **rest)
    return compiled[key]

  def batches_once(prepared, **shape):
    key = repr([shape[name] for name in ('inject', 'batch_size', 'num_seeds', 'steps_per_call', 'with_clean')])
    if key not in compiled:
      compiled[key] = DeviceBatches(prepared, **shape)
    return compiled[key]

  with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion('standard'):
    patch.setattr(workbench, 'load_dataset', lambda *_, **__: dataset)
    for module in (programs, feed):
      patch.setattr(module, 'mesh_of', lambda _: mesh)
      patch.setattr(module, 'compiler_options', lambda **_: FAST_COMPILE)
    patch.setattr(train, 'compile_programs', compile_once)
    patch.setattr(feed, 'DeviceBatches', batches_once)
    patch.setattr(page.figures, 'draw', lambda _: [])
    yield patch


def results(workdir: Path) -> dict:
  """Content of results.json, without seconds and the seal over them."""
  return without_times(json.loads((workdir / 'results.json').read_text()))


def without_times(value: Any) -> Any:
  """The same without what a clock decides."""
  if isinstance(value, dict):
    return {k: without_times(v) for k, v in value.items() if not k.endswith('_seconds') and k != 'seal'}
  return [without_times(v) for v in value] if isinstance(value, list) else value
