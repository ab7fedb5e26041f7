"""Fast weights (Ba et al. 2016, Hinton and Plaut 1987) for memory in reinforcement learning.

`import fw_rl` registers the ids of Catch, the retrieval game and POPGym's games with Gymnasium and is light: it imports
neither PyTorch nor Stable-Baselines3. `fw_rl.envs` holds games and adapters, `fw_rl.agents` the agents; the names that most
scripts need can be imported from here too, as from `stable_baselines3`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

_HERE, _LINKS = Path(__file__).parent, ("agents", "envs")
# A checkout on Windows and an unpacked zip have text files in place of the links to the folders beside this one.
if not all((_HERE / name).is_dir() for name in _LINKS) and all((_HERE.parent / name).is_dir() for name in _LINKS):
    __path__.append(str(_HERE.parent))

from fw_rl.interrupts import end_at_once, is_command_line  # noqa: E402 (which may be found only now)

if is_command_line():
    end_at_once()

from fw_rl.envs import register_catch, register_popgym, register_retrieval  # noqa: E402
from fw_rl.modules import import_on_demand  # noqa: E402

if TYPE_CHECKING:
    from fw_rl.agents import A3C, Player, RecurrentA2C, RecurrentPPO

__all__ = ["A3C", "Player", "RecurrentA2C", "RecurrentPPO"]

__version__ = "0.2.0"

__getattr__, __dir__ = import_on_demand(__name__, dict.fromkeys(__all__, "fw_rl.agents"))

register_catch()
register_retrieval()
register_popgym()
