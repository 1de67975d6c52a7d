"""A trained model at work: from Python, over files, and on a page of its own."""

from clip.prediction.export import export
from clip.prediction.over_files import predict
from clip.prediction.predictor import Predictor, load_predictor
from clip.prediction.server import serve

__all__ = ["Predictor", "export", "load_predictor", "predict", "serve"]
