"""What workers do in the tests of `fw_rl.processes`, apart from these so that a worker need not import what they do."""

import multiprocessing
import os
import signal
import time


def count(send, end, shared, who=None):
    for i in range(end):
        shared.add_(1)
        send((who, i))


def describe(send):
    import torch

    threads = {os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    send(dict(torch=torch.get_num_threads(), environment=threads, parent=multiprocessing.parent_process().pid))
    os.kill(os.getpid(), signal.SIGINT)
    send("deaf")


def say(send, *reports):
    for report in reports:
        send(report)


def wait(send, *ignored):
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    send(os.getpid())
    time.sleep(1000)


def fail(send, error):
    send("fine so far")
    raise error


def leave(send, code):
    os._exit(code)


def give_up(send):
    os.kill(os.getpid(), signal.SIGKILL)
