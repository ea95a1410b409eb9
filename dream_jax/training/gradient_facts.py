"""What the log of a training says of the modalities' gradients: their norms, and how unequal they are."""

from typing import Any

import numpy as np

from dream_jax.errors import UserError
from dream_jax.training.train import Trainer
from dream_jax.workdir.metrics_log import METRICS_FILE, read_metrics


def gradient_facts(folder: str, trainer: Trainer, run: str) -> dict[str, Any]:
  """Norms of the encoders' gradients over training, by modality, and how unequal they are, for `results.json`.

  Args:
    folder: the folder of the run.
    trainer: the trainer of its method.
    run: what every line of the log has to belong to.

  Raises:
    UserError: lines of the log are damaged, missing or of another run.
  """
  names, s = trainer.prepared.spec.names, trainer.schedule
  found = [record for _, record in read_metrics(folder, run=run) if 'loss' in record]
  steps = [record['step'] for record in found]
  if steps != list(range(s.per_call, s.num_steps + 1, s.per_call)):
    raise UserError(f'{folder}/{METRICS_FILE} lacks steps of the training; remove {folder}: its run is made again')
  if f'gradient_norm/{names[0]}' not in found[0]:
    return {}
  each = [[record[f'gradient_norm/{name}'] for record in found] for name in names]
  norms = np.array(each, np.float64)  # [M, calls, S]
  ratio = norms.max(0) / np.maximum(norms.mean(0), 1e-12)
  return {
    'gradient_steps': steps,
    'gradient_norms': {name: norms[m].mean(1).tolist() for m, name in enumerate(names)},
    'gradient_imbalance': ratio.mean(0).tolist(),
  }
