"""Weights and tokenizers of the frozen backbones."""
