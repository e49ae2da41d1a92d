"""The commands of this room: see clip4str.core.cli.Command."""

COMMANDS = {
    "train": ("clip4str.training.train", "train or continue training a network", "train"),
}
