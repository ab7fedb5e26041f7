"""The commands: a thin file for each, around `fw_rl.experiments` and `fw_rl.tasks`."""
