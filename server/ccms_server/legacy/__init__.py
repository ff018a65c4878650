"""The files of the predecessor: those it left behind are imported, and those it can load are written."""
