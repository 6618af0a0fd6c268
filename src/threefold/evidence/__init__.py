"""Numbers on `Predictions`: scores, intervals, verdicts, decisions. Numpy only; never torch, never a photo."""
