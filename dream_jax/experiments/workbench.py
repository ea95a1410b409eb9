"""One data set and one recipe at work: batches, programs, and what was compiled for them."""

from typing import Any

from dream_jax.config.recipe import Recipe, recipe_of
from dream_jax.data.datasets import Dataset, load_dataset
from dream_jax.data.folds import divided
from dream_jax.data.prepare import Prepared, prepare
from dream_jax.missingness.protocols import conditions
from dream_jax.models.registry import Method
from dream_jax.training.feed import Feed
from dream_jax.training.programs import Programs, program_key
from dream_jax.training.runs import Runs
from dream_jax.training.train import Trainer


def load_raw(recipe: Recipe) -> Dataset:
  """The data of a recipe, raw values; a protocol that does not fit them is refused before hours of training."""
  data = recipe.data
  dataset = load_dataset(
    data.name, tfds_dir=data.tfds_dir, manual_dir=data.manual_dir, folder=data.dir, options=data.options
  )
  for protocol in recipe.protocols:
    conditions(protocol, dataset.spec)
  return divided(dataset, data.division) if data.division else dataset


def load_prepared(recipe: Recipe) -> Prepared:
  """The data of a recipe as its trainer reads them."""
  return prepare(load_raw(recipe), train_missing=recipe.train_missing, seed=recipe.seed)


class Workbench:
  """One data set and one recipe, with whatever was compiled for them: no method compiles what another one did."""

  def __init__(self, recipe: Recipe, prepared: Prepared, compiled: dict[Any, Programs] | None = None):
    """`compiled` may come from a workbench of another data set with an equal spec."""
    self.recipe, self.prepared = recipe, prepared
    self.feed = Feed(recipe, prepared)
    self.compiled = {} if compiled is None else compiled

  def trainer(self, method: Method, runs: Runs | None = None, *, peek: bool = False) -> Trainer:
    """A trainer of the method."""
    recipe = recipe_of(method, self.recipe)
    sizes = tuple(len(split) for split in self.prepared.splits.values())
    key = (program_key(method, recipe, self.prepared.spec, runs), sizes)
    trainer = Trainer(method, recipe, self.feed, runs=runs, programs=self.compiled.get(key), peek=peek)
    self.compiled[key] = trainer.programs
    return trainer
