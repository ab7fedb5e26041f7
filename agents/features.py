"""The features extractor of an observation by default."""

from __future__ import annotations

from functools import partial
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN


def standard_extractor(space: spaces.Space, normalize_images: bool = True) -> type[BaseFeaturesExtractor]:
    """SB3's `CombinedExtractor` for a Dict, its `NatureCNN` for an image of 36 x 36 or more, else its `FlattenExtractor`.

    An image has its channels first; without `normalize_images` it may have any numbers. In a Dict, too, a smaller one is
    flattened.
    """
    is_image = partial(is_image_space, normalized_image=not normalize_images)
    if isinstance(space, spaces.Dict):
        small = any(is_image(part) and not fits_cnn(part) for part in space.spaces.values())
        return _CombinedExtractor if small else CombinedExtractor
    return NatureCNN if is_image(space) and fits_cnn(space) else FlattenExtractor


def fits_cnn(space: spaces.Space) -> bool:
    """Whether it has the form of an image, channels first, of which the kernels and strides of `NatureCNN` leave something."""
    return is_image_space(space, normalized_image=True) and min((space.shape or ())[1:]) >= 36


class _CombinedExtractor(CombinedExtractor):
    """Flattens the images that are too small for `NatureCNN`."""

    def __init__(self, observation_space: spaces.Dict, normalized_image: bool = False, **kwargs: Any) -> None:
        parts = dict(observation_space.spaces)
        for key, part in parts.items():
            if is_image_space(part, normalized_image=normalized_image) and not fits_cnn(part):
                parts[key] = spaces.flatten_space(part)
        super().__init__(spaces.Dict(parts), normalized_image=normalized_image, **kwargs)
