"""The settings of a training run: from the command line, the tuned values and the defaults to one complete record."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
import yaml

from fw_rl.agents.optimization import OPTIMIZERS, PRECISIONS
from fw_rl.cells import find_cell
from fw_rl.experiments.checks import check_count, flag
from fw_rl.experiments.environments import environment_id
from fw_rl.modules import without_module

__all__ = [
    "NOT_ON_RAY",
    "ONLY_PPO",
    "RunSettings",
    "TrainOptions",
    "check_device",
    "check_settings",
    "check_workers",
    "parse_cell_options",
    "resolve",
]

WORKERS = {"local": {"a2c": 1, "a3c": 2, "ppo": 1}, "ray": {"impala": 2, "ppo": 2}}
"""The algorithms of each engine, the first by default, and how many processes each has by default."""

NOT_ON_RAY = ("optimizer", "normalize_advantage", "matmul_precision")
"""What RLlib does in its own way."""

ONLY_PPO = ("n_epochs", "batch_size", "clip_range")
"""What PPO alone has, and RLlib's in its own way."""


def _option(metavar: str, default: str) -> object:
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


_TunedInt = Annotated[int | None, _option("INT", "tuned")]
_TunedFloat = Annotated[float | None, _option("FLOAT", "tuned")]


@dataclass(frozen=True)
class TrainOptions:
    """Train an agent with memory on a Gymnasium environment.

    What is left out takes the tuned value for the environment and the cell, or a sound default.
    """

    env: Annotated[str | None, _option("ID", "Catch-16-3")] = None
    """Environment: Catch-N-M (N x N pixels, M frames seen), Catch-N-M-D (and D distracting pixels), or any Gymnasium id; as
    module:id it is one that a module registers, such as minigrid:MiniGrid-MemoryS7-v0."""
    cell: Annotated[str | None, _option("NAME", "fast-weights")] = None
    """Memory cell: fast-weights, rnn, lstm, gru, associative-lstm, or module:name for one that a module registers."""
    engine: Annotated[str | None, _option("NAME", "local")] = None
    """local, or ray: workers act on the machines of a Ray cluster, and this process learns (pip install 'fw-rl[ray]')."""
    ray_address: Annotated[str | None, _option("HOST:PORT", "none")] = None
    """A running Ray cluster, or auto for that of this machine; else Ray is started here, and ended after the run."""
    algo: Annotated[str | None, _option("NAME", "a2c, or impala on Ray")] = None
    """Algorithm: a2c (all environments act, then one update), ppo (then many updates), or a3c (workers update shared parameters
    without waiting); on Ray impala or ppo."""
    workers: Annotated[int | None, _option("INT", "1 for a2c and ppo, else 2")] = None
    """Processes. Those of a3c act and learn; with more than one, a2c and ppo let them step their environments, if these are
    slow. On Ray they act."""
    timesteps: _TunedInt = None
    """Frames to train on, counted over all environments."""
    seed: Annotated[int | None, _option("INT", "0")] = None
    """Seed of networks, environments and actions."""
    n_envs: _TunedInt = None
    """Environments that are played side by side, over all workers."""
    n_steps: _TunedInt = None
    """Steps of each environment between two updates."""
    n_epochs: _TunedInt = None
    """How often ppo learns from these steps."""
    batch_size: _TunedInt = None
    """Steps of a minibatch of ppo, in whole sequences of n_steps."""
    clip_range: _TunedFloat = None
    """How far ppo may change the probability of an action: by this share of it, up or down."""
    hidden_size: _TunedInt = None
    """Units of the memory cell."""
    cell_options: Annotated[tuple[str, ...] | None, _option("NAME=VALUE ...", "tuned")] = None
    """Options of the cell, such as eta=0.1 decay=0.95 inner_steps=2 rule=delta."""
    previous_step: Annotated[bool | None, _option("{True,False}", "tuned")] = None
    """Let the agent see its last action and reward beside each observation."""
    normalize: Annotated[bool | None, _option("{True,False}", "False")] = None
    """Scale observations and rewards by their running mean and deviation, by SB3's VecNormalize."""
    optimizer: Annotated[str | None, _option("NAME", "tuned")] = None
    """rmsprop or adam."""
    learning_rate: _TunedFloat = None
    """Learning rate at the start."""
    anneal: Annotated[bool | None, _option("{True,False}", "tuned")] = None
    """Let the learning rate go down to 0 over the run."""
    anneal_entropy: Annotated[bool | None, _option("{True,False}", "tuned")] = None
    """Let the weight of the entropy go down to 0 over the run."""
    normalize_advantage: Annotated[bool | None, _option("{True,False}", "tuned")] = None
    """Scale the advantages of a chunk to mean 0 and standard deviation 1."""
    gamma: _TunedFloat = None
    """Discount."""
    gae_lambda: _TunedFloat = None
    """Lambda of the generalised advantages."""
    ent_coef: _TunedFloat = None
    """Weight of the entropy in the loss."""
    vf_coef: _TunedFloat = None
    """Weight of the value error in the loss."""
    max_grad_norm: _TunedFloat = None
    """Longer gradients are clipped to this norm."""
    matmul_precision: Annotated[str | None, _option("NAME", "tuned")] = None
    """highest, high or medium: medium lets processors that have bfloat16 use it inside the matrix products of learning."""
    device: str = "cpu"
    """cpu, cuda, or auto. Nets of this size are faster on a processor."""
    threads: int = 1
    """Threads for Torch. More than one helps with many environments, on cores that nobody else uses."""
    log_dir: Path = Path("runs")
    """Where the folder of the run goes."""
    resume: Annotated[Path | None, _option("RUN", "none")] = None
    """Folder of a run: go on where its last checkpoint is, with its settings. A finished one goes on with more --timesteps;
    what is annealed is then as far as in a run of that length."""
    eval_episodes: Annotated[int | None, _option("INT", "1000 for Catch, else 100")] = None
    """Episodes of the greedy evaluation at the end."""
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True)
class RunSettings:
    """Every setting of a run that has an influence on its result."""

    env: str
    cell: str
    algo: str
    workers: int
    seed: int
    timesteps: int
    n_envs: int
    n_steps: int
    hidden_size: int
    cell_options: dict[str, Any]
    previous_step: bool
    optimizer: str
    learning_rate: float
    anneal: bool
    anneal_entropy: bool
    normalize_advantage: bool
    gamma: float
    gae_lambda: float
    ent_coef: float
    vf_coef: float
    max_grad_norm: float
    matmul_precision: str
    engine: str = "local"
    normalize: bool = False
    n_epochs: int | None = None
    batch_size: int | None = None
    clip_range: float | None = None

    @property
    def short_env(self) -> str:
        """The environment as a word for folders and titles: Catch-16-3."""
        return without_module(self.env).removeprefix("fw_rl/").removesuffix("-v0").replace("/", "-")

    @property
    def short_cell(self) -> str:
        """The cell as a word for folders and titles."""
        return without_module(self.cell)

    @staticmethod
    def from_json(text: str) -> RunSettings:
        """Raises ValueError for a text that is not the settings of a run."""
        try:
            return RunSettings(**json.loads(text)["settings"])
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"not the settings of a run: {error}") from error


