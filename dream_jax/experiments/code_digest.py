"""Which code a result depends on: a digest of sources, method by method, so that editing one reruns that one alone."""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path

from dream_jax.evaluation import metrics
from dream_jax.machine import own_code
from dream_jax.missingness import missing, protocols
from dream_jax.models.registry import Method

# Where results are made, whatever the method.
_ROOTS = (
  'dream_jax.training.train',
  'dream_jax.evaluation.evaluate',
  'dream_jax.evaluation.modality_values',
  'dream_jax.data.prepare',
)
# What does not decide a result: it names, stores or shows, or its content enters a key by value.
_APART = (
  'dream_jax.config.recipe',
  'dream_jax.errors',
  'dream_jax.machine.environment',
  'dream_jax.machine.paths',
  'dream_jax.models.registry',
  'dream_jax.report',
  'dream_jax.settings',
  'dream_jax.training.feed',
  'dream_jax.training.runs',
  'dream_jax.workdir.checkpoints',
  'dream_jax.workdir.metrics_log',
)


def code_digest(method: Method) -> str:
  """Digest of all sources that the results of a method depend on, and of the libraries' versions.

  Of code that is not from this package it knows the files in which registered things are written, and no more. Devices
  are not in it: on another kind of them results agree to rounding, and a run that was stopped goes on there.

  Raises:
    UserError: something registered is in no file.
  """
  modules, own = _closure(_ROOTS), [*missing.own_kinds(), *protocols.own_protocols(), *metrics.own_metrics()]
  if method.module is not None and own_code.is_own(method.module):
    own.append(method.module)
    modules = modules | _closure(tuple(_imports(own_code.source(method.module))))
  elif method.module is not None:
    modules = modules | _closure((method.module.__module__,))
  digest = hashlib.sha256()
  for name in sorted(modules):
    digest.update(name.encode() + _source(name))
  for content in sorted({own_code.source(x) if own_code.is_own(x) else repr(x).encode() for x in own}):
    digest.update(content)
  for package in ('jax', 'jaxlib', 'flax', 'optax', 'numpy'):
    digest.update(f'{package} {importlib.metadata.version(package)}'.encode())
  return digest.hexdigest()


@functools.cache
def _closure(roots: tuple[str, ...]) -> frozenset[str]:
  """The modules of this package that these import, directly or not, and they themselves."""
  found: set[str] = set()
  waiting = list(roots)
  while waiting:
    name = waiting.pop()
    if name in found or any(name == apart or name.startswith(f'{apart}.') for apart in _APART):
      continue
    found.add(name)
    waiting.extend(_imports(_source(name)))
  return frozenset(found)


def _imports(source: bytes) -> list[str]:
  """The modules of this package that a source imports."""
  names = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
      names += [node.module, *(f'{node.module}.{alias.name}' for alias in node.names)]
  return [n for n in names if n.startswith('dream_jax.') and _file(n) is not None]


@functools.cache
def _file(name: str) -> Path | None:
  try:
    spec = importlib.util.find_spec(name)
  except ModuleNotFoundError:  # `from dream_jax.x import y` where y is no module.
    return None
  return Path(spec.origin) if spec is not None and spec.origin else None


def _source(name: str) -> bytes:
  path = _file(name)
  return path.read_bytes() if path is not None else b''
