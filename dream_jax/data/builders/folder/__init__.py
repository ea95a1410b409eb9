"""The user's own data: a folder with dataset.toml and .npz or Parquet files."""
