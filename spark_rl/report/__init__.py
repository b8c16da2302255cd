"""Runs to look at: in the terminal and as one HTML file, read from run directories alone."""
