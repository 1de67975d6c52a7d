"""Inference with a trained model: from Python, on files, and on a local web page."""
