"""The commands of this room: see clip4str.core.cli.Command."""

COMMANDS = {
    "eval": ("clip4str.benchmarks.accuracy", "word accuracy over labelled LMDB folders", "bench"),
    "bench": ("clip4str.benchmarks.latency", "latency, side by side with the published way of decoding", "bench"),
}
