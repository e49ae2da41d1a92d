"""What every room speaks: errors, characters and captions, byte pairs, masks, the order of predict and refine, whole
files, the console. numpy alone, and nothing of the rooms above."""
