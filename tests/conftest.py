"""For all tests: torch's threads sleep while they wait, as in the worker; spinning ones starve what else runs here."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
