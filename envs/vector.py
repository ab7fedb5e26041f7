"""What is asked of any Gymnasium vector environment: to begin some of its episodes, and what its environments are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from fw_rl.envs.rules import describe


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
        if isinstance(answer, tuple | list | np.ndarray) and np.shape(answer)[:1] == (env.num_envs,):
            return tuple(answer)
    return (answer,) * env.num_envs


def check_mask(mask: Any, num_envs: int) -> NDArray[np.bool_]:
    """The "reset_mask" of reset options; ValueError unless it is what Gymnasium wants."""
    if not isinstance(mask, np.ndarray) or mask.shape != (num_envs,) or mask.dtype != np.bool_ or not mask.any():
        raise ValueError(f"reset_mask must be a boolean array of shape ({num_envs},) with a True in it, got {describe(mask)}")
    return mask


def reset_some(env: VectorEnv, mask: NDArray[np.bool_], seed: Any = None, options: dict[str, Any] | None = None) -> Any:
    """What `env.reset` returns when the episodes of `mask` begin; ValueError if it did not look at the mask and began all."""
    noting = _NotingOptions({**(options or {}), "reset_mask": mask})
    result = env.reset(seed=seed, options=noting)
    if not (noting.mask_was_read or mask.all()):
        raise mask_is_ignored(env)
    return result


def mask_is_ignored(env: VectorEnv) -> ValueError:
    """The error for a vector environment that begins all episodes whatever it is asked for."""
    return ValueError(
        f"env must begin the episodes of options['reset_mask'] alone, got {env}, which ignores it: "
        "use gym.make_vec(..., vectorization_mode='sync'), or an environment with AutoresetMode.SAME_STEP"
    )


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
