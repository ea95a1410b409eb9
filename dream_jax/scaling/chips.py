"""Published figures of accelerators, and what they say a step should take: a roofline, with collectives on top.

Sources. NVIDIA data sheets "H100 Tensor Core GPU" (SXM) and "H200 Tensor Core GPU": dense figures, half of those with
sparsity; NVLink's 900 GB/s are both directions. Eight GPUs are one NVLink domain (DGX H100 user guide), beyond it every
GPU has one 400 Gbit/s port (ConnectX-7, NDR InfiniBand). Cloud TPU documentation, pages "TPU v4", "TPU v5e", "TPU v5p"
and "TPU v6e": bfloat16 peak, memory, interconnect of a chip over all its ports in one direction, torus, size of a pod.
For v6e the page now gives 1600 GB/s and 3200 Gbit/s and gave 1640 and 3584 before.

float32. XLA's default precision multiplies float32 matrices as TF32 on these GPUs and in one pass of bfloat16 on TPUs,
so that is what float32 programs are held against; what is not a matrix product is slower on all of them.

Latencies are not published. GPUs: what NCCL's own cost model assumes for a hop of its rings (`src/graph/tuning.cc`,
Hopper, protocol LL128). TPUs: one microsecond a hop, a round figure.
"""

import dataclasses
import math

from dream_jax.scaling.hlo import Collective

# Passes of the whole array along the ring: an all-reduce is a reduce-scatter and an all-gather.
_PASSES = {'all-reduce': 2, 'all-gather': 1, 'reduce-scatter': 1, 'all-to-all': 1, 'collective-permute': 1}


@dataclasses.dataclass(frozen=True)
class Network:
  """How chips of a kind are connected.

  Attributes:
    link: bytes a second that a chip sends to its neighbours, over all its links.
    hop: seconds of latency a hop.
    node: GPUs of one NVLink domain; 0 for a torus.
    far_link: bytes a second of a GPU to other nodes.
    far_hop: seconds of latency between nodes.
    axes: number of axes of the torus.
    closed_from: chips from which its axes are closed rings; below, a chip uses half of its links.
    largest: chips that are connected this way; 0 for any number.
  """

  link: float
  hop: float
  node: int = 0
  far_link: float = 0.0
  far_hop: float = 0.0
  axes: int = 0
  closed_from: int = 0
  largest: int = 0


@dataclasses.dataclass(frozen=True)
class Chip:
  """One accelerator.

  Attributes:
    name: how tables call it.
    float32: operations a second of matrix products of float32 at XLA's default precision.
    bfloat16: the same of bfloat16.
    memory: bytes.
    bandwidth: bytes a second between memory and chip.
    network: to others of its kind.
  """

  name: str
  float32: float
  bfloat16: float
  memory: float
  bandwidth: float
  network: Network

  def peak(self, dtype: str) -> float:
    """Operations a second of matrix products: 'float32' or 'bfloat16'."""
    return self.bfloat16 if dtype == 'bfloat16' else self.float32


_NVLINK = Network(link=450e9, hop=1.9e-6, node=8, far_link=50e9, far_hop=4.0e-6)


def _tpu(name: str, peak: float, memory: float, bandwidth: float, link: float, *, axes: int, pod: int) -> Chip:
  network = Network(link=link, hop=1e-6, axes=axes, closed_from=256 if axes == 2 else 64, largest=pod)
  return Chip(name, peak, peak, memory, bandwidth, network)


CHIPS = (
  Chip('H100 SXM', 494.7e12, 989.4e12, 80e9, 3.35e12, _NVLINK),
  Chip('H200', 494.7e12, 989.4e12, 141e9, 4.8e12, _NVLINK),
  _tpu('TPU v4', 275e12, 32e9, 1.2e12, 2400e9 / 8, axes=3, pod=4096),
  _tpu('TPU v5e', 197e12, 16e9, 0.819e12, 1600e9 / 8, axes=2, pod=256),
  _tpu('TPU v5p', 459e12, 95e9, 2.765e12, 4800e9 / 8, axes=3, pod=8960),
  _tpu('TPU v6e', 918e12, 32e9, 1.6e12, 3200e9 / 8, axes=2, pod=256),
)


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Seconds of one step of one device.

  Attributes:
    compute: all operations at the chip's peak.
    traffic: all bytes at the bandwidth of its memory.
    communication: collectives, none of them hidden behind the rest.
  """

  compute: float
  traffic: float
  communication: float

  @property
  def step(self) -> float:
    return max(self.compute, self.traffic) + self.communication

  @property
  def bound(self) -> str:
    """What the step waits for most."""
    parts = {'compute': self.compute, 'memory': self.traffic, 'network': self.communication}
    return max(parts, key=lambda name: parts[name])


def predict(
  chip: Chip, dtype: str, *, flops: float, traffic: float, collectives: tuple[Collective, ...], calls: float = 1.0
) -> Prediction:
  """How long one device takes for a step.

  Args:
    chip: what it is.
    dtype: that matrix products are computed in.
    flops: operations of one device in one step.
    traffic: bytes that the step reads and writes.
    collectives: the collectives of one call of the program.
    calls: how much of a call a step is.
  """
  network = chip.network
  seconds = sum(c.times * collective_seconds(network, c.kind, c.num_bytes, c.devices) for c in collectives)
  return Prediction(flops / chip.peak(dtype), traffic / chip.bandwidth, seconds * calls)


def collective_seconds(network: Network, kind: str, num_bytes: float, devices: int) -> float:
  """Seconds of one collective among neighbouring devices.

  A ring of n devices sends (n - 1)/n of the array a pass, twice for an all-reduce. Between nodes of GPUs each of the g
  devices of a node carries its g-th part, so the ring inside the nodes and the ring between them follow each other. A
  torus sends along all its axes at once, and its hops are those along each axis after another.

  Args:
    network: how they are connected.
    kind: one of `hlo.COLLECTIVES`.
    num_bytes: see `Collective`.
    devices: how many take part.
  """
  if devices == 1:
    return 0.0
  passes = _PASSES[kind]
  if not network.node:
    link = network.link if devices >= network.closed_from else network.link / 2
    hops = network.axes * (devices ** (1 / network.axes) - 1)
    return passes * ((devices - 1) / devices * num_bytes / link + hops * network.hop)
  near, nodes = min(devices, network.node), math.ceil(devices / network.node)
  # What goes from each to each cannot be summed up inside a node first.
  part = num_bytes if kind in ('all-to-all', 'collective-permute') else num_bytes / near
  inside = (near - 1) / near * num_bytes / network.link + (near - 1) * network.hop
  between = (nodes - 1) / nodes * part / network.far_link + (nodes - 1) * network.far_hop
  return passes * (inside + between)
