"""Images for the tasks, one DataModule a file."""
