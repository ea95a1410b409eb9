"""What a training step costs and how it should scale, before anyone has data or accelerators: nothing is run.

The step is lowered as for an accelerator, compiled by XLA for as many pretended CPU devices as are asked for, and read:
memory and collectives are those of the program over the whole mesh, bytes those of what one device holds. A roofline of
published figures makes seconds of that (`scaling.chips`). docs/accelerators.md says how far to trust it.

Seeds are spread first, as training does it, then the rows of a batch. Strong scaling leaves the batch as the config has
it; weak scaling gives every device along the data axis a batch of its own.

Dimension letters: S seeds, B batch, K steps a call.
"""

import dataclasses
import functools
import time
from typing import Any

import jax
from jax.sharding import Mesh

from dream_jax.config.recipe import Recipe, recipe_from_config
from dream_jax.data.datasets import known_of
from dream_jax.errors import UserError
from dream_jax.machine import cores, memory
from dream_jax.models.registry import build, find_method
from dream_jax.parallel.mesh import mesh_over
from dream_jax.report.table import Table
from dream_jax.scaling.chips import CHIPS, Chip, Prediction, predict
from dream_jax.scaling.hlo import Collective, read_program
from dream_jax.spec import DatasetSpec
from dream_jax.training.programs import Lowered, compiler_options, lower, mesh_of, step_flops
from dream_jax.training.runs import Runs
from dream_jax.training.train import schedule_for

# CPUs draw random numbers in loops, of which the compiler cannot leave out other devices' rows as it does elsewhere.
_PLATFORM = 'tpu'
# Batches of a training set of which nothing is known: so many that calls are as long as they may be.
_UNKNOWN_EPOCH = 10_000
# Seconds to start a kernel on a GPU: a round figure, of which launching several as one graph saves a part.
_START = 3e-6
_SCALING = ('weak', 'strong')
_NOT_IN_IT = (
  'A prediction: step = max(operations / peak, bytes / memory bandwidth) + collectives, nothing overlapped. Not in it:'
  ' starting kernels, matrices too small to fill the units, making batches, validation, checkpoints. See'
  ' docs/accelerators.md.'
)


@dataclasses.dataclass(frozen=True)
class Share:
  """What one device does in a step.

  Attributes:
    seeds: that it trains.
    rows: rows of each seed's batch.
    flops: operations of the model: forward and backward passes, before optimisation by the compiler.
    traffic: bytes that the compiled step reads and writes.
    kernels: that the compiled step starts.
  """

  seeds: int
  rows: int
  flops: float
  traffic: float
  kernels: int


@dataclasses.dataclass(frozen=True)
class Compiled:
  """The program over a whole mesh.

  Attributes:
    mesh: its shape, (devices along seeds, along rows).
    share: what each device does.
    arguments, outputs, temporaries, code: bytes a device; outputs without those that overwrite arguments.
    collectives: the collectives of a call.
    per_call: K.
    seconds: that compiling took.
  """

  mesh: tuple[int, int]
  share: Share
  arguments: int
  outputs: int
  temporaries: int
  code: int
  collectives: tuple[Collective, ...]
  per_call: int
  seconds: float

  @property
  def memory(self) -> int:
    """Bytes a device needs."""
    return self.arguments + self.outputs + self.temporaries + self.code

  def predict(self, chip: Chip, dtype: str) -> Prediction:
    """How long a step takes on such chips."""
    return predict(
      chip,
      dtype,
      flops=self.share.flops,
      traffic=self.share.traffic,
      collectives=self.collectives,
      calls=1 / self.per_call,
    )


def plan(config: Any, workdir: str = '') -> None:
  """Prints the plan of `config.model.name` for the numbers of devices of `config.plan.devices`.

  Args:
    config: a ConfigDict.
    workdir: not read and not written.

  Raises:
    UserError: something in the config is not as it should be, or the shapes of the data set are not known.
  """
  del workdir
  recipe = recipe_from_config(config)
  if find_method(recipe.model.name).module is None:
    raise UserError(f'config.model.name is {recipe.model.name}, which trains nothing; choose a method that does')
  counts = tuple(sorted(set(recipe.plan.devices)))
  devices = cores.pretend(counts[-1])
  data = recipe.data
  spec, sizes = known_of(data.name, tfds_dir=data.tfds_dir, folder=data.dir, options=data.options)
  planner = Planner(recipe, spec, sizes.get('train'), devices)
  print(planner.describe(), flush=True)
  print(f'compiling for {", ".join(map(str, counts))} devices ...', flush=True)
  points = {(n, scaling): planner.program(n, scaling) for n in counts for scaling in _SCALING}
  print()
  print(program_table(points).to_text())
  print(prediction_table(recipe, points, planner.share(recipe.num_seeds, recipe.train.batch_size)).to_text())


