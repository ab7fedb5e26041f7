"""The default features extractor of an observation, and the form in which it sees images."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import VecTransposeImage


def standard_extractor(space: spaces.Space, normalize_images: bool = True) -> type[BaseFeaturesExtractor]:
    """SB3's `CombinedExtractor` for a Dict, its `NatureCNN` for an image of 36 x 36 or more, else its `FlattenExtractor`.

    An image has its channels first; without `normalize_images` it may have any numbers. Smaller images in a Dict are flattened,
    too.
    """
    if isinstance(space, spaces.Dict):
        small = any(_is_small_image(part, normalize_images) for part in space.spaces.values())
        return _CombinedExtractor if small else CombinedExtractor
    return NatureCNN if fits_cnn(space, normalize_images) else FlattenExtractor


def fits_cnn(space: spaces.Space, normalize_images: bool = True) -> bool:
    """Whether it is an image, channels first, that is large enough for the kernels and strides of `NatureCNN`."""
    return is_image_space(space, normalized_image=not normalize_images) and min((space.shape or ())[1:]) >= 36


def _is_small_image(space: spaces.Space, normalize_images: bool) -> bool:
    return is_image_space(space, normalized_image=not normalize_images) and not fits_cnn(space, normalize_images)


def channels_first(space: spaces.Space) -> spaces.Space:
    """The space as SB3's algorithms see it, which put images into a `VecTransposeImage`."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: channels_first(part) for key, part in space.spaces.items()})
    return VecTransposeImage.transpose_space(space) if has_channels_last(space) else space  # type: ignore[arg-type]


def has_channels_last(space: spaces.Space) -> bool:
    """Whether it is an image whose channels SB3's algorithms move to the front."""
    return is_image_space(space) and not is_image_space_channels_first(space)  # type: ignore[arg-type]


class _CombinedExtractor(CombinedExtractor):
    """Flattens the images that are too small for `NatureCNN`."""

    def __init__(self, observation_space: spaces.Dict, normalized_image: bool = False, **kwargs: Any) -> None:
        parts = dict(observation_space.spaces)
        for key, part in parts.items():
            if _is_small_image(part, not normalized_image):
                parts[key] = spaces.flatten_space(part)
        super().__init__(spaces.Dict(parts), normalized_image=normalized_image, **kwargs)
