"""Runs as a library: settings, agents, folders, training, searches of settings, tables and pictures."""
