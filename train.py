"""Train an agent with memory: `python train.py --env Catch-16-3`. See `python train.py --help`."""

import sys

from fw_rl.commands.train import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], program="python train.py"))
