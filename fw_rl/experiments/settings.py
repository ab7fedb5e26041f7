"""The settings of a training run: one record, with defaults, tuned values by environment, and checks.

Torch is imported only to check them, since `fw-rl train --help` does not need it.
"""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatch
from functools import cache
from importlib import resources
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro
import yaml
from tyro.constructors import PrimitiveConstructorSpec

from fw_rl.algorithms import ALGORITHMS, ENGINES
from fw_rl.experiments.checks import LARGEST, check_count, check_processes, check_seed, require_option
from fw_rl.experiments.environments import environment_id
from fw_rl.modules import without_module

__all__ = ["RunSettings", "fill_in", "parse_cell_options", "resolve", "settings_of_games"]

MAY_BE_NONE = ("bptt_length", "target_kl", "desired_kl", "normalize_advantage")
"""Settings of an algorithm for which None is a choice."""

NOT_ON_RAY = ("bptt_length", "normalize", "optimizer", "optimizer_eps", "normalize_advantage", "matmul_precision")
"""Settings that RLlib handles in its own way."""


def parse_cell_options(words: Sequence[str]) -> dict[str, Any]:
    """The options of a cell by name, from words such as eta=0.1 and rule=delta; ValueError for no words or another form."""
    require_option("cell_options", "none", bool(words), "one or more of name=value")
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        require_option("cell_options", word, bool(name and equals and value.strip()), "name=value")
        require_option("cell_options", word, name not in options, f"{name} once")
        is_own = name not in ("name", "input_size", "hidden_size")
        require_option("cell_options", word, is_own, "an option of the cell, and no size of it (see --hidden-size)")
        options[name] = _parse_value(name, value)
    return options


