"""The commands of this room: see clip4str.core.cli.Command."""

COMMANDS = {
    "dataset": ("clip4str.data.dataset_command", "turn pictures and a label file into a data set"),
}
