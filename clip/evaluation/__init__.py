"""Predictions, metrics and costs of trained models."""