def resolve(options: TrainOptions, tuned_for_cell: bool = True) -> RunSettings:
    """The complete settings for what the command line says.

    `tuned_for_cell`: whether the others are those that were found for the environment and its cell, or for any cell there.

    Raises ValueError, in one line, for a value that is not allowed.
    """
    env = environment_id(options.env or "Catch-16-3")
    cell = options.cell or "fast-weights"
    find_cell(cell)
    engine = options.engine or "local"
    if engine not in WORKERS:
        raise ValueError(f"unknown engine {engine!r}: choose from {', '.join(WORKERS)}")
    algo = options.algo or next(iter(WORKERS[engine]))
    if algo not in WORKERS[engine]:
        raise ValueError(f"unknown algorithm {algo!r}: with the engine {engine}, choose from {', '.join(WORKERS[engine])}")
    tuned = _tuned(env, cell, f"{algo} on Ray" if engine == "ray" else algo, tuned_for_cell)
    settings = tuned | dict(workers=WORKERS[engine][algo])
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(RunSettings)}
    given["cell_options"] = parse_cell_options(options.cell_options)
    for name, value in given.items():
        if name == "cell_options":
            settings[name] = settings[name] | (value or {})
        elif value is not None:
            settings[name] = value
    config = RunSettings(**settings | dict(env=env, cell=cell, algo=algo, engine=engine, seed=options.seed or 0))
    check_settings(config)
    _check_options(options, config)
    return config


def _tuned(env: str, cell: str, algo: str, for_cell: bool) -> dict[str, Any]:
    tuned = yaml.safe_load(resources.files("fw_rl.experiments").joinpath("tuned.yaml").read_text())
    by_cell: dict[str, Any] = next((entry for pattern, entry in tuned["environments"].items() if fnmatch(env, pattern)), {})
    settings: dict[str, Any] = {}
    keys = ("any", cell, f"any {algo}", f"{cell} {algo}") if for_cell else ("any", f"any {algo}")
    own = [by_cell.get(key, {}) for key in keys]
    for layer in (tuned["defaults"], tuned["algorithms"].get(algo, {}), tuned["cells"].get(cell, {}), *own):
        options = settings.get("cell_options", {}) | layer.get("cell_options", {})
        settings = settings | layer | dict(cell_options=options)
    return settings


