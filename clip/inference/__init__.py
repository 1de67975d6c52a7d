"""Inference with a trained model: from Python, on files, and on a local web page."""

from clip.inference.predict import predict
from clip.inference.predictor import Predictor, load_predictor
from clip.inference.web import serve

__all__ = ["Predictor", "load_predictor", "predict", "serve"]
