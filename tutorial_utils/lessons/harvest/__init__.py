"""For the lesson on many prompts and many devices: its checks."""
