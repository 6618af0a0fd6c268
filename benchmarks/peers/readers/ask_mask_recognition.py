"""PyPI mask-recognition: its own network and transform on the crop; its detector (MTCNN) is left out.

Its constructor downloads ImageNet weights only to overwrite them with its own; here it starts without them. It never
switches its network to evaluation, so that batch norm goes by the one face in the batch. That is left as it is: over
900 photos the package reads 92.1 % right so, and 90.8 % switched.
"""

from __future__ import annotations

import numpy as np
import torch
from jobs import answer_all
from torchvision import models

mobilenet_v2 = models.mobilenet_v2
models.mobilenet_v2 = lambda *_, **__: mobilenet_v2(weights=None)

from mask_recognition import MaskRecognition  # noqa: E402

torch.set_num_threads(1)
reader = MaskRecognition(device=-1)
MEANING = {"with_mask": "worn", "without_mask": "none"}


def read(image: np.ndarray, _: list[int] | None) -> dict:
    with torch.inference_mode():
        said, percent = reader._predict(image)
    worn = percent / 100 if said == "with_mask" else 1 - percent / 100
    return {"mask": MEANING[said], "worn": worn}


answer_all(read)
