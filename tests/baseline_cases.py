"""Batches, drawn parameters, layers in NumPy and compiled cases, for the tests of what single methods compute."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from small_runs import jit, small_spec

from dream_jax.models.model import ORACLE_MASK, Model
from dream_jax.models.sizes import Sizes
from dream_jax.spec import DatasetSpec, ModalitySpec

B, D = 4, 8
STILL = Sizes(width=D, hidden=6, dropout=0.0, head_dropout=0.0)
KEPT = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 1]], np.float32)
NAMES = ('text', 'face', 'pose')  # of unequal numbers of tokens
CLOSE = {'rtol': 2e-5, 'atol': 2e-6}
SEED = 2  # of what training draws
# Classification into one of several is what `Case` compiles; the two slow ones differ from these in the loss alone.
EVERY_TASK = pytest.mark.parametrize(
  'task', ['regression', *(pytest.param(t, marks=pytest.mark.slow) for t in ('binary', 'multilabel'))]
)


def vectors(task: str = 'multiclass') -> DatasetSpec:
  """Three modalities of the same names, all of them vectors: their encoders compile fastest."""
  modalities = tuple(ModalitySpec(name, 'vector', (width,)) for name, width in zip(NAMES, (3, 5, 4), strict=True))
  return dataclasses.replace(small_spec(task), modalities=modalities)


def inputs_of(spec: DatasetSpec, seed: int = 0) -> dict[str, np.ndarray]:
  """Random inputs, whole and cut sequences among them."""
  rng = np.random.default_rng(seed)
  inputs = {}
  for m in spec.modalities:
    if m.kind == 'tokens':
      inputs[m.name] = rng.integers(1, m.vocab_size, (B, *m.shape)).astype(np.int32)
    else:
      inputs[m.name] = rng.normal(size=(B, *m.shape)).astype(np.float32)
    if m.has_length:
      inputs[m.length_name] = np.array([m.shape[0], 1, 2, m.shape[0] - 1], np.int32)
  return inputs


def label_of(spec: DatasetSpec) -> np.ndarray:
  """Random labels of its task."""
  rng = np.random.default_rng(1)
  if spec.task == 'regression':
    return rng.normal(size=B).astype(np.float32)
  if spec.task == 'multilabel':
    return rng.integers(0, 2, (B, spec.num_outputs)).astype(np.float32)
  return rng.integers(0, max(2, spec.num_outputs), B).astype(np.int32)


def told(inputs: dict[str, np.ndarray], mask: np.ndarray = KEPT) -> dict[str, np.ndarray]:
  """The inputs, and what of them is missing."""
  return {**inputs, ORACLE_MASK: np.asarray(mask, np.float32)}


def batch_of(spec: DatasetSpec, kept=KEPT, inputs=None, clean=None, label=None) -> dict[str, Any]:
  """A batch as training makes it; what is not given is random."""
  inputs = inputs_of(spec) if inputs is None else inputs
  clean = inputs_of(spec, seed=3) if clean is None else clean
  label = label_of(spec) if label is None else label
  return {'inputs': told(inputs, kept), 'clean': clean, 'label': label, 'kept': np.asarray(kept, np.float32)}


def with_and_without(spec: DatasetSpec) -> tuple:
  """(inputs, complete inputs), either or both of them all zero."""
  inputs = inputs_of(spec)
  nothing = {name: np.zeros_like(x) for name, x in inputs.items()}
  return (inputs, nothing), (nothing, inputs), (nothing, nothing)


def drawn(init, *args, **kwargs) -> Any:
  """Random parameters, biases too, so that no part of an equation is zero by chance."""
  shapes = jax.eval_shape(lambda key: init({'params': key}, *args, **kwargs)['params'], jax.random.key(0))
  rng = np.random.default_rng(5)
  return jax.tree.map(lambda p: rng.normal(scale=0.3, size=p.shape).astype(np.float32), shapes)


def draw_key(model: Model, key: jax.Array) -> jax.Array:
  """The key of the first thing that a loss draws, dropout aside, when it is given `key`."""
  _, draw = jax.random.split(key)
  return model.apply({}, rngs={'draw': draw}, method=lambda m: m.make_rng('draw'))


class Case:
  """A method without dropout, its parameters drawn, and one program that computes all that a file asks of it.

  Compiling is most of the time of these tests: a file keeps its cases, and changes parameters and batches alone.
  """

  def __init__(self, module: type[Model], options: dict[str, Any], spec: DatasetSpec | None = None):
    self.spec = small_spec(names=NAMES) if spec is None else spec
    self.model = module(self.spec, STILL, **options)
    self.params = drawn(self.model.init, told(inputs_of(self.spec)), train=False)
    self._run = jit(self.everything)

  def run(self, params=None, **batch):
    """`everything`, by default of the drawn parameters and the random batch."""
    return self._run(self.params if params is None else params, batch_of(self.spec, **batch))

  def everything(self, params: Any, batch: Any) -> Any:
    """What a file asks of its methods."""
    raise NotImplementedError

  def taught(self, params: Any, batch: Any) -> tuple[dict, dict, dict]:
    """Terms of the loss, their gradients by the parameters, and by the complete content of one modality."""

    def losses(params, pose):
      clean = {**batch['clean'], 'pose': pose}
      terms = self.model.loss(params, {**batch, 'clean': clean}, jax.random.key(SEED))[1]
      return terms, terms

    jacobian, terms = jax.jacrev(losses, argnums=(0, 1), has_aux=True)(params, batch['clean']['pose'])
    each, slope = ({name: pair[i] for name, pair in jacobian.items()} for i in range(2))
    return terms, each, slope


def steps(module: type[Model], task: str, options: dict[str, Any]) -> Iterator[tuple]:
  """((total, terms), gradients) of two modalities with dropout, of a batch each of `with_and_without`."""
  spec, kept = small_spec(task, ('face', 'pose')), KEPT[:, :2]
  model = module(spec, Sizes(width=D, hidden=6), **options)
  params = drawn(model.init, told(inputs_of(spec), kept), train=False)
  run = jit(model.gradient)
  for inputs, clean in with_and_without(spec):
    yield run(params, batch_of(spec, kept, inputs, clean), jax.random.key(1))


def finite(tree: Any) -> bool:
  """Whether every number of it is finite."""
  return all(np.isfinite(x).all() for x in jax.tree.leaves(tree))


def reaches(gradient: Any) -> bool:
  """Whether any of it is not zero."""
  return any(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))


def reached(jacobian: dict[str, Any]) -> dict[str, set[str]]:
  """{term: names of the parts of the model that it teaches}."""
  return {term: {part for part, g in gradient.items() if reaches(g)} for term, gradient in jacobian.items()}


# Layers and losses in NumPy.


def gelu(x):
  """By JAX, since its approximation is what the models use."""
  return np.asarray(jax.nn.gelu(x))


def sigmoid(x):
  """1 / (1 + exp(-x))."""
  return 1 / (1 + np.exp(-x))


def softmax(x):
  """Over the last axis."""
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def dense(p, x, *slot):
  """A dense layer, or that of one slot of many."""
  return x @ p['kernel'][slot] + p['bias'][slot]


def mlp(p, x, *slot):
  """A perceptron of one hidden layer, or that of one slot of many."""
  return dense(p['out'], gelu(dense(p['in'], x, *slot)), *slot)


def norm(x):
  """Layer normalisation without parameters."""
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def cross_entropy(logits, label):
  """[B] of logits [B, C]."""
  return -np.log(softmax(logits)[np.arange(len(label)), label])
