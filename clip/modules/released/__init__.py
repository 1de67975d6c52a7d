"""Readers for checkpoints of the papers' own code."""
