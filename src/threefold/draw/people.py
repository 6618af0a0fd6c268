"""Drawn people: who they are. Gender, age and the traits that follow from them, loosely, as in life.

No trait gives a label away by itself: it is a mean, a pull by gender, a pull by age and a spread, and gender and age
enter only as they *appear* (`femininity`, `oldness`), with noise that all traits of a person share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from threefold.draw.drawing import Color, Floats, color, mix
from threefold.errors import DataError
from threefold.labels import CUTS, AgeGroup, Gender, age_group

AGES = (16, 75)
"""Youngest and oldest drawn person."""
_DEAL = "YMOMYMOYMYMOYMYOMYOM"
"""Age groups of twenty successive pairs (a man and a woman): 35, 40 and 25 %, and all three among the first three."""
_SPAN = {"Y": (AGES[0], CUTS[0] - 1), "M": (CUTS[0], CUTS[1] - 1), "O": (CUTS[1], AGES[1])}
GENDER_NOISE = 0.36
"""Spread of how feminine a person appears; the genders' means lie 2 apart."""
AGE_NOISE = 2.0
"""Spread, in years, of how old a person appears."""

# trait: mean, pull of femininity (-1..1), pull of oldness (0 at 18, 1 at 73), spread
TRAITS: dict[str, tuple[float, float, float, float]] = {
    "width": (1.0, -0.025, 0.01, 0.035),
    "length": (1.40, -0.045, 0.09, 0.04),
    "square": (2.45, -0.22, 0.1, 0.15),
    "taper": (0.10, 0.03, -0.05, 0.03),
    "eye": (0.212, 0.012, -0.025, 0.009),
    "eye_open": (0.092, 0.011, -0.032, 0.009),
    "eye_x": (0.43, 0.0, 0.0, 0.018),
    "eye_tilt": (0.0, 0.008, -0.015, 0.015),
    "brow_thick": (0.085, -0.022, -0.012, 0.014),
    "brow_y": (-0.28, -0.022, 0.04, 0.02),
    "brow_arch": (0.05, 0.028, 0.0, 0.022),
    "nose_width": (0.2, -0.02, 0.03, 0.02),
    "nose_length": (0.585, -0.018, 0.08, 0.025),
    "mouth_width": (0.35, -0.006, 0.01, 0.025),
    "lip": (0.1, 0.014, -0.042, 0.012),
    "lip_red": (0.46, 0.2, -0.22, 0.14),
    "lash": (0.4, 0.26, -0.1, 0.18),
    "shadow": (0.05, 0.13, 0.0, 0.12),
    "blush": (0.16, 0.08, -0.12, 0.06),
    "neck": (0.62, -0.065, 0.03, 0.05),
    "shoulders": (2.05, 0.0, 0.0, 0.13),
    "ear": (0.26, -0.01, 0.06, 0.02),
    "hair_length": (0.5, 0.36, -0.12, 0.3),
    "hair_volume": (0.17, 0.03, -0.05, 0.05),
    "hairline": (0.7, -0.02, 0.12, 0.045),
    "recede": (0.05, -0.23, 0.5, 0.19),
    "stubble": (0.16, -0.2, 0.02, 0.13),
    "wrinkles": (-0.03, 0.0, 1.05, 0.06),
    "sag": (0.0, 0.0, 1.0, 0.08),
    "bags": (0.05, 0.0, 0.8, 0.11),
    "spots": (0.05, 0.0, 0.8, 0.15),
    "sallow": (0.0, 0.0, 1.0, 0.12),
}
_SKINS = np.array(
    [(247, 217, 199), (238, 198, 170), (222, 176, 142), (196, 146, 112), (152, 104, 78), (112, 76, 58)], np.float32
)
_HAIRS = np.array([(28, 24, 24), (48, 34, 28), (82, 54, 36), (128, 88, 54), (186, 148, 92), (128, 58, 34)], np.float32)
_HAIR_SHARES = (0.32, 0.24, 0.2, 0.1, 0.08, 0.06)
_IRISES = np.array([(58, 38, 26), (88, 58, 34), (70, 100, 130), (84, 110, 80), (110, 120, 128)], np.float32)
_IRIS_SHARES = (0.45, 0.25, 0.14, 0.09, 0.07)
_GREY = color(196, 194, 192)