def _parse_value(name: str, text: str) -> Any:
    for number in (int, float):
        with suppress(ValueError):  # YAML reads 1e-3 as a string
            return number(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--cell-options must have numbers, words, true or false as values, got {name}={text}") from error


def _cell_options(words: list[str]) -> dict[str, Any]:
    try:
        return parse_cell_options(words)
    except ValueError as error:  # which tyro would print as a box of several lines
        raise ArgumentTypeError(error) from error


_CELL_OPTIONS = PrimitiveConstructorSpec(
    nargs="*",
    metavar="NAME=VALUE ...",
    instance_from_str=_cell_options,
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=lambda options: [f"{name}={value}" for name, value in options.items()],
)
_Name = Annotated[str, tyro.conf.arg(metavar="NAME")]
_Switch = tyro.conf.FlagConversionOff[bool]
_Sizes = Annotated[
    list[int], tyro.conf.arg(metavar="INT ...", help_behavior_hint=lambda sizes: f"(default: {sizes or 'none'})")
]
_OwnInt = Annotated[int | None, tyro.conf.arg(metavar="INT")]
_OwnFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT")]
_OwnName = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
_OwnSwitch = Annotated[bool | None, tyro.conf.arg(metavar="{True,False}")]


@dataclass(frozen=True)
class RunSettings:
    """Every setting that affects a run's result. A setting that the algorithm or the engine does not have is None."""

    env: Annotated[str, tyro.conf.arg(metavar="ID")] = "Catch-16-3"
    """Environment: Catch-N-M (N x N pixels, M visible frames), Catch-N-M-D (with D distracting pixels), Retrieval-K (K pairs),
    Retrieval-K-gapG (with G blank steps), RepeatPreviousEasy or another game of POPGym, any Gymnasium id, or module:id for one
    that a module registers, such as minigrid:MiniGrid-MemoryS7-v0."""
    cell: _Name = "fast-weights"
    """Memory cell: fast-weights, delta-net, lru, lru-delta-net, min-gru, ffm, shm, rnn, lstm, gru, associative-lstm, or
    module:name for one that a module registers. Try lru-delta-net if you do not know what must be remembered: it is the only
    cell that earned 0.99 of 1 both in RepeatPreviousHard (by time) and in Retrieval-8 (by content)."""
    engine: _Name = "local"
    """local, or ray: workers act on the machines of a Ray cluster, and this process learns (pip install 'fw-rl[ray]')."""
    algo: _Name = "ppo"
    """Algorithm: a2c (all environments act, then one update), ppo (then many updates), or a3c (workers update shared parameters
    without waiting); on Ray impala or ppo."""
    workers: int = 1
    """Worker processes. With a3c they act and learn. With a2c and ppo, more than one step the environments, which helps if
    these are slow. On Ray they act."""
    timesteps: int = 1_000_000
    """Frames to train on, counted over all environments."""
    seed: int = 0
    """Seed of networks, environments and actions."""
    n_envs: int = 16
    """Environments side by side, over all workers."""
    n_steps: int = 128
    """Steps of each environment in a rollout."""
    bptt_length: _OwnInt = None
    """Steps of a sequence for truncated back-propagation through time, from 1 to n_steps. None means n_steps, or for ppo
    batch_size if that is less."""
    n_epochs: _OwnInt = 10
    """Passes of ppo over each rollout."""
    batch_size: _OwnInt = 256
    """Steps of a minibatch of ppo, in whole sequences of bptt_length."""
    clip_range: _OwnFloat = 0.2
    """How far ppo may change the probability of an action, up or down, as a fraction of it."""
    target_kl: _OwnFloat = 0.05
    """ppo stops learning from a rollout once the approximate KL divergence from the policy that acted is above 1.5 times this
    number. With None it never stops."""
    desired_kl: _OwnFloat = 0.01
    """How far ppo should move the policy in each rollout, as a KL divergence: the learning rate rises while the move is less
    than half as far, and falls whenever it is more than twice as far. None or anneal turns this off."""
    encoder_arch: _Sizes = field(default_factory=lambda: [64])
    """Units of each layer before the memory cell; give no number for no layer."""
    hidden_size: int = 64
    """Units of the memory cell."""
    cell_options: Annotated[dict[str, Any], _CELL_OPTIONS] = field(default_factory=dict)
    """Options of the cell, such as eta=0.1 decay=0.95 inner_steps=2 rule=delta; the others keep their tuned values."""
    net_arch: _Sizes = field(default_factory=lambda: [64])
    """Units of each layer after the memory cell, for actor and critic alike."""
    shared_cell: _Switch = False
    """Actor and critic share one memory cell; with False the critic has an encoder and a cell of its own."""
    previous_step: _Switch = False
    """Let the agent see its last action and reward with each observation."""
    previous_reward: _Switch = True
    """With previous_step, let the agent see its last reward too; else only its last action."""
    normalize: _OwnSwitch = True
    """Scale rewards by the running deviation of the return, and observations, except choices, large images and numbers from 0
    to 1, by their running mean and deviation."""
    optimizer: _OwnName = "adam"
    """Optimizer: rmsprop or adam."""
    optimizer_eps: _OwnFloat = 1e-4
    """Epsilon of the optimizer: gradients far below it move the parameters little."""
    learning_rate: float = 1e-3
    """Initial learning rate."""
    anneal: _Switch = False
    """Reduce the learning rate to 0 over the run."""
    anneal_entropy: _Switch = False
    """Reduce the weight of the entropy to 0 over the run."""
    normalize_advantage: _OwnSwitch = None
    """Scale the advantages of a rollout, or of a minibatch of ppo, to mean 0 and standard deviation 1. With None only ppo does
    so, if rewards are not scaled."""
    gamma: float = 0.99
    """Discount factor."""
    gae_lambda: float = 0.9
    """Lambda of the generalised advantages."""
    ent_coef: float = 0.0
    """Weight of the entropy in the loss."""
    vf_coef: float = 0.5
    """Weight of the value error in the loss."""
    max_grad_norm: float = 1.0
    """Longer gradients are clipped to this norm."""
    matmul_precision: _OwnName = "highest"
    """Precision of matrix products in learning: highest, high or medium; medium uses bfloat16 inside them on processors that
    have it."""

    @property
    def short_env(self) -> str:
        """The environment as a word for folders and titles: Catch-16-3."""
        return without_module(self.env).removeprefix("fw_rl/").removesuffix("-v0").replace("/", "-")

    @property
    def short_cell(self) -> str:
        """The cell as a word for folders and titles."""
        return without_module(self.cell)

    @property
    def acts_apart(self) -> bool:
        """Whether each worker makes environments of its own, which no other process sees."""
        return ENGINES[self.engine][self.algo].acts_apart

    @property
    def evaluation_episodes(self) -> int:
        """Default number of evaluation episodes: more for the games that are played in arrays."""
        return 1000 if self.env.startswith("fw_rl/") else 100

    @property
    def rollout_size(self) -> int:
        """Steps of a rollout over all environments, or over those of one worker where each learns from its own."""
        of_one = self.engine == "local" and self.acts_apart
        return self.n_steps * (self.n_envs // self.workers if of_one else self.n_envs)

    @property
    def of_agent(self) -> dict[str, Any]:
        """The settings by name, without those that the algorithm or the engine does not have."""
        missing = _not_had(self.engine, self.algo)
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in missing}

    def check(self) -> None:
        """Check every setting, and that they fit together; ValueError, in one line, if not."""
        from fw_rl.agents.optimization import OPTIMIZERS, PRECISIONS
        from fw_rl.cells import find_cell

        find_cell(self.cell)
        on_ray = self.engine == "ray"
        where = "--engine ray" if on_ray else f"--algo {self.algo}"
        for name in sorted(_not_had(self.engine, self.algo)):
            require_option(name, getattr(self, name), getattr(self, name) is None, f"left out with {where}")
        for name in sorted(self.of_agent.keys() - {*MAY_BE_NONE}):
            require_option(name, None, getattr(self, name) is not None, f"a value with {where}")
        for name in ("timesteps", "workers", "n_envs", "n_steps", "bptt_length", "n_epochs", "batch_size", "hidden_size"):
            check_count(name, getattr(self, name))
        check_seed("seed", self.seed)
        for name in ("encoder_arch", "net_arch"):
            for size in getattr(self, name):
                check_count(name, size)
        even = self.n_envs % self.workers == 0
        if not on_ray:
            check_processes("workers", self.workers)
        require_option("n_envs", self.n_envs, even, f"a multiple of --workers, {self.workers}")
        length = self.bptt_length or self.n_steps
        require_option("bptt_length", length, length <= self.n_steps, f"at most --n-steps, {self.n_steps}")
        rollout = self.rollout_size
        where = f"the steps of a rollout: --n-steps {self.n_steps} in each of --n-envs {self.n_envs}"
        require_option("timesteps", self.timesteps, self.timesteps >= rollout, f"at least {rollout}, {where}")
        batch = self.batch_size
        require_option("batch_size", batch, batch is None or batch >= length, f"at least {length}, the steps of a sequence")
        require_option("batch_size", batch, batch is None or batch <= rollout, f"at most {rollout}, {where}")
        for name in ("gamma", "gae_lambda"):
            require_option(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "between 0 and 1")
        for name in ("learning_rate", "max_grad_norm", "clip_range", "target_kl", "desired_kl", "optimizer_eps"):
            number = getattr(self, name)
            require_option(name, number, number is None or 0 < number <= LARGEST, "above 0 and finite")
        for name in ("ent_coef", "vf_coef"):
            require_option(name, getattr(self, name), 0 <= getattr(self, name) <= LARGEST, "at least 0 and finite")
        for name, known in (("matmul_precision", PRECISIONS), ("optimizer", OPTIMIZERS)):
            require_option(name, getattr(self, name), on_ray or getattr(self, name) in known, f"one of {', '.join(known)}")
        require_option("previous_step", self.previous_step, not (on_ray and self.previous_step), "False with --engine ray")

    @staticmethod
    def from_json(text: str) -> RunSettings:
        """The settings of a run, from the text of its config.json."""
        try:
            settings = json.loads(text)["settings"]
            known = {field.name for field in fields(RunSettings)}
            if unknown := set(settings) - known:
                raise ValueError(f"is of another version of fw_rl, with {', '.join(sorted(unknown))}")
            if missing := known - set(settings):
                raise ValueError(f"is of another version of fw_rl, without {', '.join(sorted(missing))}")
            for name, kind in get_type_hints(RunSettings).items():
                if not _is_of(settings[name], kind):
                    raise TypeError(f"{name} is {settings[name]!r}")
            if settings["algo"] not in ENGINES.get(settings["engine"], {}):
                raise KeyError(settings["algo"])
            return RunSettings(**settings)
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"is damaged: not the settings of a run: {error}") from error


