"""The commands of this room: see clip4str.core.cli.Command."""

COMMANDS = {
    "build": ("clip4str.export.build_engine", "turn a checkpoint into a bundle", "export"),
}
