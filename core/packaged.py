"""The network that comes with the package, as a bundle ready to be read with; export/ship.py writes it."""

from pathlib import Path

PACKAGED = Path(__file__).resolve().parents[1] / "model" / "bundled" / "clip4str-small"
