"""The verbs that train networks, and what they share: from a recipe and photos to a run directory."""
