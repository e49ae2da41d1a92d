"""The commands of this room: see clip4str.core.cli.Command."""

COMMANDS = {
    "export": ("clip4str.export.single_file.export_command", "write a bundle as one ONNX file", "export"),
    "build": ("clip4str.export.build_engine", "turn a checkpoint into a bundle", "export"),
}
