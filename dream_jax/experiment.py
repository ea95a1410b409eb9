"""One run of the command line: every method of a config is trained, evaluated and compared; what is done stays done.

WORKDIR/config.json         the config it belongs to
WORKDIR/spec.json, statistics.npz   what a predictor needs beside the parameters
WORKDIR/checkpoints/METHOD  states and selected parameters
WORKDIR/methods/METHOD.*    results of a finished method
WORKDIR/results.json        all of them, with comparisons
WORKDIR/report.html         the same to look at
"""

import time
from typing import Any

from dream_jax import storage, workdirs
from dream_jax.checkpoints import Checkpoints, checkpoint_folder
from dream_jax.comparisons import compare
from dream_jax.config_guard import CONFIG_FILE, check_shared, check_workdir
from dream_jax.data.datasets import Dataset, load_dataset
from dream_jax.data.missing import describe
from dream_jax.data.prepare import Prepared, prepare
from dream_jax.data.protocols import conditions
from dream_jax.errors import UserError
from dream_jax.evaluate import ConstantPredictor, Row, evaluate_method
from dream_jax.feed import Feed
from dream_jax.metrics import primary_metric
from dream_jax.models.registry import Method, find_method
from dream_jax.parallel import hosts
from dream_jax.predict import Predictor
from dream_jax.programs import Programs, check_mesh, program_key
from dream_jax.recipe import EXECUTION_FIELDS, Recipe, recipe_from_config, recipe_of
from dream_jax.report.page import write_report
from dream_jax.report.text import as_text
from dream_jax.results_file import entry, head
from dream_jax.runs import Runs
from dream_jax.train import Trained, Trainer
from dream_jax.writers import plain, write_json


def train(config: Any, workdir: str) -> None:
  """Trains what the workdir lacks, evaluates, and writes results and report; see the module's docstring.

  Args:
    config: a ConfigDict.
    workdir: folder of the run.

  Raises:
    UserError: something in the config, the data or the workdir is not as it should be.
  """
  recipe = recipe_from_config(config)
  hosts.check_started()
  check_mesh(recipe)
  prepared = load_prepared(recipe)
  check_workdir(workdir, plain(config), ignore=EXECUTION_FIELDS, write=hosts.is_main())
  check_shared(workdir)
  if hosts.is_main():
    workdirs.write_predictor_parts(workdir, prepared)
  workbench = Workbench(recipe, prepared)
  print(workbench.feed.describe(), flush=True)
  for name in recipe.methods:
    method = find_method(name)
    if hosts.agree(lambda name=name: workdirs.is_finished(workdir, name)):
      print(f'{name}: finished before', flush=True)
      continue
    facts, rows = train_method(method, workbench, workdir)
    if hosts.is_main():
      workdirs.write_method(workdir, name, facts, rows)
    print(_spent(name, facts), flush=True)
  if hosts.is_main():
    _finish(recipe, prepared, config, workdir)


def evaluate(config: Any, workdir: str) -> None:
  """Evaluates the selected parameters of a workdir again; `config.protocols` may differ from those of training.

  Raises:
    UserError: the workdir holds no finished training, or was made with another config.
  """
  recipe = recipe_from_config(config)
  if not (storage.place(workdir) / CONFIG_FILE).exists():
    raise UserError(f'{workdir} holds no training to evaluate; run --mode=train with this --workdir first')
  check_workdir(workdir, plain(config), ignore=(*EXECUTION_FIELDS, 'protocols'), write=False)
  prepared = load_prepared(recipe)
  hosts.check_started()
  workdirs.check_data(workdir, prepared)
  workbench = Workbench(recipe, prepared)
  for name in recipe.methods:
    method = find_method(name)
    before = workdirs.read_method(workdir, name)
    if method.module is None:
      predictor, params = ConstantPredictor(prepared, recipe.num_seeds), None
    else:
      predictor, params = workbench.trained(method, workdir)
    rows = evaluate_method(
      method, predictor, params, workbench.feed.inputs, recipe.protocols, **reading(method, recipe)
    )
    if hosts.is_main():
      workdirs.write_method(workdir, name, before.facts, rows)
    print(f'{name}: evaluated', flush=True)
  if hosts.is_main():
    _finish(recipe, prepared, config, workdir)


def load_raw(recipe: Recipe) -> Dataset:
  """The data of a recipe, raw values."""
  data = recipe.data
  return load_dataset(
    data.name, tfds_dir=data.tfds_dir, manual_dir=data.manual_dir, folder=data.dir, options=data.options
  )


def load_prepared(recipe: Recipe) -> Prepared:
  """The data of a recipe as its trainer reads them; a protocol that does not fit them is refused."""
  dataset = load_raw(recipe)
  for protocol in recipe.protocols:
    conditions(protocol, dataset.spec)  # An unknown protocol is refused before hours of training, not after.
  return prepare(dataset, train_missing=recipe.train_missing, seed=recipe.seed)


