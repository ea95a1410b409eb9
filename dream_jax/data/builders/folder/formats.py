"""Which reader a data file gets."""

from dream_jax.data.builders.folder.npz_table import NpzTable
from dream_jax.data.builders.folder.tables import Table


def open_table(path: str) -> Table:
  """The data file at `path`.

  Raises:
    UserError: it cannot be read, or pyarrow is needed and not there.
  """
  if path.endswith('.npz'):
    return NpzTable(path)
  from dream_jax.data.builders.folder.parquet_table import ParquetTable  # It loads pyarrow.

  return ParquetTable(path)
