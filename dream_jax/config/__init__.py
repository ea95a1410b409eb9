"""A config: every field with its default, range and meaning."""