def parse_cell_options(pairs: tuple[str, ...] | None) -> dict[str, Any] | None:
    """Words such as eta=0.1 and rule=delta as a dictionary; raises ValueError for a word of another form."""
    if pairs is None:
        return None
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"--cell-options got {pair!r}: each option has the form name=value")
    return {name: _parse_value(name, value) for name, value in (pair.split("=", 1) for pair in pairs)}


def _parse_value(name: str, text: str) -> Any:
    for number in (int, float):
        with suppress(ValueError):  # YAML takes 1e-3 for a word
            return number(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--cell-options got {name}={text}: the value is neither a number, a word, true or false") from error


def check_settings(config: RunSettings) -> None:
    """Raises ValueError for a number that is not allowed, and for settings that do not go together."""
    for name in ("timesteps", "workers", "n_envs", "n_steps", "hidden_size", "n_epochs", "batch_size"):
        check_count(name, getattr(config, name))
    check_workers(config)
    if config.normalize and (config.engine == "ray" or config.algo == "a3c"):
        raise ValueError("--normalize is for --algo a2c and ppo, where one process sees all steps: leave it out")
    _check_ppo(config)
    for name in ("gamma", "gae_lambda"):
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{flag(name)} is {getattr(config, name)}: it must lie between 0 and 1")
    for name in ("learning_rate", "max_grad_norm"):
        if not 0 < getattr(config, name) < float("inf"):
            raise ValueError(f"{flag(name)} is {getattr(config, name)}: it must be above 0 and finite")
    for name in ("ent_coef", "vf_coef"):
        if not 0 <= getattr(config, name) < float("inf"):
            raise ValueError(f"{flag(name)} is {getattr(config, name)}: it must be at least 0 and finite")
    if config.matmul_precision not in PRECISIONS:
        raise ValueError(f"--matmul-precision is {config.matmul_precision!r}: choose from {', '.join(PRECISIONS)}")
    if config.optimizer not in OPTIMIZERS:
        raise ValueError(f"--optimizer is {config.optimizer!r}: choose from {', '.join(OPTIMIZERS)}")
    check_count("seed", config.seed, 0)


def _check_options(options: TrainOptions, config: RunSettings) -> None:
    for name in ("threads", "eval_episodes"):
        check_count(name, getattr(options, name))
    _check_engine(config, options)
    check_device(options.device)


def check_device(name: str) -> None:
    """Raises ValueError for a device that this machine does not have, where SB3 would silently take the processor."""
    kind, _, number = name.partition(":")
    if name not in ("cpu", "auto", "cuda") and not (kind == "cuda" and number.isdecimal()):
        raise ValueError(f"--device is {name!r}: choose cpu, cuda, cuda:K or auto")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device is {name!r}: Torch finds {torch.cuda.device_count()} CUDA devices here")


def check_workers(config: RunSettings) -> None:
    """Raises ValueError if the environments cannot be dealt out evenly."""
    if config.n_envs % config.workers:
        raise ValueError(f"--n-envs is {config.n_envs}: it must be a multiple of --workers, {config.workers}")


def _check_ppo(config: RunSettings) -> None:
    if config.engine == "ray" or config.algo != "ppo":
        for name in ONLY_PPO:
            if getattr(config, name) is not None:
                raise ValueError(f"{flag(name)} is for --algo ppo, where Ray does not train: leave it out")
        return
    assert config.batch_size is not None and config.clip_range is not None
    if config.batch_size < config.n_steps:
        raise ValueError(f"--batch-size is {config.batch_size}: it must be at least --n-steps, {config.n_steps}")
    if not 0 < config.clip_range < float("inf"):
        raise ValueError(f"--clip-range is {config.clip_range}: it must be above 0 and finite")


def _check_engine(config: RunSettings, options: TrainOptions) -> None:
    if config.engine != "ray":
        if options.ray_address is not None:
            raise ValueError(f"--ray-address is {options.ray_address}, but the engine is {config.engine}: add --engine ray")
        return
    for name in NOT_ON_RAY:
        if getattr(options, name) is not None:
            raise ValueError(f"{flag(name)} is not for the engine ray, where RLlib has a way of its own: leave it out")
    if config.previous_step:
        raise ValueError("--previous-step is not for the engine ray, whose runners take environments as they are: leave it out")
    if options.device not in ("cpu", "auto"):
        raise ValueError(f"--device is {options.device!r}: with the engine ray, the learner is on this machine's processor")
