"""Frozen networks that features are read from."""