@dataclass(frozen=True)
class Person:
    """What stays the same over the photos of one drawn person.

    gender, age (whole years), traits (`TRAITS`, drawn), wobble [68, 2] (how this face departs from symmetry, face
    units), colours of skin, hair, brows and irises, beard 0..1, glasses (0 none, 1..3 shapes), parting -1..1,
    fringe 0..1, curl 0..1, spots [N, 3] (x, y, radius in face units).
    """

    gender: Gender
    age: int
    traits: Mapping[str, float]
    wobble: Floats
    skin: Color
    hair: Color
    brows: Color
    iris: Color
    beard: float
    glasses: int
    parting: float
    fringe: float
    curl: float
    spots: Floats

    def __getitem__(self, trait: str) -> float:
        return self.traits[trait]

    @property
    def group(self) -> AgeGroup:
        """Age group that is scored."""
        return AgeGroup(age_group(self.age))


def draw_person(seed: int, index: int) -> Person:
    """Person number `index` of a seed: always the same one, however many others are drawn.

    Pairs (2k, 2k + 1) are a man and a woman of one age group, in random order; ages are uniform within the group.
    Raises DataError for a negative seed or index.
    """
    if min(seed, index) < 0:
        raise DataError(f"seed {seed}, person {index}: expected whole numbers from 0 on")
    swap = int(np.random.default_rng([seed, 0, index // 2]).integers(2))
    gender = Gender((index + swap) % 2)
    rng = np.random.default_rng([seed, 1, index])
    low, high = _SPAN[_DEAL[index // 2 % len(_DEAL)]]
    age = int(rng.integers(low, high + 1))
    femininity = (1 if gender == Gender.FEMALE else -1) + rng.normal(0, GENDER_NOISE)
    apparent = age + rng.normal(0, AGE_NOISE)
    old = float(np.clip((apparent - 18) / 55, -0.05, 1.1))
    traits = {
        name: mean + by_gender * femininity + by_age * old + rng.normal(0, spread)
        for name, (mean, by_gender, by_age, spread) in TRAITS.items()
    }
    tone = rng.uniform(0, len(_SKINS) - 1)
    skin = mix(_SKINS[int(tone)], _SKINS[min(int(tone) + 1, len(_SKINS) - 1)], tone % 1)
    natural = _HAIRS[rng.choice(len(_HAIRS), p=_HAIR_SHARES)] * np.float32(rng.uniform(0.85, 1.15))
    grey = 1 / (1 + np.exp(-(apparent - 52 + rng.normal(0, 4)) / 5))
    dyed, bleached = rng.random() < 0.15 + 0.06 * femininity, rng.random() < 0.05
    hair = mix(natural, _GREY * rng.uniform(0.85, 1.12), 0.75 if bleached else 0.1 * grey if dyed else grey)
    bearded = gender == Gender.MALE and age > 19 and rng.random() < 0.24
    spots = int(min(24, max(0, traits["spots"] * 22)))
    return Person(
        gender=gender,
        age=age,
        traits=traits,
        wobble=rng.normal(0, 0.009, (68, 2)).astype(np.float32),
        skin=np.asarray(skin * np.float32(rng.uniform(0.94, 1.05)), np.float32),
        hair=hair,
        brows=mix(natural, hair, 0.5),
        iris=_IRISES[rng.choice(len(_IRISES), p=_IRIS_SHARES)],
        beard=rng.uniform(0.35, 1) if bearded else 0.0,
        glasses=int(rng.integers(1, 4)) if rng.random() < 0.22 else 0,
        parting=rng.uniform(-0.6, 0.6),
        fringe=rng.uniform(0.3, 1) if rng.random() < 0.25 else 0.0,
        curl=rng.random() ** 2,
        spots=rng.uniform([-0.85, -0.6, 0.012], [0.85, 1.2, 0.05], (spots, 3)).astype(np.float32),
    )
