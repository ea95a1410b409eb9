"""Pickles of strangers, read without running what they say."""
