"""What there is to choose from: configs, data sets, methods, training regimes, protocols, chips, and every field."""

import ast
import inspect
import operator
import textwrap
from pathlib import Path
from typing import Any

from dream_jax.config.recipe import Recipe
from dream_jax.data.catalogue import dataset_names
from dream_jax.missingness.protocols import protocol_names
from dream_jax.missingness.regimes import FORMS
from dream_jax.models.registry import METHODS
from dream_jax.scaling.chips import CHIPS
from dream_jax.settings import expected, rule_of, walk


def print_all() -> None:
  """Prints every name that a config or the command line may use."""
  print('configs (--config=FILE):')
  found = sorted(Path('configs').glob('*.py'))
  for path in found:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
    print(f'  {path}  {doc.splitlines()[0] if doc else ""}')
  if not found:
    print('  none in ./configs; run this in the root of the repository, or give the path of your own')
  print('\ndata sets (config.data.name):')
  for name in dataset_names():
    print(f'  {name}')
  print('\nmethods (config.model.name, config.controls, config.study.methods):')
  for method in METHODS.values():
    told = f'  [told: {", ".join(method.uses_oracle)}]' if method.uses_oracle else ''
    source = f'  ({method.source})' if method.source else ''
    print(f'  {method.name:18s} {method.title}{told}{source}')
  print(f'\ntraining regimes (config.study.regimes):\n  {FORMS}')
  print('\nprotocols (config.protocols):')
  names = protocol_names()
  for kind in dict.fromkeys(name.partition('/')[0] for name in names):
    print('  ' + '  '.join(name for name in names if name.partition('/')[0] == kind))
  print(f'\nchips that --mode=plan predicts for:\n  {", ".join(chip.name for chip in CHIPS)}')


def print_fields(config: Any = None) -> None:
  """Prints every field of a config: its value there (or its default), what it may hold and what it means."""
  if config is None:
    from dream_jax.config.default import get_default

    config = get_default()
  for path, hint, field in walk(Recipe):
    if field is None:
      print(f'\n{path}: {(inspect.getdoc(hint) or "").splitlines()[0]}')
      continue
    rule = rule_of(field)
    value = operator.attrgetter(path.removeprefix('config.'))(config)
    value = value.to_dict() if hasattr(value, 'to_dict') else value
    print(f'{path} = {"not set" if value is None else repr(value)}')
    print(
      textwrap.fill(f'{rule.comment} [{expected(hint, rule)}]', 116, initial_indent='    ', subsequent_indent='    ')
    )
