"""Photos in, readings out. Torch only inside the torch backend, when a run is opened."""
