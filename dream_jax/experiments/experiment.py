"""One run of the command line: every method of a config is trained, evaluated and compared; what is done stays done.

WORKDIR/config.json         the config it belongs to
WORKDIR/spec.json, spec.*.npz   what a predictor needs beside the parameters
WORKDIR/checkpoints/METHOD  states and selected parameters
WORKDIR/methods/METHOD.*    results of a finished method
WORKDIR/results.json        all of them, with comparisons
WORKDIR/report.html         the same to look at
"""

import time
from typing import Any

from dream_jax.config.recipe import EXECUTION_FIELDS, Recipe, recipe_from_config, recipe_of
from dream_jax.data.datasets import Dataset, load_dataset
from dream_jax.data.prepare import Prepared, prepare
from dream_jax.errors import UserError
from dream_jax.evaluation.comparisons import compare
from dream_jax.evaluation.evaluate import ConstantPredictor, Row, evaluate_method
from dream_jax.evaluation.metrics import primary_metric
from dream_jax.evaluation.predict import Predictor
from dream_jax.experiments.results_file import entry, head
from dream_jax.missingness.missing import describe
from dream_jax.missingness.protocols import conditions
from dream_jax.models.registry import Method, find_method
from dream_jax.parallel import hosts
from dream_jax.report.page import write_report
from dream_jax.report.text import as_text
from dream_jax.training.feed import Feed
from dream_jax.training.programs import Programs, check_mesh, program_key
from dream_jax.training.runs import Runs
from dream_jax.training.train import Trained, Trainer
from dream_jax.workdir import method_files, sealed, storage
from dream_jax.workdir.checkpoints import Checkpoints, checkpoint_folder, of_method
from dream_jax.workdir.config_guard import CONFIG_FILE, alone, check_shared, check_workdir, read_sealed, run_identity

# What evaluation may change, too, without making it another run.
_FREE_FIELDS = (*EXECUTION_FIELDS, 'protocols')


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
  with alone(workdir):
    prepared = load_prepared(recipe)
    run = _run(config, prepared)
    hosts.agree(lambda: _claim(config, workdir, prepared, run))
    check_shared(workdir)
    # Each process has a command line and data of its own.
    check_workdir(workdir, config, run=run, ignore=EXECUTION_FIELDS, write=False)
    # Damage is told before hours of training, not after.
    finished = hosts.agree(lambda: _finished(recipe, workdir, run))
    workbench = Workbench(recipe, prepared)
    print(workbench.feed.describe(), flush=True)
    for name in recipe.methods:
      _train_or_keep(find_method(name), finished.get(name), workbench, workdir, run)
    if hosts.is_main():
      _finish(recipe, prepared, config, workdir, run)


def evaluate(config: Any, workdir: str) -> None:
  """Evaluates the selected parameters of a workdir again; `config.protocols` may differ from those of training.

  Raises:
    UserError: the workdir holds no finished training, or was made with another config.
  """
  recipe = recipe_from_config(config)
  if not (storage.place(workdir) / CONFIG_FILE).exists():
    raise UserError(f'{workdir} holds no training to evaluate; run --mode=train with this --workdir first')
  hosts.check_started()
  with alone(workdir):
    check_workdir(workdir, config, ignore=_FREE_FIELDS, write=False)
    prepared = load_prepared(recipe)
    run = _run(config, prepared)
    method_files.check_data(workdir, prepared, run=run)
    check_workdir(workdir, config, run=run, ignore=_FREE_FIELDS, write=False)
    workbench = Workbench(recipe, prepared)
    before = {name: method_files.read_method(workdir, name, run=run) for name in recipe.methods}
    for name in recipe.methods:
      _evaluate_again(find_method(name), before[name].facts, workbench, workdir, run)
    if hosts.is_main():
      _finish(recipe, prepared, config, workdir, run)


def _claim(config: Any, workdir: str, prepared: Prepared, run: str) -> None:
  """Makes the workdir that of a run, or checks that it is."""
  if not (storage.place(workdir) / CONFIG_FILE).exists():
    method_files.check_nothing_of_another(workdir, run)
  check_workdir(workdir, config, run=run, ignore=EXECUTION_FIELDS)
  method_files.write_predictor_parts(workdir, prepared, run=run)


