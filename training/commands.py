"""The commands of this room: see clip4str.core.cli.Command."""

COMMANDS = {
    "atlas": ("clip4str.training.atlas_command", "draw the machine's fonts into an atlas to train from", "train"),
    "train": ("clip4str.training.train", "train or continue training a network", "train"),
}