class Planner:
  """Compiles one method for meshes and shares of work, each of them once."""

  def __init__(self, recipe: Recipe, spec: DatasetSpec, num_samples: int | None, devices: list[Any]):
    """`num_samples` of the training set; None if unknown."""
    self.recipe, self.spec, self.num_samples, self.devices = recipe, spec, num_samples, devices
    self.method = find_method(recipe.model.name)
    self._alone = mesh_over(devices[:1], 1)
    self._own = self._lowered(recipe.num_seeds, recipe.train.batch_size, self._alone, 1)

  @functools.cached_property
  def num_params(self) -> int:
    """Parameters of one seed."""
    return sum(x.size for x in jax.tree.leaves(self._own.state.params)) // self.recipe.num_seeds

  @functools.cached_property
  def seed_flops(self) -> float:
    """Operations of one seed's gradient of one batch; see `programs.step_flops`."""
    model = build(self.method, self.spec, self.recipe.model, self.recipe.losses)
    flops = step_flops(model, self._own.state.params, self._own.batch)
    assert flops is not None
    return flops

  def describe(self) -> str:
    """What is planned, in a few lines."""
    r, spec = self.recipe, self.spec
    shapes = ', '.join(f'{m.name} {list(m.shape)}' for m in spec.modalities)
    if self.num_samples is None:
      length = 'number of training samples unknown without the data, so the plan is of a step'
    else:
      steps = schedule_for(r, spec, self.num_samples, r.num_seeds).num_steps
      length = f'{self.num_samples:,} training samples, {steps:,} steps a run'
    share = self.share(r.num_seeds, r.train.batch_size)
    lines = [
      f'plan of {self.method.title} on {spec.name} ({spec.data_kind} data): {shapes}; {spec.task}',
      length,
      f'{self.num_params:,} parameters a seed, {self.num_params * r.num_seeds:,} in {r.num_seeds} seeds',
    ]
    lines.append(
      f'{share.flops / 1e9:.4g} GFLOP a step of {r.num_seeds} seeds x {r.train.batch_size} rows,'
      f' {self.seed_flops / 1e9:.4g} a seed; {memory.show(share.traffic)} read and written on one device'
    )
    lines.append(
      f'about {share.kernels:,} kernels a step; at {_START * 1e6:g} us each a GPU needs'
      f' {share.kernels * _START * 1e3:.1f} ms to start them, which no prediction below includes'
    )
    return '\n'.join(lines)

  def program(self, num_devices: int, scaling: str) -> Compiled | None:
    """The program over so many devices; None where they cannot share the batch.

    Raises:
      UserError: the mesh of the config does not fit the devices or the seeds.
    """
    mesh = mesh_of(self.recipe, self.devices[:num_devices])
    along_data, batch = mesh.shape['data'], self.recipe.train.batch_size
    if scaling == 'weak':
      batch *= along_data
    elif batch % along_data:
      return None
    return self._program(mesh, batch)

  def _program(self, mesh: Mesh, batch: int) -> Compiled:
    seeds = self.recipe.num_seeds
    # So many steps a call as training would make: a superbatch is what fills the memory.
    samples = self.num_samples or _UNKNOWN_EPOCH * batch
    per_call = schedule_for(self._recipe(seeds, batch), self.spec, samples, seeds).per_call
    compiled, seconds = self._compiled(seeds, batch, mesh, per_call)
    stats = compiled.memory_analysis()
    assert stats is not None
    shape = mesh.shape['seed'], mesh.shape['data']
    return Compiled(
      mesh=shape,
      share=self.share(seeds // shape[0], batch // shape[1]),
      arguments=stats.argument_size_in_bytes,
      outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
      temporaries=stats.temp_size_in_bytes,
      code=stats.generated_code_size_in_bytes,
      collectives=read_program(compiled.as_text() or '', mesh.size).collectives,
      per_call=per_call,
      seconds=seconds,
    )

  def share(self, seeds: int, rows: int) -> Share:
    """Work of a device that holds so many seeds and rows.

    Compiled alone and one step a call: XLA counts a slice of a larger array, of the gradients that all devices averaged
    or of a superbatch, as if all of it were read.
    """
    compiled, _ = self._compiled(seeds, rows, self._alone, 1)
    flops = self.seed_flops * seeds * rows / self.recipe.train.batch_size
    cost = compiled.cost_analysis()
    assert cost is not None
    kernels = read_program(compiled.as_text() or '', 1).kernels
    return Share(seeds, rows, flops, cost['bytes accessed'], kernels)

  @functools.cache  # noqa: B019  # A planner lives as long as its plan.
  def _compiled(self, seeds: int, batch: int, mesh: Mesh, per_call: int) -> tuple[jax.stages.Compiled, float]:
    """(program of a call, seconds that compiling took)."""
    lowered = self._lowered(seeds, batch, mesh, per_call)
    start = time.perf_counter()
    return lowered.call.lowered.compile(compiler_options(once=True)), time.perf_counter() - start

  @functools.cache  # noqa: B019
  def _lowered(self, seeds: int, batch: int, mesh: Mesh, per_call: int) -> Lowered:
    recipe = self._recipe(seeds, batch)
    return lower(
      self.method,
      recipe,
      self.spec,
      mesh,
      num_steps=1000,  # A number in the program, not a shape.
      per_call=per_call,
      runs=Runs(recipe.seeds),
      platform=_PLATFORM,
    )

  def _recipe(self, seeds: int, batch: int) -> Recipe:
    train = dataclasses.replace(self.recipe.train, batch_size=batch)
    # `pmap` takes the same steps on its mesh, and cannot be lowered for another platform.
    return dataclasses.replace(self.recipe, num_seeds=seeds, train=train, parallel='jit')


def program_table(points: dict[tuple[int, str], Compiled | None]) -> Table:
  """What was compiled; the same program under two names is one row."""
  rows = []
  for (devices, scaling), point in points.items():
    same = points[devices, 'weak'] == points[devices, 'strong']
    if point is None or (same and scaling == 'strong'):
      continue
    rows.append(
      (
        f'{devices}' if same else f'{devices} {scaling}',
        f'{point.mesh[0]} x {point.mesh[1]}',
        f'{point.share.seeds} x {point.share.rows}',
        f'{point.share.flops / 1e9:.3g}',
        *(memory.show(n) for n in (point.share.traffic, point.arguments, point.outputs, point.temporaries)),
        memory.show(point.code) if point.code else '-',
        describe_collectives(point),
        f'{point.seconds:.1f} s',
      )
    )
  columns = ('devices', 'mesh', 'work', 'GFLOP', 'bytes', 'arguments', 'outputs', 'temps', 'code')
  return Table(
    'The compiled step, per device',
    (*columns, 'collectives a step', 'compiled'),
    tuple(rows),
    'mesh: devices along seed x data; work: seeds x rows of a device. weak: every device along data has a batch of its'
    ' own; strong: the batch of the config is divided. GFLOP and bytes (read and written) are of a step. Memory is of a'
    ' call; outputs without those that overwrite arguments; XLA for CPU does not tell the size of its code.',
  )


def describe_collectives(program: Compiled) -> str:
  """Number, kind, element type and bytes, by step."""
  groups: dict[tuple[str, str], list[Collective]] = {}
  for c in program.collectives:
    groups.setdefault((c.kind, c.dtype), []).append(c)
  parts = []
  for (kind, dtype), found in groups.items():
    number = sum(c.times for c in found) / program.per_call
    size = sum(c.times * c.num_bytes for c in found) / program.per_call
    parts.append(f'{number:g} {kind} {dtype}, {memory.show(size)}')
  return '; '.join(parts) or 'none'


def prediction_table(recipe: Recipe, points: dict[tuple[int, str], Compiled | None], alone: Share) -> Table:
  """Step time and efficiency on every chip; `alone` is the work of a single device."""
  dtype = recipe.model.dtype
  rows = []
  for chip in CHIPS:
    single = predict(chip, dtype, flops=alone.flops, traffic=alone.traffic, collectives=()).step
    rate = alone.seeds * alone.rows / single
    for devices in dict.fromkeys(n for n, _ in points):
      cells: list[str] = []
      for scaling in _SCALING:
        cells += _predicted(chip, dtype, devices, points[devices, scaling], rate)
      found = [p.memory for s in _SCALING if (p := points[devices, s])]
      rows.append((f'{chip.name} x {devices}', *cells, _memory(chip, max(found))))
  return Table(
    f'Predicted step, {dtype}',
    ('', *(f'{s} {c}' for s in _SCALING for c in ('step', 'bound', 'efficiency')), 'memory'),
    tuple(rows),
    'efficiency: rows a second and device over those of one device; seeds are spread first, then rows. bound: what the'
    f' step waits for most. -: {recipe.train.batch_size} rows cannot be divided so, or no such machine. {_NOT_IN_IT}',
  )


def _predicted(chip: Chip, dtype: str, devices: int, program: Compiled | None, rate: float) -> tuple[str, str, str]:
  """Cells of one program on one chip."""
  if program is None or devices > (chip.network.largest or devices):
    return '-', '-', '-'
  if program.memory > chip.memory:
    return 'does not fit', '-', '-'
  predicted = program.predict(chip, dtype)
  own = program.share.seeds * program.share.rows / predicted.step
  return f'{predicted.step * 1e3:.3f} ms', predicted.bound, f'{100 * own / rate:.0f} %'


def _memory(chip: Chip, needed: int) -> str:
  share = f'{needed / 1e9:.2f} of {chip.memory / 1e9:.0f} GB'
  return f'does not fit: {share}' if needed > chip.memory else share
