"""Fast weights (Ba et al. 2016, Hinton and Plaut 1987) for memory in reinforcement learning.

`import fw_rl` registers the ids of Catch with Gymnasium and is light: it imports neither PyTorch
nor Stable-Baselines3. `fw_rl.envs` holds Catch, `fw_rl.agents` the agents that play it.
"""

from fw_rl.envs import register_catch

__version__ = "0.1.0"

register_catch()
