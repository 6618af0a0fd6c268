"""Painting: practice people, and masks on portraits of real ones."""
