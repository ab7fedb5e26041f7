"""One thread for every test: small products on two threads spend their time waiting for each other."""

import torch

torch.set_num_threads(1)
