"""Drawn people: who they are. Gender, age and the traits that follow from them, loosely, as in life.

No trait gives a label away by itself: it is a mean, a pull by gender, a pull by age and a spread, and gender and age
enter only as they *appear* (`femininity`, `oldness`), with noise that all traits of a person share.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from threefold.draw.drawing import Floats, mix
from threefold.errors import DataError
from threefold.labels import CUTS, AgeGroup, Gender, age_group

AGES = (16, 75)
"""Youngest and oldest drawn person."""
_DEAL = (0, 1, 2, 1, 0, 1, 2, 0, 1, 0, 1, 2, 0, 1, 0, 2, 1, 0, 2, 1)
"""Age groups of twenty successive pairs (a man and a woman): 35, 40 and 25 %, and all three among the first three."""

# trait: mean, pull of femininity (-1..1), pull of oldness (0 at 18, 1 at 73), spread
TRAITS: dict[str, tuple[float, float, float, float]] = {
    "width": (1.0, -0.03, 0.01, 0.035),
    "length": (1.40, -0.045, 0.09, 0.04),
    "square": (2.45, -0.22, 0.1, 0.15),
    "eye": (0.212, 0.012, -0.025, 0.009),
    "eye_open": (0.092, 0.011, -0.032, 0.009),
    "eye_x": (0.43, 0.0, 0.0, 0.018),
    "brow_thick": (0.09, -0.028, -0.012, 0.02),
    "brow_y": (-0.28, -0.025, 0.04, 0.022),
    "nose_width": (0.2, -0.02, 0.03, 0.02),
    "nose_length": (0.585, -0.018, 0.08, 0.025),
    "mouth_width": (0.35, -0.006, 0.01, 0.025),
    "lip": (0.1, 0.014, -0.042, 0.012),
    "lip_red": (0.46, 0.25, -0.22, 0.17),
    "lash": (0.4, 0.26, -0.1, 0.18),
    "hair_length": (0.5, 0.4, -0.12, 0.27),
    "recede": (0.05, -0.23, 0.5, 0.19),
    "stubble": (0.12, -0.26, 0.02, 0.18),
    "wrinkles": (-0.03, 0.0, 1.05, 0.06),
    "glasses": (0.0, 0.0, 0.0, 1.0),
}
_SKINS = np.array([(247, 217, 199), (229, 187, 155), (196, 146, 112), (152, 104, 78), (112, 76, 58)], np.float32)
_HAIRS = np.array([(28, 24, 24), (48, 34, 28), (82, 54, 36), (128, 88, 54), (186, 148, 92)], np.float32)
_GREY, _SALLOW = np.array([(196, 194, 192), (208, 186, 150)], np.float32)


@dataclass(frozen=True)
class Person:
    """What stays the same over the photos of one drawn person.

    gender, age (whole years), traits (`TRAITS`, drawn), colours of skin and hair (RGB, 0..255).
    """

    gender: Gender
    age: int
    traits: Mapping[str, float]
    skin: Floats
    hair: Floats

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
    group = _DEAL[index // 2 % len(_DEAL)]
    age = int(rng.integers((AGES[0], *CUTS)[group], (*CUTS, AGES[1] + 1)[group]))
    femininity = (1 if gender == Gender.FEMALE else -1) + rng.normal(0, 0.25)
    apparent = age + rng.normal(0, 2)
    oldness = float(np.clip((apparent - 18) / 55, -0.05, 1.1))
    traits = {
        name: mean + by_gender * femininity + by_age * oldness + rng.normal(0, spread)
        for name, (mean, by_gender, by_age, spread) in TRAITS.items()
    }
    tone = rng.uniform(0, len(_SKINS) - 1)
    skin = mix(_SKINS[int(tone)], _SKINS[int(tone) + 1], tone % 1)
    hair = _HAIRS[int(len(_HAIRS) * rng.random() ** 1.5)]
    grey = 1 / (1 + np.exp(-(apparent - 52 + rng.normal(0, 7)) / 5))
    skin = mix(skin, _SALLOW * (skin.mean() / 190), 0.45 * traits["wrinkles"])
    return Person(gender, age, traits, skin, mix(hair, _GREY * rng.uniform(0.85, 1.12), grey))
