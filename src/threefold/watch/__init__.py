"""An entrance: a camera, a stream or a recording, one event per person. Needs no web framework but for the monitor."""
