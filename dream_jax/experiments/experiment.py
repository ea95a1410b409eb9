"""The commands that train and evaluate: `--mode=train`, `evaluate` and `study`, whose runs are made by one engine."""

from collections.abc import Callable, Sequence
from typing import Any

from dream_jax.config.recipe import EXECUTION_FIELDS, Recipe, recipe_from_config
from dream_jax.data.datasets import Dataset
from dream_jax.experiments.engine import Done, Engine
from dream_jax.experiments.results_file import assemble
from dream_jax.experiments.units import Plan, study_plan, train_plan
from dream_jax.experiments.workbench import load_raw
from dream_jax.parallel import hosts
from dream_jax.report.page import write_report
from dream_jax.report.text import as_text
from dream_jax.spec import DatasetSpec
from dream_jax.training.programs import check_mesh
from dream_jax.workdir import method_files, run_folders, sealed
from dream_jax.workdir.config_guard import alone, check_config, check_shared, check_trained, claim, run_identity

# What may change in the workdir of a training: which methods stand beside each other, and what they are tested under.
_FREE_FIELDS = (*EXECUTION_FIELDS, 'controls', 'protocols')
# Whatever decides a result of a study is in the keys of its runs.
_FREE_IN_STUDIES = tuple(field for field in EXECUTION_FIELDS if field != 'study')


def train(config: Any, workdir: str) -> None:
  """Trains what the workdir lacks of the config's methods, evaluates, and writes results and report.

  Args:
    config: a ConfigDict.
    workdir: folder of the training.

  Raises:
    UserError: something in the config, the data or the workdir is not as it should be.
  """
  _make(config, workdir, train_plan, free=_FREE_FIELDS)


def study(config: Any, workdir: str, *, quiet: bool = False, compiled: dict[Any, Any] | None = None) -> None:
  """As `train`, of every method under every training regime of `config.study`.

  Another study may follow in the workdir: what it shares with the ones before is not made again.

  Args:
    config: a ConfigDict.
    workdir: folder of the study.
    quiet: print how far it is and no tables.
    compiled: programs of an earlier study of data of an equal spec; those of this one are added.
  """
  _make(config, workdir, study_plan, free=None, quiet=quiet, compiled=compiled)


def evaluate(config: Any, workdir: str) -> None:
  """Evaluates the trained methods of a workdir again; `config.protocols` may differ from those of training.

  Raises:
    UserError: the workdir holds no finished training, or was made with another config.
  """
  recipe = recipe_from_config(config)
  check_trained(workdir)
  hosts.check_started()
  with alone(workdir):
    check_config(workdir, config, mode='train', free=_FREE_FIELDS)  # Before data are read, which takes its time.
    dataset = load_raw(recipe)
    plan = train_plan(recipe, dataset.spec)
    run = run_identity(plan.mode, config, dataset.fingerprint, ignore=_FREE_FIELDS)
    check_config(workdir, config, mode=plan.mode, free=_FREE_FIELDS, run=run)
    engine = Engine(plan, recipe, dataset, config, workdir)
    # All are read before the first is evaluated. A run may be of earlier sources: those that train it are not asked.
    found = hosts.agree(lambda: [run_folders.find(workdir, unit.method, unit.regime) for unit in plan.units])
    done = []
    for unit, (folder, key) in zip(plan.units, found, strict=True):
      done.append(Done(unit, folder, key, engine.evaluate(unit, folder, key)))
      print(f'{plan.title(unit)}: evaluated', flush=True)
    if hosts.is_main():
      _finish(plan, recipe, dataset, config, workdir, run, done)


def _make(
  config: Any,
  workdir: str,
  plan_of: Callable[[Recipe, DatasetSpec], Plan],
  *,
  free: Sequence[str] | None,
  quiet: bool = False,
  compiled: dict[Any, Any] | None = None,
) -> None:
  """Makes a plan; `free` are the fields that may differ from those of the workdir, None for all that keys hold."""
  recipe = recipe_from_config(config)
  hosts.check_started()
  check_mesh(recipe)
  with alone(workdir):
    dataset = load_raw(recipe)
    plan = plan_of(recipe, dataset.spec)
    fixed = _FREE_IN_STUDIES if free is None else free
    run = run_identity(plan.mode, config, dataset.fingerprint, ignore=fixed)
    hosts.agree(lambda: claim(workdir, config, mode=plan.mode, free=free, run=run))
    check_shared(workdir)
    # Each process has a command line and data of its own.
    check_config(workdir, config, mode=plan.mode, free=fixed, run=run)
    engine = Engine(plan, recipe, dataset, config, workdir, compiled)
    engine.make()
    if hosts.is_main():
      _finish(plan, recipe, dataset, config, workdir, run, engine.done(), quiet=quiet)


def _finish(
  plan: Plan,
  recipe: Recipe,
  dataset: Dataset,
  config: Any,
  workdir: str,
  run: str,
  done: list[Done],
  *,
  quiet: bool = False,
) -> None:
  """Assembles `results.json`, writes the report and prints the tables."""
  sizes = {name: len(split) for name, split in dataset.splits.items()}
  results = assemble(plan, recipe, config, done, dataset.spec, sizes)
  sealed.write(f'{workdir}/{method_files.RESULTS_FILE}', results, run=run)
  report = write_report(workdir)
  if quiet:
    return
  print(as_text(results))
  spent = {part: sum(one.finished.facts[f'{part}_seconds'] for one in done) for part in ('compile', 'train')}
  print(f'compile time {spent["compile"]:.1f} s in all, training {spent["train"]:.1f} s')
  print(f'results: {workdir}/results.json')
  print(f'report: {report}', flush=True)
