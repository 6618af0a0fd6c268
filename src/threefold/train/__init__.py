"""The verbs that train networks, and what they share: from a recipe and photos to a run directory.

The module of a verb does not import torch when it is imported itself: it checks what is asked (`request.py`) and
imports the rest then, so that a typo is answered at once.
"""
