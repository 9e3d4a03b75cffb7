"""tickcast: ticks in, forecasts with honest uncertainty out, and a score for every one of them."""

__version__ = "0.1.0"
