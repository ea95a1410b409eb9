"""Trains, evaluates and compares methods, and continues what was interrupted."""
