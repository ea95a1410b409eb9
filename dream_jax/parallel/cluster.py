"""How the processes of a program find each other, as the command line says it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cluster:
  """How the processes of a program find each other.

  Attributes:
    coordinator: 'HOST:PORT' of process 0; None where the cluster says it: Cloud TPU, GKE, Slurm.
    num_processes: how many there are; None likewise.
    process_id: which one this is; None likewise.
  """

  coordinator: str | None = None
  num_processes: int | None = None
  process_id: int | None = None