def _run(config: Any, prepared: Prepared) -> str:
  """The identity of a training."""
  return run_identity(config, prepared.data, ignore=_FREE_FIELDS)


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
      UserError: the workdir holds none, or they are damaged or of another run.
    """
    run = of_method(read_sealed(workdir).run, method.name)
    with Checkpoints(checkpoint_folder(workdir, method.name), run=run, read_only=True) as checkpoints:
      programs = self.trainer(method).programs
      found = checkpoints.restore_best(programs.abstract_state.params)
    if found is None:
      raise UserError(
        f'{workdir} holds no selected parameters of {method.name}; run --mode=train with this --workdir first'
      )
    return programs.predictor, found[1]


def train_method(method: Method, workbench: Workbench, workdir: str, run: str) -> tuple[dict[str, Any], list[Row]]:
  """(facts, rows) of one method of a run, trained or resumed in the workdir and evaluated."""
  recipe, inputs = workbench.recipe, workbench.feed.inputs
  facts: dict[str, Any] = {'num_params': 0, 'train_seconds': 0.0, 'compile_seconds': 0.0}
  if method.module is None:
    predictor, params = ConstantPredictor(workbench.prepared, recipe.num_seeds), None
  else:
    print(f'{method.name}: compiling', flush=True)
    trainer = workbench.trainer(method)
    trained = trainer.run(workdir, run=run)
    predictor, params = trainer.programs.predictor, trained.best.params
    facts = training_facts(trainer, trained)
  start = time.perf_counter()
  rows = evaluate_method(method, predictor, params, inputs, recipe.protocols, **reading(method, recipe))
  facts['evaluate_seconds'] = time.perf_counter() - start
  facts['wall_seconds'] = sum(facts[f'{part}_seconds'] for part in ('compile', 'train', 'evaluate'))
  return facts, rows


def _finished(recipe: Recipe, workdir: str, run: str) -> dict[str, dict[str, Any]]:
  """Facts of the methods that are finished, and whether they were evaluated as the recipe asks, by name."""
  asked = ['complete', *(p for p in recipe.protocols if p != 'complete')]
  found = {}
  for name in recipe.methods:
    if method_files.is_finished(workdir, name):
      method = method_files.read_method(workdir, name, run=run)
      # --mode=evaluate may have been there with other protocols.
      as_asked = all(list(row.protocols) == list(dict.fromkeys(asked)) for row in method.rows)
      found[name] = {'facts': method.facts, 'as_asked': as_asked}
  return found


def _train_or_keep(method: Method, before: dict[str, Any] | None, workbench: Workbench, workdir: str, run: str) -> None:
  """Does what the workdir lacks of a method."""
  name = method.name
  if before is None:
    facts, rows = train_method(method, workbench, workdir, run)
    if hosts.is_main():
      method_files.write_method(workdir, name, facts, rows, run=run)
    print(_spent(name, facts), flush=True)
  elif before['as_asked']:
    print(f'{name}: finished before', flush=True)
  else:
    _evaluate_again(method, before['facts'], workbench, workdir, run)


def _evaluate_again(method: Method, facts: dict[str, Any], workbench: Workbench, workdir: str, run: str) -> None:
  """The evaluation of a finished method from its selected parameters."""
  recipe = workbench.recipe
  if method.module is None:
    predictor, params = ConstantPredictor(workbench.prepared, recipe.num_seeds), None
  else:
    predictor, params = workbench.trained(method, workdir)
  rows = evaluate_method(method, predictor, params, workbench.feed.inputs, recipe.protocols, **reading(method, recipe))
  if hosts.is_main():
    method_files.write_method(workdir, method.name, facts, rows, run=run)
  print(f'{method.name}: evaluated', flush=True)


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


def _finish(recipe: Recipe, prepared: Prepared, config: Any, workdir: str, run: str) -> None:
  """Assembles `results.json`, writes the report and prints the tables."""
  results = assemble(recipe, prepared, config, workdir, run)
  sealed.write(f'{workdir}/{method_files.RESULTS_FILE}', results, run=run)
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


def assemble(recipe: Recipe, prepared: Prepared, config: Any, workdir: str, run: str) -> dict[str, Any]:
  """The content of `results.json` from the finished methods of a workdir."""
  spec = prepared.spec
  missing = 'complete' if recipe.train_missing.kind == 'none' else describe(recipe.train_missing)
  methods: dict[str, Any] = {}
  rows: dict[str, Row] = {}
  for name in recipe.methods:
    finished = method_files.read_method(workdir, name, run=run)
    for row in finished.rows:
      rows[row.name] = row
      methods[row.name] = entry(row, finished.facts, find_method(name), recipe, spec, missing)
  return {
    **head(spec, {name: len(split) for name, split in prepared.splits.items()}, config),
    'methods': methods,
    'comparisons': compare(recipe.methods[0], rows, primary_metric(spec)[0]),
  }
