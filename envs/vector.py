"""Operations on any Gymnasium vector environment: beginning some of its episodes, and questions about its environments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.wrappers.vector import NormalizeObservation, NormalizeReward, RecordEpisodeStatistics
from numpy.typing import NDArray

from fw_rl.envs.rules import describe, is_integer


def call_each(env: VectorEnv, name: str, *args: Any, **kwargs: Any) -> Sequence[Any]:
    """What a method of each environment returns, or an attribute itself; one object answers for all of its environments."""
    inner: Any = env.unwrapped
    if hasattr(inner, "call"):
        return inner.call(name, *args, **kwargs)
    questions = dict(has_wrapper_attr=hasattr, get_wrapper_attr=getattr)  # which only single environments answer
    if name in questions:
        return (questions[name](inner, *args),) * env.num_envs
    answer = getattr(inner, name)
    if callable(answer):
        answer = answer(*args, **kwargs)
        is_array = isinstance(answer, tuple | list) or hasattr(answer, "__array__")  # of NumPy, or a tensor
        if is_array and np.shape(answer)[:1] == (env.num_envs,):
            return tuple(answer)
    return (answer,) * env.num_envs


def check_num_envs(num_envs: Any) -> int:
    """The number of environments given to a vector environment; ValueError if it is not valid."""
    if not (is_integer(num_envs) and num_envs >= 1):
        raise ValueError(f"num_envs must be an integer of at least 1, got {num_envs!r}")
    return num_envs


def check_mask(mask: Any, num_envs: int) -> NDArray[np.bool_]:
    """The "reset_mask" of reset options; ValueError unless it is what Gymnasium requires."""
    if not isinstance(mask, np.ndarray) or mask.shape != (num_envs,) or mask.dtype != np.bool_ or not mask.any():
        raise ValueError(f"reset_mask must be a boolean array of shape ({num_envs},) with a True in it, got {describe(mask)}")
    return mask


class OwnGenerators(VectorEnv):
    """A vector environment in which each environment has its own random generator."""

    get_attr: Callable[[str], tuple[Any, ...]]

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generator of each environment, or a copy if it is in another process."""
        return self.get_attr("np_random")

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of each environment."""
        return self.get_attr("np_random_seed")


def seed_one_generator(env: VectorEnv, seed: int | Sequence[int] | None) -> None:
    """Seed the generator that serves all of `env`: with an integer, or with `num_envs` of them as a whole; None leaves it."""
    if seed is None or is_integer(seed):
        VectorEnv.reset(env, seed=None if seed is None else int(seed))  # type: ignore[arg-type]
        return
    seeds = np.asarray(seed)
    if seeds.shape != (env.num_envs,) or seeds.dtype.kind not in "iu" or seeds.min() < 0:
        raise ValueError(f"seed must be an integer of at least 0 or {env.num_envs} of them, got {describe(seed)}")
    env.np_random = np.random.default_rng(seeds)


def generator_in(state: Mapping[str, Any]) -> np.random.Generator:
    """The generator that `state["random"]` describes; ValueError if it is not of NumPy's default kind."""
    generator = np.random.default_rng()
    try:
        generator.bit_generator.state = state["random"]
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"state['random'] must be that of a PCG64 generator, got another: {error}") from error
    return generator


def has_fixed_size(space: spaces.Space) -> bool:
    """Whether every element of a space is a tree of arrays of the same shapes."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return all(has_fixed_size(part) for part in (space.values() if isinstance(space, spaces.Dict) else space))
    return isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)


_OF_WHOLE_BATCHES = {
    NormalizeObservation: "SB3's VecNormalize",
    NormalizeReward: "AutoresetMode.SAME_STEP, or SB3's VecNormalize",
    RecordEpisodeStatistics: "AutoresetMode.SAME_STEP, or SB3's VecMonitor",
}
"""Gymnasium wrappers that cannot begin some of the episodes, and what to use instead."""


def check_partial_reset(env: VectorEnv) -> None:
    """Raise ValueError for several Gymnasium environments that are known to begin all episodes when asked for some."""
    if env.num_envs == 1:
        return
    if type(env.unwrapped) is CartPoleVectorEnv:  # what `gym.make_vec("CartPole-v1")` makes
        raise _mask_is_ignored(env)
    layer = env
    while isinstance(layer, VectorWrapper):
        for wrapper, instead in _OF_WHOLE_BATCHES.items():
            if isinstance(layer, wrapper):
                raise ValueError(
                    f"env must be without {wrapper.__name__}, which takes the start of some episodes for that of all, "
                    f"got {env}: use {instead}"
                )
        layer = layer.env


def reset_some(
    env: VectorEnv, mask: NDArray[np.bool_], observations: Any, seed: Any = None, options: dict[str, Any] | None = None
) -> tuple[Any, dict[str, Any]]:
    """What `env.reset` returns when the episodes of `mask` begin, where all environments showed `observations` before.

    EnvPool returns only the rows of those episodes; they are merged with the others. ValueError if the mask was not read.
    """
    check_partial_reset(env)
    noting = _NotingOptions({**(options or {}), "reset_mask": mask})
    begun, infos = env.reset(seed=seed, options=noting)
    if env.num_envs > 1 and not noting.mask_was_read:
        raise _mask_is_ignored(env)
    return _spread(begun, mask, observations), _spread(infos, mask)


def _mask_is_ignored(env: VectorEnv) -> ValueError:
    if env.spec is not None and getattr(env.spec, "entry_point", None):  # which makes a single one
        advice = f"make it by gym.make_vec({env.spec.id!r}, {env.num_envs}, vectorization_mode='sync')"
    else:
        advice = "let it do so, or begin episodes in the step that ends the last ones and say AutoresetMode.SAME_STEP"
    return ValueError(f"env must begin the episodes of options['reset_mask'] alone, got {env}, which ignores it: {advice}")


def _spread(begun: Any, mask: NDArray[np.bool_], others: Any = None) -> Any:
    """The rows of a tree, one for each True of the mask, among the rows of others or zeros; everything else unchanged."""
    if isinstance(begun, dict):
        return {key: _spread(part, mask, None if others is None else others[key]) for key, part in begun.items()}
    if mask.all() or not isinstance(begun, np.ndarray) or len(begun) != mask.sum():
        return begun
    rows = np.zeros((len(mask), *begun.shape[1:]), begun.dtype) if others is None else np.array(others)
    rows[mask] = begun
    return rows


class _NotingOptions(dict[str, Any]):
    """Reset options that note whether anything reads "reset_mask", or reads or copies all of them."""

    mask_was_read = False

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


def _noting(method: Callable[..., Any]) -> Callable[..., Any]:
    def read(self: _NotingOptions, *args: Any) -> Any:
        if not args or not isinstance(args[0], str) or args[0] == "reset_mask":
            self.mask_was_read = True
        return method(self, *args)

    return read


for _name in ("__contains__", "__getitem__", "__iter__", "__or__", "copy", "get", "items", "keys", "pop", "values"):
    setattr(_NotingOptions, _name, _noting(getattr(dict, _name)))
