"""Train an agent with memory: `python train.py --env Catch-16-3`. See `python train.py --help`."""

import sys

from fw_rl.__main__ import run

if __name__ == "__main__":
    sys.exit(run("train", sys.argv[1:], program="python train.py"))
