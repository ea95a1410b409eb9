"""A study: every method under every training regime, all seeds of a method in one program, no finished run repeated.

WORKDIR/study.jsonl       one line a finished run, with the key of all that determines its result
WORKDIR/runs/NAME/        a run: metrics, selected parameters, results
WORKDIR/results.json      everything the present config asks for, with comparisons
WORKDIR/report.html       the same to look at

A run is keyed by a hash of the data, the training regime, the method's own settings, the budget, the seeds, the
protocols and the sources it is made by. A killed study goes on in the middle of the run that was under way; a changed
method is run again, and the others are not.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from typing import Any

import numpy as np

from dream_jax.config.recipe import EXECUTION_FIELDS, Recipe, recipe_from_config
from dream_jax.data.datasets import Dataset, load_dataset
from dream_jax.data.prepare import prepare
from dream_jax.errors import UserError
from dream_jax.evaluation.evaluate import ConstantPredictor, evaluate_method
from dream_jax.evaluation.modality_values import value_modalities
from dream_jax.experiments.code_digest import code_digest
from dream_jax.experiments.experiment import Workbench, reading, training_facts
from dream_jax.experiments.study_results import assemble_study
from dream_jax.missingness.protocols import conditions
from dream_jax.missingness.regimes import regime
from dream_jax.models.dream.dream import Dream
from dream_jax.models.registry import Method, find_method
from dream_jax.parallel import hosts
from dream_jax.report.page import write_report
from dream_jax.report.text import as_text
from dream_jax.training.gradient_facts import gradient_facts
from dream_jax.training.programs import Programs, check_mesh
from dream_jax.training.runs import Runs
from dream_jax.training.train import Trained, Trainer
from dream_jax.workdir import method_files, sealed, storage
from dream_jax.workdir.checkpoints import checkpoint_folder
from dream_jax.workdir.config_guard import CONFIG_FILE, alone, check_shared, run_identity, write_config
from dream_jax.workdir.ledger import LEDGER_FILE, Ledger
from dream_jax.workdir.sealed import plain

_SEARCH_SEED = 20260  # Of the points of a random search: the same for all methods.


@dataclasses.dataclass(frozen=True)
class Unit:
  """One run of the plan: all seeds of a method under a regime.

  Attributes:
    method: what is trained.
    regime: name of the training regime.
    search: whether this searches for settings instead of training the seeds.
  """

  method: str
  regime: str
  search: bool = False

  @property
  def title(self) -> str:
    """What progress lines call it."""
    return f'{self.method}, {"search of settings" if self.search else self.regime}'


def study(config: Any, workdir: str) -> None:
  """Runs what the workdir lacks of the study, then assembles results, report and tables; see the module's docstring.

  Raises:
    UserError: something in the config, the data or the workdir is not as it should be.
  """
  recipe = recipe_from_config(config)
  units = plan(recipe)
  hosts.check_started()
  check_mesh(recipe)
  with alone(workdir):
    dataset = _load(recipe)
    regimes = {name: regime(name, dataset.spec) for name in recipe.study.regimes}
    with contextlib.ExitStack() as held:
      opened: list[Ledger] = []
      hosts.agree(lambda: opened.append(held.enter_context(_open_ledger(workdir))))
      engine = _Engine(recipe, dataset, regimes, workdir, opened[0] if opened else None)
      run = run_identity(config, engine.data_key, ignore=[f for f in EXECUTION_FIELDS if f != 'study'])
      hosts.agree(engine.check_data)
      if hosts.is_main():
        write_config(workdir, config, run)
      check_shared(workdir)
      done = engine.run(units)
    if not hosts.is_main():
      return
    finished = [
      (unit, record, method_files.read_method(engine.folder(unit, key), unit.method, run=key))
      for unit, record, key in done
    ]
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    results = assemble_study(recipe, config, finished, dataset.spec, sizes)
    sealed.write(f'{workdir}/{method_files.RESULTS_FILE}', results, run=run)
    report = write_report(workdir)
  print(as_text(results))
  print(f'results: {workdir}/results.json')
  print(f'report: {report}', flush=True)


def plan(recipe: Recipe) -> list[Unit]:
  """The runs in their order: searches first, then regime by regime; the method under study first."""
  s = recipe.study
  methods = tuple(dict.fromkeys((recipe.model.name, *s.methods)))
  trained = [name for name in methods if find_method(name).module is not None]
  searches = [Unit(name, s.regimes[0], search=True) for name in trained] if s.search.points else []
  return searches + [Unit(name, r) for r in dict.fromkeys(s.regimes) for name in methods]


def run_key(unit: Unit, recipe: Recipe, missing: Any, data: str, chosen: dict[str, float]) -> str:
  """Hash of all that determines the result of a run, and of nothing else.

  Args:
    unit: the run.
    recipe: the recipe of the study.
    missing: what the regime removes.
    data: fingerprint of the data set.
    chosen: settings that a search chose for the method.
  """
  method, train = find_method(unit.method), dataclasses.asdict(recipe.train)
  for field in EXECUTION_FIELDS:
    train.pop(field.removeprefix('train.'), None)
  own = method.module is not None and issubclass(method.module, Dream)
  sizes = dataclasses.asdict(recipe.model if own else recipe.model.sizes())
  sizes.pop('name', None)
  content = {
    'data': data,
    'regime': dataclasses.asdict(missing),
    'method': {**dataclasses.asdict(method), 'module': None, 'title': None, 'source': None},
    'code': code_digest(method),
    'model': sizes,
    'losses': dataclasses.asdict(recipe.losses) if own else None,
    'inject': dataclasses.asdict(recipe.inject),
    'optimizer': dataclasses.asdict(recipe.optimizer),
    'train': train,
    'seeds': recipe.seeds,
    'chosen': chosen,
    'search': dataclasses.asdict(recipe.study.search) if unit.search else None,
    'evaluation': None if unit.search else (recipe.protocols, recipe.study.peek, recipe.study.valuation),
  }
  return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()


class _Engine:
  """Does the runs of a plan one after another.

  Attributes:
    data_key: fingerprint of the data set, nothing missing.
  """

  def __init__(self, recipe: Recipe, dataset: Dataset, regimes: dict[str, Any], workdir: str, ledger: Ledger | None):
    """`ledger` is None in processes that only help."""
    self._recipe, self._dataset, self._regimes = recipe, dataset, regimes
    self._workdir, self._ledger = workdir, ledger
    self.data_key = dataset.fingerprint
    self._compiled: dict[Any, Programs] = {}
    self._bench: tuple[str, Workbench] | None = None
    self._chosen: dict[str, dict[str, float]] = {}

  def check_data(self) -> None:
    """Refuses a workdir whose runs are of other data: one results file would speak of two data sets.

    Raises:
      UserError: it is so.
    """
    assert self._ledger is not None
    if any(record.get('data') not in (None, self.data_key) for record in self._ledger.records.values()):
      raise UserError(
        f'{self._workdir} holds a study of other data, or of data that changed since; choose another --workdir'
      )

  def run(self, units: list[Unit]) -> list[tuple[Unit, dict[str, Any], str]]:
    """(unit, line of the ledger, key) of every run of the plan; what was finished before is not made again."""
    progress, done = _StudyProgress(units), []
    for unit in units:
      key = self._key(unit)
      record = hosts.agree(lambda unit=unit, key=key: self._finished(unit, key))
      if record is None:
        start = time.perf_counter()
        record = {
          'key': key,
          'method': unit.method,
          'regime': unit.regime,
          'search': unit.search,
          'data': self.data_key,
          'seeds': list(self._recipe.seeds),
          **self._do(unit, key),
        }
        record['wall_seconds'] = time.perf_counter() - start
        if self._ledger is not None:
          self._ledger.append(record)
        progress.done(unit, record['wall_seconds'])
      else:
        progress.skipped(unit)
      self._drop_rest(unit, key)
      if unit.search:
        self._chosen[unit.method] = record['chosen']
      done.append((unit, record, key))
    return done

  def _finished(self, unit: Unit, key: str) -> dict[str, Any] | None:
    """The line of a run whose results are on the disk, or None.

    Raises:
      UserError: they are damaged or of another run.
    """
    assert self._ledger is not None
    record, folder = self._ledger.records.get(key), self.folder(unit, key)
    if record is None or not method_files.is_finished(folder, unit.method):
      return None
    method_files.read_method(folder, unit.method, run=key)
    return record

  def _key(self, unit: Unit) -> str:
    chosen = {} if unit.search else self._chosen.get(unit.method, {})
    return run_key(unit, self._recipe, self._regimes[unit.regime], self.data_key, chosen)

  def folder(self, unit: Unit, key: str) -> str:
    """Where a run lies."""
    method = storage.without_wildcards(unit.method)
    name = f'{method}@{"search" if unit.search else unit.regime.replace("/", "-")}-{key[:12]}'
    return os.path.join(self._workdir, 'runs', name)

  def _workbench(self, name: str) -> Workbench:
    """Of one regime; the one before is let go, programs stay."""
    if self._bench is None or self._bench[0] != name:
      self._bench = None
      prepared = prepare(self._dataset, train_missing=self._regimes[name], seed=self._recipe.seed)
      bench = Workbench(self._recipe, prepared, self._compiled)
      print(f'{name}: {bench.feed.describe()}', flush=True)
      self._bench = (name, bench)
    return self._bench[1]

  def _do(self, unit: Unit, key: str) -> dict[str, Any]:
    """One run: (what the ledger says of it); its results are on the disk when this returns."""
    method, bench, folder = find_method(unit.method), self._workbench(unit.regime), self.folder(unit, key)
    if unit.search:
      facts, rows = self._search(method, bench, folder, key), []
      said = {'chosen': facts['chosen']}
    else:
      facts, rows = self._train(method, bench, folder, key)
      said = {'train_seconds': facts['train_seconds'], 'compile_seconds': facts['compile_seconds']}
    if hosts.is_main():
      method_files.write_method(folder, method.name, facts, rows, run=key)
    return said

  def _drop_rest(self, unit: Unit, key: str) -> None:
    """Removes what a run that is in the ledger needs no more; before that a kill would go on from it.

    What training resumes from is several times the size of what it selected; a search selects nothing that stays.
    """
    if hosts.is_main():
      folder = self.folder(unit, key)
      rest = f'{checkpoint_folder(folder, unit.method)}/state'
      storage.remove_folder(f'{folder}/checkpoints' if unit.search else rest)

  def _search(self, method: Method, bench: Workbench, folder: str, key: str) -> dict[str, Any]:
    """Trains all points of a random search side by side; facts with the one that validation prefers."""
    search = self._recipe.study.search
    points = draw_points(self._recipe)
    seeds = tuple(self._recipe.seed + s for _ in range(search.points) for s in range(search.seeds))
    values = tuple((field, tuple(p[field] for p in points for _ in range(search.seeds))) for field in points[0])
    trainer = bench.trainer(method, Runs(seeds, values))
    trained = trainer.run(folder, run=key, may_diverge=True)
    scores = trained.best.score.reshape(search.points, -1).mean(1)
    if not np.isfinite(scores).any():
      raise UserError(
        f'{method.name}: all {search.points} points of the search diverged; expected settings that can be trained with:'
        ' lower config.optimizer.learning_rate and the ranges of config.study.search.fields'
      )
    best = int(np.argmax(np.where(np.isfinite(scores), scores, -np.inf)))
    return {
      'points': points,
      'scores': scores.tolist(),
      'chosen': points[best],
      'train_seconds': trained.train_seconds,
      'compile_seconds': trained.compile_seconds,
    }

  def _train(self, method: Method, bench: Workbench, folder: str, key: str) -> tuple[dict[str, Any], list[Any]]:
    """(facts, rows) of one method: trained, evaluated, its modalities valued."""
    recipe, inputs, s = self._recipe, bench.feed.inputs, self._recipe.study
    constant = ConstantPredictor(bench.prepared, recipe.num_seeds)
    start = time.perf_counter()
    if method.module is None:
      rows = evaluate_method(method, constant, None, inputs, recipe.protocols, **reading(method, recipe))
      seconds = time.perf_counter() - start
      return {'num_params': 0, 'train_seconds': 0.0, 'compile_seconds': 0.0, 'evaluate_seconds': seconds}, rows
    chosen = self._chosen.get(method.name, {})
    runs = Runs(recipe.seeds, tuple((f, (v,) * recipe.num_seeds) for f, v in chosen.items()))
    trainer = bench.trainer(method, runs, peek=s.peek)
    trained = trainer.run(folder, run=key)
    facts = {**training_facts(trainer, trained), 'settings': chosen}
    if hosts.is_main() and not method.separate:  # Gradients of separate models compete for nothing.
      facts |= gradient_facts(folder, trainer, key)
    start = time.perf_counter()
    rows = self._evaluate(method, trainer, trained, inputs)
    if s.valuation and not method.separate:
      value = value_modalities(
        trainer.programs.predictor, trained.best.params, inputs, 'test', constant=constant.prediction, seed=recipe.seed
      )
      rows[0] = dataclasses.replace(rows[0], valuation=value)
    facts['evaluate_seconds'] = time.perf_counter() - start
    return facts, rows

  def _evaluate(self, method: Method, trainer: Trainer, trained: Trained, inputs: Any) -> list[Any]:
    """Rows of what validation selected; with `peek` their `test_selected` is what the test split would have."""
    recipe, predictor = self._recipe, trainer.programs.predictor
    how = reading(method, recipe)
    rows = evaluate_method(method, predictor, trained.best.params, inputs, recipe.protocols, **how)
    if trained.peeked is None:
      return rows
    peeked = evaluate_method(method, predictor, trained.peeked.params, inputs, recipe.protocols, **how)
    return [
      dataclasses.replace(row, test_selected={'protocols': p.protocols}) for row, p in zip(rows, peeked, strict=True)
    ]


def draw_points(recipe: Recipe) -> list[dict[str, float]]:
  """Settings of every point of the search: the recipe's own first, the others drawn, the same for every method."""
  search, rng = recipe.study.search, np.random.default_rng(_SEARCH_SEED)
  own = {}
  for field, *_ in search.fields:
    group, _, name = field.partition('.')
    own[field] = float(getattr(getattr(recipe, group), name))
  points = [own]
  for _ in range(search.points - 1):
    point = {}
    for field, scale, low, high in search.fields:
      share = rng.random()
      value = low * (high / low) ** share if scale == 'log' else low + share * (high - low)
      point[field] = float(np.float32(f'{value:.4g}'))
    points.append(point)
  return points


