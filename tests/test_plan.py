"""The plan: what it reads in compiled programs, how it predicts, and that nothing but the config has to be there."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P
from small_runs import optax_promotes, small_recipe, small_spec  # noqa: F401

from dream_jax.cli.flags import load_config
from dream_jax.config.recipe import recipe_from_config
from dream_jax.data.datasets import known_of, load_dataset
from dream_jax.errors import UserError
from dream_jax.machine import cores
from dream_jax.models.registry import find_method
from dream_jax.parallel.mesh import make_mesh
from dream_jax.scaling import chips, plan
from dream_jax.scaling.chips import Chip, Network, collective_seconds, predict
from dream_jax.scaling.hlo import Collective, read_program

_SMALL = {'train': 60, 'validation': 12, 'test': 30}


def _text(function, shape, *, seed=1):
  """HLO of a function of one float32 array, mapped over eight devices, that was compiled here."""
  mesh = make_mesh(seed, -1)
  mapped = jax.shard_map(function, mesh=mesh, in_specs=P('data'), out_specs=P('data'), check_vma=False)
  return jax.jit(mapped).lower(jax.ShapeDtypeStruct(shape, jnp.float32)).compile().as_text()


def test_collectives_of_programs_compiled_here():
  cases = (
    (lambda x: jax.lax.psum(x, 'data'), 1, Collective('all-reduce', 'f32', 2 * 5 * 4, 8, 1)),
    (lambda x: jax.lax.psum(x, 'data'), 2, Collective('all-reduce', 'f32', 4 * 5 * 4, 4, 1)),
    (lambda x: jax.lax.psum(x.astype(jnp.int8), 'data'), 1, Collective('all-reduce', 's8', 2 * 5, 8, 1)),
    (lambda x: jax.lax.all_gather(x, 'data'), 1, Collective('all-gather', 'f32', 16 * 5 * 4, 8, 1)),
    (
      lambda x: jax.lax.ppermute(x, 'data', [(i, (i + 1) % 8) for i in range(8)]),
      1,
      Collective('collective-permute', 'f32', 2 * 5 * 4, 8, 1),
    ),
  )
  for function, seed, expected in cases:
    assert read_program(_text(function, (16, 5), seed=seed), 8).collectives == (expected,)
  scattered = _text(partial(jax.lax.psum_scatter, axis_name='data', tiled=True), (64, 5))
  assert read_program(scattered, 8).collectives == (Collective('reduce-scatter', 'f32', 8 * 5 * 4, 8, 1),)
  exchanged = read_program(_text(lambda x: jax.lax.all_to_all(x, 'data', 0, 0, tiled=True), (64, 5)), 8).collectives
  assert [(c.kind, c.dtype, c.num_bytes, c.devices) for c in exchanged] == [('all-to-all', 'f32', 8 * 5 * 4, 8)]
  assert read_program(_text(lambda x: 2 * x, (16, 5)), 8).collectives == ()


def test_a_loop_counts_as_often_as_it_runs():
  def steps(x):
    return jax.lax.scan(lambda c, _: (jnp.sin(jax.lax.psum(c, 'data')), None), x, length=3)[0]

  program = read_program(_text(steps, (16, 5)), 8)
  assert program.collectives == (Collective('all-reduce', 'f32', 40, 8, 3),)
  once = read_program(_text(lambda x: jnp.sin(jax.lax.psum(x, 'data')), (16, 5)), 8)
  assert once.kernels >= 2
  assert program.kernels >= 3 * once.kernels


_LITERAL = """HloModule literal

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%wrapped (p: bf16[8,16]) -> bf16[2,16] {
  %p = bf16[8,16]{1,0} parameter(0)
  ROOT %rs = bf16[2,16]{1,0} reduce-scatter(%p), replica_groups=[2,4]<=[8], dimensions={0}, to_apply=%add
}

%fused (q: f32[6]) -> f32[6] {
  %q = f32[6]{0} parameter(0)
  %twice = f32[6]{0} add(%q, %q)
  ROOT %root = f32[6]{0} negate(%twice)
}

