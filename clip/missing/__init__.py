"""Missing cases and the masks that assign them to samples."""
