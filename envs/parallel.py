"""Environments that are slow to step, stepped in worker processes: a Gymnasium vector environment of vector environments."""

from __future__ import annotations

import ctypes
import multiprocessing
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper, batch_space, create_empty_array
from numpy.typing import DTypeLike, NDArray

from fw_rl.arguments import require
from fw_rl.envs.rules import is_integer
from fw_rl.envs.vector import OwnGenerators, call_each, check_mask, has_fixed_size, reset_some
from fw_rl.processes import START_METHOD, Send, WorkerError, Workers, check_start_method

__all__ = ["ParallelVectorEnv"]


class ParallelVectorEnv(OwnGenerators):
    """A Gymnasium `VectorEnv` whose environments are stepped by `workers` processes, in equal shares.

    Together they do what `make_env(num_envs)` does in one process: `reset(seed=s)` seeds environment i with s + i, and the
    autoreset mode is that of the environments. (Vector environments with one generator for all, such as `CatchVectorEnv`, have
    one in each process instead, with the seeds s, s + k, s + 2k, ...) Actions are cast to the type of the action space, and
    travel in shared memory, as observations, rewards and flags do; what `reset` and `step` return is copied.

    It pays when a worker's share takes longer to step than the workers take to wake, about 50 microseconds. Any failure ends
    all workers: none outlives `close`, this object or this process, and nothing is left in shared memory. Workers still
    stepping when `close` is called are ended after two seconds.

    Args:
        make_env: Makes a vector environment of k environments; called in every process, and once here for the spaces of one.
        num_envs: Total number of environments, a multiple of `workers`.
        workers: Processes, at least 1.
        start_method: "forkserver", "spawn" or "fork"; the first two require a script guarded by `if __name__ == "__main__"`, as
            in Python's multiprocessing.

    Raises:
        ValueError: If an argument is not one of those above, a space has no fixed size, or actions or a "reset_mask" have a
            wrong shape.
        WorkerError: If a worker is killed, or an environment raises an exception, whose traceback is included.
        gymnasium.error.ClosedEnvironmentError: If it is used after being closed.

    Examples:
        >>> from functools import partial
        >>> import gymnasium as gym
        >>> from fw_rl.envs import ParallelVectorEnv
        >>> make_env = partial(gym.make_vec, "CartPole-v1", vectorization_mode="sync")
        >>> envs = ParallelVectorEnv(make_env, num_envs=8, workers=2)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations.shape
        (8, 4)
        >>> envs.close()
    """

    def __init__(
        self, make_env: Callable[[int], VectorEnv], num_envs: int, workers: int, start_method: str = START_METHOD
    ) -> None:
        check_start_method(start_method)
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        if num_envs < 1 or num_envs % workers:
            raise ValueError(f"num_envs must be a multiple of workers = {workers}, got {num_envs}")
        one = make_env(1)
        one.close()
        self.num_envs = num_envs
        self.metadata, self.render_mode = dict(one.metadata), one.render_mode
        self.single_observation_space, self.single_action_space = one.single_observation_space, one.single_action_space
        _check_space("observation_space", self.single_observation_space)
        _check_space("action_space", self.single_action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        size = num_envs // workers
        self._shares = [slice(begin, begin + size) for begin in range(0, num_envs, size)]
        context = multiprocessing.get_context(start_method)
        blocks: list[Any] = []
        layout = (self.single_observation_space, self.single_action_space, num_envs)
        self._actions, self._results = _lay_out(*layout, partial(_allocate, context, blocks))
        ends = [context.Pipe(duplex=False) for _ in self._shares]
        packed: Any = CloudpickleWrapper(partial(make_env, size))
        tasks = [(theirs, packed, layout, blocks, share) for (theirs, _), share in zip(ends, self._shares, strict=True)]
        self._commands = [ours for _, ours in ends]
        self._workers = Workers(_serve, lambda number, restarts: tasks[number], workers, start_method, max_restarts=0)
        self._finalizer = weakref.finalize(self, _stop, self._workers, self._commands)
        try:
            self._workers.start()
            for theirs, _ in ends:
                theirs.close()
            self._answers()  # the environments are made
        except BaseException:
            self.close()
            raise

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin the episodes of all environments, or of the boolean array [num_envs] `options["reset_mask"]`.

        Args:
            seed: Environment i gets `seed + i`, or `seed[i]`.
            options: Options for all workers.
        """
        fits = seed is None or is_integer(seed) or np.shape(seed) == (self.num_envs,)  # type: ignore[arg-type, comparison-overlap]
        require("seed", seed, fits, f"one or {self.num_envs} integers")
        if options is not None and "reset_mask" in options:
            check_mask(options["reset_mask"], self.num_envs)
        infos = self._ask("reset", [_reset_arguments(seed, options, share) for share in self._shares])
        return _copy(self._results[0]), self._together(infos)

    def step(self, actions: Any) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        _write("actions", self._actions, actions)
        infos = self._ask("step", [()] * len(self._shares))
        return *_copy(self._results), self._together(infos)

    def render(self) -> tuple[Any, ...] | None:
        """The pictures of all environments, or None if they draw nothing."""
        pictures = self._ask("render", [()] * len(self._shares))
        return None if any(part is None for part in pictures) else tuple(chain.from_iterable(pictures))

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """What a method of each environment returns, or an attribute itself.

        A vector environment that is one object answers for all environments of its worker.

        Args:
            name: The method or attribute.
            args: Arguments of the method.
            kwargs: Arguments of the method by name.
        """
        return tuple(chain.from_iterable(self._ask("call", [(name, args, kwargs)] * len(self._shares))))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of each environment.

        Args:
            name: The attribute.
        """
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of each environment.

        Args:
            name: The attribute.
            values: A list or tuple with a value for each environment, or anything else, which is for all. If a worker's
                environments are one object, it takes the first of their values.

        Raises:
            ValueError: If a list or tuple has the wrong length.
        """
        if not isinstance(values, list | tuple):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"{name} must have {self.num_envs} values, got {len(values)}")
        self._ask("set_attr", [(name, values[share]) for share in self._shares])

    def close_extras(self, **kwargs: Any) -> None:
        self._finalizer()

    def _ask(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Let every worker run a method of its `_Share`; returns what each of them returns."""
        if self.closed:
            raise gym.error.ClosedEnvironmentError(f"{self} is closed")
        try:
            for pipe, its_arguments in zip(self._commands, arguments, strict=True):
                with suppress(BrokenPipeError):  # the worker is gone, which its answer will tell
                    pipe.send((name, its_arguments))
            return self._answers()
        except BaseException:  # also Ctrl-C: some workers may have answered and others not
            self.close()
            raise

    def _answers(self) -> list[Any]:
        answers: dict[int, Any] = {}
        while len(answers) < len(self._shares):
            report = self._workers.next_report(timeout=None)
            if report is None:
                ended = next(number for number, process in self._workers.processes.items() if not process.is_alive())
                raise WorkerError(f"worker {ended} ended by itself")
            number, answer = report
            answers[number] = answer
        return [answers[number] for number in range(len(self._shares))]

    def _together(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for share, part in zip(self._shares, parts, strict=True):
            _merge(infos, part, share, self.num_envs)
        return infos


def _lay_out(
    observation_space: spaces.Space, action_space: spaces.Space, num_envs: int, allocate: Callable[..., NDArray[Any]]
) -> tuple[Any, tuple[Any, ...]]:
    """Arrays for the actions, and for the observations, rewards, terminations and truncations of steps.

    They are trees of arrays [num_envs, ...] by `allocate(shape, dtype)`, which is called in the same order in every process.
    """
    actions = create_empty_array(action_space, num_envs, allocate)
    observations = create_empty_array(observation_space, num_envs, allocate)
    return actions, (observations, *(allocate((num_envs,), dtype) for dtype in (np.float64, np.bool_, np.bool_)))


class _Share(NamedTuple):
    """The environments of one worker, and their rows of the shared arrays."""

    env: VectorEnv
    actions: Any
    results: tuple[Any, ...]

    def reset(self, seed: int | Sequence[int | None] | None, options: dict[str, Any] | None) -> dict[str, Any]:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            observations, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        elif mask.any():
            observations, infos = reset_some(self.env, mask, self.results[0], seed, options)
        else:
            return {}
        _write("observations", self.results[0], observations)
        return infos

    def step(self) -> dict[str, Any]:
        *results, infos = self.env.step(_copy(self.actions))
        _write("results", self.results, results)
        return infos

    def render(self) -> Any:
        return self.env.render()

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Any]:
        return call_each(self.env, name, *args, **kwargs)

    def set_attr(self, name: str, values: Sequence[Any]) -> None:
        inner: Any = self.env.unwrapped
        if hasattr(inner, "set_attr"):
            inner.set_attr(name, values)
        else:  # one object, whose environments share what it has
            setattr(inner, name, values[0])


def _serve(
    send: Send,
    commands: Connection,
    make_env: Any,
    layout: tuple[spaces.Space, spaces.Space, int],
    blocks: list[Any],
    rows: slice,
) -> None:
    """The task of a worker: it does what it is asked until there is nothing more."""
    env = make_env.fn()
    try:
        expected = (*layout[:2], rows.stop - rows.start)
        made = (env.single_observation_space, env.single_action_space, env.num_envs)
        if made != expected:
            raise ValueError(f"make_env must make environments with {expected}, as in the main process, got {env} with {made}")
        left = iter(blocks)
        share = _Share(env, *_lay_out(*layout, lambda shape, dtype: np.ndarray(shape, dtype, next(left))[rows]))
        send(None)
        while (command := commands.recv()) is not None:
            name, arguments = command
            send(getattr(share, name)(*arguments))
    finally:
        env.close()


def _allocate(context: Any, blocks: list[Any], shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array of zeros in a new, unnamed block of shared memory, which cannot be left behind."""
    blocks.append(context.RawArray(ctypes.c_byte, max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1)))
    return np.ndarray(shape, dtype, blocks[-1])


def _stop(workers: Workers, commands: list[Any]) -> None:
    for pipe in commands:
        with suppress(OSError):  # the worker is gone
            pipe.send(None)
        pipe.close()
    workers.stop()


def _check_space(name: str, space: spaces.Space) -> None:
    if not has_fixed_size(space):
        taken = "Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these"
        raise ValueError(f"{name} must have a fixed size ({taken}), got {' '.join(str(space).split())}")


def _reset_arguments(seed: Any, options: dict[str, Any] | None, share: slice) -> tuple[Any, dict[str, Any] | None]:
    """Seed and options for one worker."""
    if options is not None and "reset_mask" in options:
        options = {**options, "reset_mask": options["reset_mask"][share]}
    if is_integer(seed):
        return int(seed) + share.start, options
    return None if seed is None else seed[share], options


def _copy(tree: Any) -> Any:
    """A copy of a tree of arrays, in a quarter of the time that `deepcopy` takes."""
    if isinstance(tree, dict):
        return {key: _copy(part) for key, part in tree.items()}
    return tuple(map(_copy, tree)) if isinstance(tree, tuple) else tree.copy()


def _write(name: str, target: Any, source: Any) -> None:
    """Copy a tree of arrays into another."""
    if isinstance(target, dict):
        for key, part in target.items():
            _write(name, part, source[key])
    elif isinstance(target, tuple):
        for part, its_source in zip(target, source, strict=True):
            _write(name, part, its_source)
    elif np.shape(source) != target.shape:
        raise ValueError(f"{name} must have the shape {target.shape}, got {np.shape(source)}")
    else:
        target[...] = source


def _merge(infos: dict[str, Any], part: dict[str, Any], share: slice, num_envs: int) -> None:
    """Merge the infos of one worker, arrays of its environments or dictionaries of these, into those of all."""
    for key, value in part.items():
        if isinstance(value, dict):
            _merge(infos.setdefault(key, {}), value, share, num_envs)
            continue
        rows = np.asarray(value)
        if key not in infos:
            nothing = None if rows.dtype == object else 0
            infos[key] = np.full((num_envs, *rows.shape[1:]), nothing, rows.dtype)
        infos[key][share] = rows
