"""For all tests: the checkout is on the path, and what a test starts may compile what it imports."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

# Programs under test look for no sidecar of somebody else's, and their memory is that of compiled modules.
for name in [*(name for name in os.environ if name.startswith("OOMGUARD_")), "PYTHONDONTWRITEBYTECODE"]:
    if name != "OOMGUARD_TEST_REAL":
        os.environ.pop(name, None)
