"""The command line. Each command is a module of its own that is imported when the command is asked for."""
