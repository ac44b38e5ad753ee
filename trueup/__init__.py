"""The common ground: what every room speaks. Imports nothing else of ours."""

__version__ = "0.1.0"
