"""The commands of this room: see clip4str.core.cli.Command."""

COMMANDS = {
    "serve": ("clip4str.serving.serve_command", "serve words to other machines"),
}
