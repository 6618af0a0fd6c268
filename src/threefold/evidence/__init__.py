"""What can be claimed. Numpy on `Predictions` only; never torch, never a photo."""
