"""What a command has to make: all seeds of a method under a training regime are one unit, with a key of its own.

`--mode=train` plans one regime, `--mode=study` those of `config.study.regimes`; everything after the plan is the same.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping

from dream_jax.config.recipe import EXECUTION_FIELDS, Recipe, SearchSettings
from dream_jax.errors import UserError
from dream_jax.experiments.code_digest import code_digest
from dream_jax.missingness.missing import Missing, describe
from dream_jax.missingness.regimes import regime
from dream_jax.models.dream.dream import Dream
from dream_jax.models.registry import find_method
from dream_jax.spec import DatasetSpec
from dream_jax.workdir.sealed import plain


@dataclasses.dataclass(frozen=True)
class Unit:
  """One run of a plan: all seeds of a method under a regime.

  Attributes:
    method: what is trained.
    regime: name of the training regime.
    search: whether this searches for settings instead of training the seeds.
  """

  method: str
  regime: str
  search: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a command makes.

  Attributes:
    mode: 'train' or 'study'.
    methods: names, the one under study first.
    regimes: name -> what is missing from the training data; the first one's results stand under plain names.
    search: the random search before training; without points there is none.
    peek: whether the test split selects, too, to show what that would have changed.
    valuation: whether exact Shapley values of the modalities are computed.
  """

  mode: str
  methods: tuple[str, ...]
  regimes: Mapping[str, Missing]
  search: SearchSettings = dataclasses.field(default_factory=SearchSettings)
  peek: bool = False
  valuation: bool = False

  @property
  def units(self) -> list[Unit]:
    """The runs in their order: searches first, then regime by regime."""
    first = next(iter(self.regimes))
    trained = [name for name in self.methods if find_method(name).module is not None]
    searches = [Unit(name, first, search=True) for name in trained] if self.search.points else []
    return searches + [Unit(name, r) for r in self.regimes for name in self.methods]

  def title(self, unit: Unit) -> str:
    """What progress lines call a unit."""
    if unit.search:
      return f'{unit.method}, search of settings'
    return unit.method if self.mode == 'train' else f'{unit.method}, {unit.regime}'


def train_plan(recipe: Recipe, spec: DatasetSpec) -> Plan:
  """The methods of a recipe under its own training data, whatever these are."""
  del spec
  missing = recipe.train_missing
  return Plan('train', recipe.methods, {'complete' if missing.kind == 'none' else describe(missing): missing})


def study_plan(recipe: Recipe, spec: DatasetSpec) -> Plan:
  """Every method of a study under every regime.

  Raises:
    UserError: there is no such regime, or `config.train_missing` is set beside them.
  """
  if recipe.train_missing.kind != 'none':
    raise UserError('config.train_missing is set; a study takes what is missing in training from config.study.regimes')
  s = recipe.study
  methods = tuple(dict.fromkeys((recipe.model.name, *s.methods)))
  return Plan('study', methods, {name: regime(name, spec) for name in s.regimes}, s.search, s.peek, s.valuation)


def run_key(unit: Unit, plan: Plan, recipe: Recipe, data: str, chosen: Mapping[str, float]) -> str:
  """Hash of all that determines what a run trains, and of nothing else.

  What a trained run is tested under is no part of it. Where the test split selects beside validation it is: what it
  selected under other protocols cannot be evaluated again.

  Args:
    unit: the run.
    plan: what it is part of.
    recipe: how it is trained.
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
    'regime': dataclasses.asdict(plan.regimes[unit.regime]),
    'method': {**dataclasses.asdict(method), 'module': None, 'title': None, 'source': None},
    'code': code_digest(method),
    'model': sizes,
    'losses': dataclasses.asdict(recipe.losses) if own else None,
    'inject': dataclasses.asdict(recipe.inject),
    'optimizer': dataclasses.asdict(recipe.optimizer),
    'train': train,
    'seeds': recipe.seeds,
    'chosen': dict(chosen),
    'search': dataclasses.asdict(plan.search) if unit.search else None,
    'peek': recipe.protocols if plan.peek and not unit.search else None,
  }
  return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()
