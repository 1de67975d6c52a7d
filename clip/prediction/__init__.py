"""A trained model at work: from Python, over files, and on a page of its own."""

from clip.prediction.over_files import predict
from clip.prediction.predictor import Predictor, load_predictor
from clip.prediction.server import serve

__all__ = ["Predictor", "load_predictor", "predict", "serve"]
