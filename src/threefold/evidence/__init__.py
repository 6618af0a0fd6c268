"""Numbers on `Predictions`: scores, intervals, verdicts, decisions.

Numpy, and scikit-learn for ages of suspects; never torch, never a photo.
"""
