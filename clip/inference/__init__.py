"""A trained model at work: from Python, over files, and on a page of its own."""

from clip.inference.predict import predict
from clip.inference.predictor import Predictor, load_predictor
from clip.inference.web import serve

__all__ = ["Predictor", "load_predictor", "predict", "serve"]
