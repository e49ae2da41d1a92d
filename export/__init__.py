"""Checkpoint -> bundle. build_engine.py is the command."""

import os

# OpenMP's threads spin while they wait: on a machine that does anything else besides, the many small operators
# of a decoder then take 50 times as long. Read once, when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