ENTRY %main (x: f32[6], y: bf16[3,2]) -> f32[6] {
  %x = f32[6]{0} parameter(0)
  %y = bf16[3,2]{1,0:T(8,128)S(1)} parameter(1)
  %ar = (f32[6]{0}, /*index=1*/bf16[3,2]{1,0:T(8,128)(2,1)}) all-reduce-start(%x, %y), replica_groups={{0,1},{2,3}}
  %ard = (f32[6]{0}, bf16[3,2]{1,0}) all-reduce-done(%ar)
  %ag = (f32[6]{0}, f32[24]{0}) all-gather-start(%x), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %agd = f32[24]{0} all-gather-done(%ag)
  %cp = (f32[6]{0}, f32[6]{0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}
  %cpd = f32[6]{0} collective-permute-done(%cp)
  %rss = ((bf16[8,16]{1,0}), bf16[2,16]{1,0}) async-start(%y), calls=%wrapped
  %rsd = bf16[2,16]{1,0} async-done(%rss), calls=%wrapped
  %a2a = (f32[6]{0}, f32[6]{0}) all-to-all(%x, %x), replica_groups={}
  %f = f32[6]{0} fusion(%x), kind=kLoop, calls=%fused
  ROOT %named_all-reduce.1 = f32[6]{0} negate(%f), metadata={op_name="all-reduce(psum)"}
}
"""


def test_kernels_are_what_is_started_once_each():
  # Five collectives, the fusion as one, and the negation; neither ends of collectives nor what is inside the fusion.
  assert read_program(_LITERAL, 8).kernels == 7


def test_collectives_that_start_and_end_and_have_several_arrays():
  found = {c.kind: (c.dtype, c.num_bytes, c.devices, c.times) for c in read_program(_LITERAL, 8).collectives}
  assert found == {
    'all-reduce': ('f32+bf16', 24 + 12, 2, 1),
    'all-gather': ('f32', 96, 4, 1),
    'collective-permute': ('f32', 24, 8, 1),
    'reduce-scatter': ('bf16', 4 * 2 * 16 * 2, 4, 1),
    'all-to-all': ('f32', 48, 8, 1),
  }


_TORUS = Network(link=100.0, hop=0.5, axes=2, closed_from=16, largest=64)
_NODES = Network(link=100.0, hop=0.5, node=4, far_link=10.0, far_hop=2.0)


def test_seconds_of_collectives_by_hand():
  # Sixteen chips, a closed torus of 4 x 4: 15/16 of the bytes, and 3 hops along each axis, there and back.
  assert collective_seconds(_TORUS, 'all-reduce', 1600.0, 16) == pytest.approx(2 * (15.0 + 6 * 0.5))
  assert collective_seconds(_TORUS, 'all-gather', 1600.0, 16) == pytest.approx(15.0 + 6 * 0.5)
  # Four chips, 2 x 2: nothing is closed, so half of the links; one hop along each axis.
  assert collective_seconds(_TORUS, 'all-reduce', 1600.0, 4) == pytest.approx(2 * (3 / 4 * 1600 / 50 + 2 * 0.5))
  # One node, and three nodes: inside as before, then a quarter of the bytes among three.
  inside = 3 / 4 * 1600 / 100 + 3 * 0.5
  assert collective_seconds(_NODES, 'all-reduce', 1600.0, 4) == pytest.approx(2 * inside)
  between = 2 / 3 * 400 / 10 + 2 * 2.0
  assert collective_seconds(_NODES, 'all-reduce', 1600.0, 12) == pytest.approx(2 * (inside + between))
  assert collective_seconds(_NODES, 'all-to-all', 1600.0, 12) == pytest.approx(inside + 2 / 3 * 1600 / 10 + 2 * 2.0)
  for network in (_TORUS, _NODES):
    assert collective_seconds(network, 'all-reduce', 1600.0, 1) == 0.0


def test_roofline_by_hand():
  chip = Chip('x', float32=100.0, bfloat16=400.0, memory=1.0, bandwidth=10.0, network=_TORUS)
  reduce = (Collective('all-reduce', 'f32', 1600, 16, 4),)
  got = predict(chip, 'float32', flops=1000.0, traffic=50.0, collectives=reduce, calls=1 / 4)
  assert (got.compute, got.traffic, got.communication) == pytest.approx((10.0, 5.0, 36.0))
  assert got.step == pytest.approx(10.0 + 36.0)
  assert got.bound == 'network'
  half = predict(chip, 'bfloat16', flops=1000.0, traffic=50.0, collectives=())
  assert (half.step, half.bound) == (pytest.approx(5.0), 'memory')
  assert predict(chip, 'bfloat16', flops=4000.0, traffic=50.0, collectives=()).bound == 'compute'


def test_chips_have_their_published_figures():
  by_name = {c.name: c for c in chips.CHIPS}
  assert list(by_name) == ['H100 SXM', 'H200', 'TPU v4', 'TPU v5e', 'TPU v5p', 'TPU v6e']
  assert by_name['H100 SXM'].peak('float32') == by_name['H100 SXM'].peak('bfloat16') / 2 == 494.7e12
  assert by_name['TPU v5p'].peak('float32') == by_name['TPU v5p'].peak('bfloat16') == 459e12
  assert (by_name['H200'].memory, by_name['H200'].bandwidth) == (141e9, 4.8e12)
  assert by_name['TPU v4'].network.link == 300e9


@pytest.mark.parametrize(
  ('name', 'options', 'sizes'),
  [('synthetic', _SMALL | {'num_classes': 3}, _SMALL), ('mosei_standin', _SMALL, _SMALL), ('digits', {}, {})],
)
def test_spec_without_the_data_is_that_of_the_prepared_data(name, options, sizes, tmp_path):
  spec, known = known_of(name, tfds_dir=str(tmp_path), options=options)
  assert list(tmp_path.iterdir()) == []
  assert known == sizes
  prepared = load_dataset(name, tfds_dir=str(tmp_path), options=options)
  assert spec == prepared.spec
  again = known_of(name, tfds_dir=str(tmp_path), options=options)
  assert again == (spec, {split: len(samples) for split, samples in prepared.splits.items()})


def test_published_files_are_known_without_them(tmp_path):
  spec, sizes = known_of('cmu_mosei/aligned', tfds_dir=str(tmp_path))
  assert {m.name: m.shape for m in spec.modalities} == {'text': (50, 768), 'audio': (50, 74), 'vision': (50, 35)}
  assert sizes == {'train': 16326, 'validation': 1871, 'test': 4659}
  assert known_of('ch_sims', tfds_dir=str(tmp_path))[1]['train'] == 1368
  with pytest.raises(UserError, match=r'config\.data\.dir'):
    known_of('folder', tfds_dir=str(tmp_path))


def _linear(rows, inputs, outputs):
  """Operations of a product [rows, inputs] x [inputs, outputs]."""
  return 2 * rows * inputs * outputs


def hand_count(widths, frames, *, batch, width, hidden):
  """Operations of DREAM's gradient by the table of docs/notebook/scaling.md; regression on sequences.

  A layer counts once forward and once for each gradient that is needed: of its weights, and of its input unless that is
  data or not differentiated.
  """
  b, d, h, m, k, detector, probes = batch, width, hidden, len(widths), 2, 32, 8
  half = (frames + 1) // 2
  quarter, windows = (half + 1) // 2, (frames + 2) // 3
  counts = dict.fromkeys(('project', 'convolve', 'pool', 'recognise', 'typicality', 'heads', 'fuse', 'reconstruct'), 0)
  for features in widths:
    projected = features > d
    # One pass more is that over the inputs before the injection, forward only.
    if projected:
      counts['project'] += _linear(b * frames, features, d) * (2 + 1)
    counts['convolve'] += _linear(b * half, 3 * (d if projected else features), d) * ((3 if projected else 2) + 1)
    counts['convolve'] += _linear(b * quarter, 3 * d, d) * (3 + 1)
    counts['pool'] += _linear(b, 2 * d, d) * (3 + 1)
    counts['typicality'] += _linear(b * windows, 3 * features, 2 * probes)  # Nothing of it is trained.
    counts['recognise'] += _linear(b * windows, 3 * features, detector) * 2 + _linear(b, 2 * detector, 1) * 3
  counts['heads'] = _linear(b * m, d, k) * 3
  for weightings, passes in ((2**m - 1, 2), (1, 3)):
    counts['fuse'] += _linear(b * m, d, h) * 3 + _linear(b * weightings, h, 1) * 3
    counts['fuse'] += 2 * _linear(b * weightings, m, h) * passes
  counts['reconstruct'] += (_linear(b * m * m, d, d) + 2 * _linear(b * m, d, h) + 2 * _linear(b * m, m, d)) * 3
  counts['reconstruct'] += _linear(b * m, 2 * d + 1, h) * 2 + _linear(b * m, h, 1) * 3
  return counts


_MOSEI = partial(hand_count, (768, 74, 35), 50, batch=64, width=64, hidden=128)


def test_count_of_operations_is_that_by_hand(root, tmp_path):
  recipe = recipe_from_config(load_config(str(root / 'configs' / 'mosei.py')))
  spec, sizes = known_of(recipe.data.name, tfds_dir=str(tmp_path))
  planner = plan.Planner(dataclasses.replace(recipe, num_seeds=1), spec, sizes['train'], jax.devices())
  by_hand = sum(_MOSEI().values())
  assert planner.seed_flops == pytest.approx(by_hand, rel=0.1)
  # What is not a matrix product is some per cent, and it is counted, too.
  assert by_hand < planner.seed_flops
  table = (root / 'docs' / 'notebook' / 'scaling.md').read_text()
  assert f'**{by_hand / 1e6:,.1f}**' in table
  for part, count in _MOSEI().items():
    assert re.search(rf'^\| {part} .*\| {count / 1e6:,.1f} \|$', table, re.MULTILINE), part


@pytest.fixture(scope='module')
def planner():
  """Of concatenation, four seeds of eight rows."""
  recipe = small_recipe(model__name='concat', num_seeds=4, train__batch_size=8)
  return plan.Planner(recipe, small_spec('regression', ('face', 'pose')), 64, jax.devices())


def test_program_over_a_mesh(planner):
  program = planner.program(8, 'strong')
  assert program.mesh == (4, 2)
  assert (program.share.seeds, program.share.rows) == (1, 4)
  assert program.share.flops == pytest.approx(planner.seed_flops / 2)
  assert program.share.traffic > 4 * 4 * planner.num_params
  assert program.per_call > 1
  (reduce,) = program.collectives  # Gradients, the total and its terms, of the one seed that a device holds.
  assert (reduce.kind, reduce.dtype, reduce.devices, reduce.times) == ('all-reduce', 'f32', 2, program.per_call)
  assert 0 <= reduce.num_bytes - 4 * planner.num_params <= 64
  assert plan.describe_collectives(program) == f'1 all-reduce f32, {reduce.num_bytes / 1000:.1f} kB'
  assert program.memory > 4 * 4 * planner.num_params  # Parameters, their average, two moments.


def test_random_numbers_are_drawn_as_on_an_accelerator(planner):
  # Without loops, from which the compiler could not take the rows of other devices away; the one loop is over steps.
  text = planner._lowered(4, 8, planner._alone, 3).call.lowered.as_text()
  assert text.count('stablehlo.while') == 1


def test_weak_scaling_gives_every_device_along_data_a_batch(planner, monkeypatch):
  monkeypatch.setattr(planner, '_program', lambda mesh, batch: (dict(mesh.shape), batch))
  assert planner.program(8, 'weak') == ({'seed': 4, 'data': 2}, 16)
  assert planner.program(8, 'strong') == ({'seed': 4, 'data': 2}, 8)
  assert planner.program(4, 'weak') == planner.program(4, 'strong') == ({'seed': 4, 'data': 1}, 8)
  # `pmap` spreads rows alone.
  monkeypatch.setattr(planner, 'recipe', small_recipe(num_seeds=4, train__batch_size=8, parallel='pmap'))
  assert planner.program(4, 'weak') == ({'seed': 1, 'data': 4}, 32)


@pytest.mark.slow
def test_devices_that_only_share_seeds_have_one_program_and_send_nothing(planner):
  weak, strong = planner.program(4, 'weak'), planner.program(4, 'strong')
  assert weak is not None
  assert weak == strong
  assert (weak.mesh, weak.collectives) == ((4, 1), ())
  points = {(4, 'weak'): weak, (4, 'strong'): strong}
  ((name, *_, collectives, _),) = plan.program_table(points).rows
  assert (name, collectives) == ('4', 'none')
  (row, *_) = plan.prediction_table(planner.recipe, points, planner.share(1, 8)).rows
  assert row[0] == 'H100 SXM x 4'
  assert row[1:4] == row[4:7]
  assert row[2:4] == ('memory', '100 %')


def test_batch_that_cannot_be_shared_and_mesh_that_does_not_fit(planner):
  odd = plan.Planner(
    small_recipe(model__name='concat', num_seeds=1, train__batch_size=6), planner.spec, 64, jax.devices()
  )
  assert odd.program(4, 'strong') is None
  fixed = small_recipe(model__name='concat', num_seeds=4, mesh__seed=3)
  with pytest.raises(UserError, match=r'config\.mesh\.seed is 3; 8 devices cannot be divided by it'):
    plan.Planner(fixed, planner.spec, 64, jax.devices()).program(8, 'weak')
  with pytest.raises(UserError, match=r'config\.num_seeds is 4; 3 devices share the seeds'):
    plan.Planner(fixed, planner.spec, 64, jax.devices()).program(3, 'weak')


def _compiled(memory, *, devices=1):
  share = plan.Share(1, 8, 1e9, 1e9, 10)
  reduce = (Collective('all-reduce', 'f32', 2**20, devices, 1),)
  return plan.Compiled((1, devices), share, memory, 0, 0, 0, reduce, 1, 0.5)


def test_what_does_not_fit_and_what_there_is_not():
  points = {(512, 'weak'): _compiled(int(20e9), devices=512), (512, 'strong'): None}
  table = plan.prediction_table(small_recipe(), points, _compiled(1).share)
  rows = {row[0]: row[1:] for row in table.rows}
  assert rows['TPU v5e x 512'] == ('-',) * 6 + ('does not fit: 20.00 of 16 GB',)  # Nor is there such a pod.
  assert rows['TPU v6e x 512'] == ('-',) * 6 + ('20.00 of 32 GB',)
  assert rows['TPU v4 x 512'][0].endswith(' ms')
  assert rows['TPU v4 x 512'][3:6] == ('-',) * 3
  full = {(1, s): _compiled(int(90e9)) for s in ('weak', 'strong')}
  rows = {row[0]: row[1:] for row in plan.prediction_table(small_recipe(), full, _compiled(1).share).rows}
  assert rows['H100 SXM x 1'][:2] == ('does not fit', '-')
  assert rows['H200 x 1'][0].endswith(' ms')


def test_plan_refuses(monkeypatch):
  def config(**fields):
    loaded = load_config('configs/synthetic.py')
    for field, value in fields.items():
      group, _, name = field.partition('__')
      loaded[group][name] = value
    return loaded

  for devices in ((), (0,), (8, 5000)):
    with pytest.raises(UserError, match=r'config\.plan\.devices.*; expected'):
      plan.plan(config(plan__devices=devices))
  with pytest.raises(UserError, match='majority, which trains nothing'):
    plan.plan(config(model__name='majority'))
  with pytest.raises(UserError, match='8 CPU devices already; 64'):
    plan.plan(config(plan__devices=(1, 64)))
  monkeypatch.setattr(plan, 'find_method', lambda _: find_method('concat'))
  with pytest.raises(UserError, match='unknown data set'):
    plan.plan(config(data__name='nothing', plan__devices=(1,)))
  assert len(cores.pretend(4)) == 4


@pytest.mark.slow
def test_command_prints_the_plan_without_data_and_writes_nothing(command, tmp_path):
  done = command(
    '--mode=plan',
    '--config=configs/mosi.py:utterance',
    '--config.model.name=concat',
    '--config.num_seeds=2',
    '--config.plan.devices=(2,)',
    f'--config.data.tfds_dir={tmp_path / "tfds"}',
    f'--workdir={tmp_path / "run"}',
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr == ''
  assert 'plan of Concat on mosi_utterance/' in done.stdout
  assert 'number of training samples unknown' in done.stdout
  assert re.search(r'^2 +2 x 1 +1 x 64 .* none ', done.stdout, re.MULTILINE)
  assert re.search(r'^TPU v6e x 2 +\d+\.\d+ ms .* GB$', done.stdout, re.MULTILINE)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_plan_of_mosei_as_the_docs_write_it(command, root, tmp_path):
  done = command('--mode=plan', '--config=configs/mosei.py', '--config.plan.devices=(1, 8)', f'--workdir={tmp_path}/w')
  assert done.returncode == 0, done.stderr
  assert '16,326 training samples' in done.stdout
  total, seed = re.search(r'^([\d.]+) GFLOP .* ([\d.]+) a seed', done.stdout, re.MULTILINE).groups()
  assert float(seed) * 1e9 == pytest.approx(sum(_MOSEI().values()), rel=0.1)
  assert float(total) == pytest.approx(5 * float(seed), rel=1e-3)
  # Gradients of five seeds, and a few numbers beside them.
  assert re.search(r'^8 weak .* 2 all-reduce f32, 8\.8 MB', done.stdout, re.MULTILINE)
  assert re.search(r'^8 strong +1 x 8 +5 x 8 ', done.stdout, re.MULTILINE)
  assert re.search(r'^H200 x 8 +\d+\.\d+ ms .* GB$', done.stdout, re.MULTILINE)
  assert '--mode=plan --config=configs/mosei.py' in (root / 'docs' / 'notebook' / 'scaling.md').read_text()
