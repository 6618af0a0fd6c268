"""What every test runs under."""

import os
import sys
from pathlib import Path

from hypothesis import settings

# networks here are tiny, and threads that wait for each other cost more than they bring
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a busy machine is no fault of the code, and CI is to say the same about the same commit every time
settings.register_profile("house", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("house")

# what is no part of the package but is tested: the generator of the reference of components
sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