def _is_of(value: object, kind: Any) -> bool:
    """Whether a value from JSON has the type of a setting; the items of lists and dictionaries are not checked."""
    if isinstance(kind, UnionType):
        return any(_is_of(value, one) for one in get_args(kind))
    return type(value) in ((int, float) if kind is float else (get_origin(kind) or kind,))


def resolve(tuned_for_cell: bool = True, **given: Any) -> RunSettings:
    """The complete settings, as `fill_in` gives them; ValueError, in one line, if one is not allowed.

    Examples:
        >>> resolve(env="Catch-16-3", cell="gru", n_envs=8).gae_lambda
        1.0
    """
    config = fill_in(tuned_for_cell, **given)
    config.check()
    return config


def fill_in(tuned_for_cell: bool = True, **given: Any) -> RunSettings:
    """The complete settings: the given ones, then tuned values, then the defaults of the classes.

    Without `tuned_for_cell` only values tuned for any cell are used. A batch size that is not given is at most a rollout, and a
    sequence length that is not given at most a batch. ValueError for an unknown environment, engine or algorithm; nothing else
    is checked.
    """
    env, cell, engine = (given.get(name, getattr(RunSettings, name)) for name in ("env", "cell", "engine"))
    env = environment_id(env)
    require_option("engine", engine, engine in ENGINES, f"one of {', '.join(ENGINES)}")
    known = ENGINES[engine]
    defaults, tuned = _tuned(env)
    algo = given.get("algo") or (tuned.get("algo", RunSettings.algo) if engine == RunSettings.engine else next(iter(known)))
    require_option("algo", algo, algo in known, f"one of {', '.join(known)} with --engine {engine}")
    name = f"{algo} on Ray" if engine == "ray" else algo
    keys = ("any", cell, f"any {name}", f"{cell} {name}") if tuned_for_cell else ("any", f"any {name}")
    fixed = dict(workers=known[algo].workers) | dict.fromkeys(_not_had(engine, algo))
    settings: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for layer in (*(entry.get(key, {}) for entry in (defaults, tuned) for key in keys), fixed, given):
        options |= layer.get("cell_options", {})
        settings |= layer
    config = RunSettings(**settings | dict(env=env, cell=cell, engine=engine, algo=algo, cell_options=options))
    if config.batch_size is not None and "batch_size" not in given and config.workers > 0:
        config = replace(config, batch_size=min(config.batch_size, max(config.rollout_size, 1)))
    if config.batch_size is not None and config.bptt_length is None and 0 < config.batch_size < config.n_steps:
        config = replace(config, bptt_length=config.batch_size)
    return config


def settings_of_games(cell: str) -> dict[str, Any]:
    """The settings of a cell for POPGym's games, the same for each."""
    _, tuned = _tuned("fw_rl/*")
    return dict(algo="ppo") | tuned["any ppo"] | tuned.get(f"{cell} ppo", {})


def _tuned(env: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entry for every environment, and that of the first pattern that matches this one."""
    entries = _entries()
    return entries["*"], next((entry for pattern, entry in entries.items() if pattern != "*" and fnmatch(env, pattern)), {})


@cache  # a table of `memories` calls this a thousand times
def _entries() -> dict[str, dict[str, Any]]:
    """The entries of `tuned.yaml`, by their patterns of environments."""
    return yaml.safe_load(resources.files("fw_rl.experiments").joinpath("tuned.yaml").read_text())


def _not_had(engine: str, algo: str) -> set[str]:
    """The settings of other algorithms, and those that an engine does not have."""
    of_some = {name for algorithm in ALGORITHMS.values() for name in algorithm.settings}
    return of_some | {*NOT_ON_RAY} if engine == "ray" else of_some - {*ALGORITHMS[algo].settings}
