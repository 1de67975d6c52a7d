"""The command line: checks of its arguments, settings, and the commands."""
