"""The command `ccms`: everything the typed client can do, from a terminal."""
