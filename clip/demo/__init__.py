"""Demonstration on generated data: an invented film collection, a small CLIP, and the complete pipeline."""

from clip.demo.films import SIZES, write_raw

__all__ = ["SIZES", "write_raw"]
