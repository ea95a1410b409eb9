"""Losses that every method shares, so that a comparison compares methods."""

import jax
import jax.numpy as jnp

from dream_jax.models import evidence
from dream_jax.spec import DatasetSpec


def task_loss(spec: DatasetSpec, prediction: jax.Array, label: jax.Array) -> jax.Array:
  """Mean loss of predictions [B, C]: cross-entropy, or Huber distance of a standardised target."""
  return -evidence.score(spec, prediction, label).mean()


def label_of_each(predictions: jax.Array, label: jax.Array) -> jax.Array:
  """`label` [B, ...] repeated for each of several predictions [B, M, C]."""
  return jnp.broadcast_to(label[:, None], (*predictions.shape[:2], *label.shape[1:]))


def unimodal_loss(spec: DatasetSpec, predictions: jax.Array, label: jax.Array) -> jax.Array:
  """Sum over modalities of the task loss of predictions [B, M, C]."""
  return -evidence.score(spec, predictions, label_of_each(predictions, label)).mean(0).sum()
