"""What every model returns, so that one trainer, one evaluation and one notebook API serve them all."""

import flax.struct
import jax


@flax.struct.dataclass
class Outputs:
  """Result of one forward pass; parts that a model does not have are None.

  Attributes:
    prediction: [B, C] logits, log-probabilities (multiclass) or standardised values (regression).
    contributions: [B, M] estimated contribution of each modality: M times its credit, if that is more than 0,
      times the probability that it is there. In classification between 0 and M; equal shares of a fully certain
      prediction give one minus the prior probability of the target, each.
    presence: [B, M] share of the slot that is real content of this sample, as estimated: the probability that there is
      any, times the share of its frames that are trusted (1 for what has no frames).
    gates: [B, M] share of each latent that was replaced by its reconstruction.
    soft_mask: [B, M] weight of each modality's latent in the fusion, reconstructions included.
    unimodal_predictions: [B, M, C] predictions from each modality alone.
    latents: [B, M, D] encoded modalities.
    reconstructions: [B, M, D] what the other modalities say the latent should be.
  """

  prediction: jax.Array
  contributions: jax.Array | None = None
  presence: jax.Array | None = None
  gates: jax.Array | None = None
  soft_mask: jax.Array | None = None
  unimodal_predictions: jax.Array | None = None
  latents: jax.Array | None = None
  reconstructions: jax.Array | None = None
