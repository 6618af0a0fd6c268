"""Student's t without scipy, for any number of degrees of freedom from 1: from few persons a spread is hardly known.

From the density in the angle a = arctan(t / sqrt(df)), cos(a)**(df - 1), which is smooth and bounded; within 1e-4 of
the exact values, relatively.
"""

from __future__ import annotations

from functools import lru_cache
from math import pi

import numpy as np

from threefold.evidence.bootstrap import Floats

_MANY = 1e6
"""Degrees of freedom from which on t is normal to five digits."""


def t_quantile(level: float, df: float) -> float:
    """How far from 0 Student's t of `df` degrees of freedom stays with probability `level`; NaN for fewer than 1."""
    if not df >= 1:
        return float("nan")
    angle, inside = _student(min(df, _MANY))
    return float(np.sqrt(min(df, _MANY)) * np.tan(np.interp(level, inside, angle)))


def t_beyond(distance: float, df: float) -> float:
    """Probability, 0..1, that Student's t lies farther from 0 than `distance`."""
    angle, inside = _student(min(df, _MANY))
    return float(1 - np.interp(np.arctan(distance / np.sqrt(min(df, _MANY))), angle, inside))


@lru_cache(maxsize=64)
def _student(df: float) -> tuple[Floats, Floats]:
    """Angles a in 0..pi/2 and P(|t| < sqrt(df) tan a)."""
    angle = pi / 2 * np.linspace(0, 1, 20_001) ** 2  # dense at 0, where all of it is when df is large
    density = np.cos(angle) ** (df - 1)
    inside = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) * np.diff(angle))])
    return angle, inside / inside[-1]
