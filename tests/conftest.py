"""What every test can rely on, however pytest was started.

One thread: small products on two threads spend their time waiting for each other. And Ctrl-C works: a shell that starts a
command in the background has it ignore the signal, which the processes that tests start would inherit.
"""

import signal

import torch

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
