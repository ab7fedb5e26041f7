"""What the commands share: a run's settings, its agent and folder, searches of settings, tables and pictures."""
