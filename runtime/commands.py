"""The commands of this room: see clip4str.core.cli.Command."""

COMMANDS = {
    "read": ("clip4str.runtime.read_command", "read the words in images", "", False),
    "info": ("clip4str.runtime.info_command", "show what a bundle or checkpoint is", "", False),
}
