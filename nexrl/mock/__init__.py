"""The import line of the seed documents; the class is at home in nexrl.train_service."""

from nexrl.train_service import MockTrainServiceClient

__all__ = ["MockTrainServiceClient"]
