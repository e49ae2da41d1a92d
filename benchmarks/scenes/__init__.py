"""Generated videos whose words, quads and times are known to the frame."""
