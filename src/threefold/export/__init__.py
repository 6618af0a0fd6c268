"""A run as one ONNX file, and the proof that it answers as the run does."""