class Workbench:
  """One data set and one recipe, with whatever was compiled for them: no method compiles what another one did."""

  def __init__(self, recipe: Recipe, prepared: Prepared, compiled: dict[Any, Programs] | None = None):
    """`compiled` may come from a workbench of another data set with the same sizes."""
    self.recipe, self.prepared = recipe, prepared
    self.feed = Feed(recipe, prepared)
    self.compiled = {} if compiled is None else compiled

  def trainer(self, method: Method, runs: Runs | None = None, *, peek: bool = False) -> Trainer:
    """A trainer of the method."""
    recipe = recipe_of(method, self.recipe)
    key = program_key(method, recipe, self.prepared.spec, runs)
    trainer = Trainer(method, recipe, self.feed, runs=runs, programs=self.compiled.get(key), peek=peek)
    self.compiled[key] = trainer.programs
    return trainer

  def trained(self, method: Method, workdir: str) -> tuple[Predictor, Any]:
    """(predictor, selected parameters) of a method that was trained in the workdir.

    Raises:
      UserError: the workdir holds none.
    """
    with Checkpoints(checkpoint_folder(workdir, method.name), read_only=True) as checkpoints:
      programs = self.trainer(method).programs
      found = checkpoints.restore_best(programs.abstract_state.params)
    if found is None:
      raise UserError(
        f'{workdir} holds no selected parameters of {method.name}; run --mode=train with this --workdir first'
      )
    return programs.predictor, found[1]


def train_method(method: Method, workbench: Workbench, workdir: str) -> tuple[dict[str, Any], list[Row]]:
  """(facts, rows) of one method, trained or resumed in the workdir and evaluated."""
  recipe, inputs = workbench.recipe, workbench.feed.inputs
  facts: dict[str, Any] = {'num_params': 0, 'train_seconds': 0.0, 'compile_seconds': 0.0}
  if method.module is None:
    predictor, params = ConstantPredictor(workbench.prepared, recipe.num_seeds), None
  else:
    print(f'{method.name}: compiling', flush=True)
    trainer = workbench.trainer(method)
    trained = trainer.run(workdir)
    predictor, params = trainer.programs.predictor, trained.best.params
    facts = training_facts(trainer, trained)
  start = time.perf_counter()
  rows = evaluate_method(method, predictor, params, inputs, recipe.protocols, **reading(method, recipe))
  facts['evaluate_seconds'] = time.perf_counter() - start
  facts['wall_seconds'] = sum(facts[f'{part}_seconds'] for part in ('compile', 'train', 'evaluate'))
  return facts, rows


def reading(method: Method, recipe: Recipe) -> dict[str, Any]:
  """How the splits are read for a method: keywords of `evaluate_method`."""
  injected = recipe_of(method, recipe).inject.missing() if method.inject else None
  return {'seed': recipe.seed, 'trained_under': injected, 'draws': recipe.train.validation_draws if injected else 1}


def training_facts(trainer: Trainer, trained: Trained) -> dict[str, Any]:
  """What `results.json` says of a training."""
  flops, t = trainer.programs.step_flops, trainer.schedule
  return {
    'num_params': trainer.programs.num_params,
    'train_flops': None if flops is None else flops * t.num_steps,
    'train_seconds': trained.train_seconds,
    'compile_seconds': trained.compile_seconds,
    'best_step': trained.best.step.tolist(),
    'validation_score': trained.best.score.tolist(),
  }


def _spent(name: str, facts: dict[str, Any]) -> str:
  return (
    f'{name}: compiled in {facts["compile_seconds"]:.1f} s, trained in {facts["train_seconds"]:.1f} s,'
    f' evaluated in {facts["evaluate_seconds"]:.1f} s'
  )


def _finish(recipe: Recipe, prepared: Prepared, config: Any, workdir: str) -> None:
  """Assembles `results.json`, writes the report and prints the tables."""
  results = assemble(recipe, prepared, config, workdir)
  write_json(f'{workdir}/results.json', results)
  report = write_report(workdir)
  print(as_text(results))
  seconds = [m for m in results['methods'].values() if m.get('compile_seconds') is not None]
  names = {m['method']: m for m in seconds}
  print(
    f'compile time {sum(m["compile_seconds"] for m in names.values()):.1f} s in all, training'
    f' {sum(m["train_seconds"] for m in names.values()):.1f} s'
  )
  print(f'results: {workdir}/results.json')
  print(f'report: {report}', flush=True)


def assemble(recipe: Recipe, prepared: Prepared, config: Any, workdir: str) -> dict[str, Any]:
  """The content of `results.json` from the finished methods of a workdir."""
  spec = prepared.spec
  missing = 'complete' if recipe.train_missing.kind == 'none' else describe(recipe.train_missing)
  methods: dict[str, Any] = {}
  rows: dict[str, Row] = {}
  for name in recipe.methods:
    finished = workdirs.read_method(workdir, name)
    for row in finished.rows:
      rows[row.name] = row
      methods[row.name] = entry(row, finished.facts, find_method(name), recipe, spec, missing)
  return {
    **head(spec, {name: len(split) for name, split in prepared.splits.items()}, config),
    'methods': methods,
    'comparisons': compare(recipe.methods[0], rows, primary_metric(spec)[0]),
  }