def _load(recipe: Recipe) -> Dataset:
  """The data set; a protocol that does not fit it is refused before hours of training, not after."""
  if recipe.train_missing.kind != 'none':
    raise UserError('config.train_missing is set; a study takes what is missing in training from config.study.regimes')
  data = recipe.data
  dataset = load_dataset(
    data.name, tfds_dir=data.tfds_dir, manual_dir=data.manual_dir, folder=data.dir, options=data.options
  )
  for protocol in recipe.protocols:
    conditions(protocol, dataset.spec)
  return dataset


def _open_ledger(workdir: str) -> Ledger:
  """The ledger of a study; a workdir of another mode is refused: its config and results would be overwritten."""
  folder = storage.place(workdir)
  if (folder / CONFIG_FILE).exists() and not (folder / LEDGER_FILE).exists():
    if (folder / 'runs').exists():
      raise UserError(
        f'{folder} holds a study whose {LEDGER_FILE} is gone; bring it back, choose another --workdir, or remove'
        f' {CONFIG_FILE} to make every run again'
      )
    raise UserError(f'{folder} was made by another mode than study; choose another --workdir')
  return Ledger(workdir)


class _StudyProgress:
  """A line a finished run: how far the study is, and when it ends."""

  def __init__(self, units: list[Unit]):
    self._left, self._total = list(units), len(units)
    self._start = time.monotonic()
    self._cost: dict[tuple[str, bool], float] = {}

  def skipped(self, unit: Unit) -> None:
    """A run that was finished before."""
    self._left.remove(unit)
    print(f'[{self._total - len(self._left)}/{self._total}] {unit.title}: finished before', flush=True)

  def done(self, unit: Unit, seconds: float) -> None:
    """A run that took so long."""
    self._left.remove(unit)
    self._cost[unit.method, unit.search] = seconds
    print(f'[{self._total - len(self._left)}/{self._total}] {unit.title}: {seconds:.1f} s; {self._ahead()}', flush=True)

  def _ahead(self) -> str:
    # A method costs about what it cost under another regime, less its compilation; an unknown one the mean.
    known = list(self._cost.values())
    left = sum(self._cost.get((u.method, u.search), sum(known) / len(known)) for u in self._left)
    spent = time.monotonic() - self._start
    return f'{_clock(spent)} so far' + (f', about {_clock(left)} left' if self._left else ', done')


def _clock(seconds: float) -> str:
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes // 60}:{minutes % 60:02}:{rest:02}' if minutes >= 60 else f'{minutes}:{rest:02}'
