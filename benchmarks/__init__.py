"""How right and how fast: accuracy on the standard word sets, latency beside the published way of decoding."""
