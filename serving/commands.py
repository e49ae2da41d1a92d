"""The commands of this room: see clip4str.core.cli.Command."""

COMMANDS = {
    "batch": ("clip4str.serving.batch.batch_command", "read very many pictures and videos into Parquet", "batch"),
    "serve": ("clip4str.serving.serve_command", "serve words to other machines"),
}
