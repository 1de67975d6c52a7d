"""Demonstration on generated data: an invented film collection, a small CLIP, and the complete pipeline."""
