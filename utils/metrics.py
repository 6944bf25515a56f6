"""The public name of the threshold sweep; it lives in utils.scores.threshold_sweep."""

from utils.scores.threshold_sweep import ThresholdSweep

__all__ = ["ThresholdSweep"]
