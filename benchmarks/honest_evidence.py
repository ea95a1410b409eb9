r"""How wrong are single modalities in training, at rates of doubt, against validation? Chooses `config.model.doubt`.

  python benchmarks/honest_evidence.py runs/digits

Recognition learns from the disagreement of single-modality predictions. On training samples they are too good; dropout
at the right rate makes them as wrong as on samples they have not seen. Reads training and validation data only.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax import experiment
from dream_jax.checkpoints import Checkpoints
from dream_jax.config_guard import read_config
from dream_jax.metrics import sample_scores
from dream_jax.models.dream import Dream
from dream_jax.recipe import recipe_from_config

RATES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8)


def main(workdir: str) -> None:
  """Prints the primary metric of each modality alone, mean over seeds."""
  recipe = recipe_from_config(read_config(workdir))
  prepared = experiment.load_prepared(recipe)
  spec = prepared.spec
  with Checkpoints(f'{workdir}/checkpoints/dream', read_only=True) as checkpoints:
    found = checkpoints.restore_best()
  if found is None:
    sys.exit(f'{workdir} holds no selected parameters of dream')
  model = Dream(spec, recipe.model)

  @jax.jit
  def predict(params, inputs, rate, key):
    def one_seed(params):
      z = model.apply({'params': params}, inputs, method='encode')
      z = jnp.where(jax.random.bernoulli(key, 1.0 - rate, z.shape), z / (1.0 - rate), 0.0)
      return model.apply({'params': params}, z, method='unimodal')

    return jax.vmap(one_seed)(params)

  print(f'{"":12s}{"doubt":>8s}' + ''.join(f'{name:>10s}' for name in spec.names))
  for split, rates in (('train', RATES), ('validation', (0.0,))):
    data = prepared.splits[split]
    for rate in rates:
      predictions = np.asarray(predict(found[1], data.features, rate, jax.random.key(0)))
      scores = [
        np.mean([sample_scores(spec, p[:, m], data.label).mean() for p in predictions])
        for m in range(spec.num_modalities)
      ]
      print(f'{split:12s}{rate:8.2f}' + ''.join(f'{score:10.3f}' for score in scores), flush=True)


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  main(sys.argv[1])
