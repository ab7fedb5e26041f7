"""Games as Gymnasium environments: a game is its rules on arrays, and everything else is the same for every game."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from fw_rl.envs.rules import describe
from fw_rl.envs.vector import check_mask, check_num_envs, generator_in, seed_one_generator

State = dict[str, NDArray[Any]]
"""What episodes depend on, by name: arrays [num, ...] with a row for each episode."""

Outcome = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]
"""Rewards, terminations and truncations, each [num]."""


class Game(ABC):
    """The rules of a game, for `num` episodes at once.

    Everything that changes is in the state, a dictionary of arrays with a row for each episode, to which the environment adds
    "t", the steps since the episode began. `GameVectorEnv` and `GameEnv` make environments from a game.

    Attributes:
        observation_space: What one player observes.
        action_space: What one player may do: `Discrete`, `MultiDiscrete` or `Box`.
        render_fps: Pictures per second of a game that has pictures, else None.
    """

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    render_fps: float | None = None

    @abstractmethod
    def begin(self, rng: np.random.Generator, num: int) -> State:
        """The state of new episodes.

        Args:
            rng: Draws what chance decides.
            num: Number of episodes.
        """

    @abstractmethod
    def step(self, state: State, actions: NDArray[Any], rng: np.random.Generator) -> Outcome:
        """Advance the state by one step, the `state["t"]`-th of each episode; returns rewards, terminations and truncations.

        Args:
            state: Arrays to write to or to replace; `t` is 1 in the first step.
            actions: Valid actions, [num, ...].
            rng: Draws what chance decides.
        """

    @abstractmethod
    def observe(self, state: State) -> NDArray[Any]:
        """What the players see, [num, ...], in a new array.

        Args:
            state: As it is after `begin` or `step`.
        """

    def picture(self, state: State, actions: Sequence[Any]) -> NDArray[np.uint8]:
        """What a person sees of one episode, [height, width, 3].

        Args:
            state: With one row, as it is after `begin` or `step`.
            actions: Those of the episode so far.

        Raises:
            NotImplementedError: If the game has no pictures.
        """
        raise NotImplementedError(f"{type(self).__name__} has no pictures")


class GameVectorEnv(gym.vector.VectorEnv[NDArray[Any], ArrayLike, NDArray[Any]]):
    """Many episodes of a game in arrays.

    Autoreset modes, `reset(options={"reset_mask": mask})` and seeds are as in `CatchVectorEnv`: one generator, `np_random`,
    serves all episodes, and by default an episode that has ended begins again in the same step. Every observation is a new
    array.

    Args:
        game: The game's class, or its "module:name".
        num_envs: Episodes, at least 1.
        autoreset_mode: An `AutoresetMode` or its value, such as "SameStep".
        render_mode: None: a `GameEnv` draws its game.
        rules: Arguments of the class.

    Raises:
        ValueError: If an argument, action, option or seed is not one of those above.
        TypeError: For any other render_mode.
        gymnasium.error.ResetNeeded: For a step before all episodes began and, with `DISABLED`, after the end of one.

    Examples:
        >>> from fw_rl.envs.popgym import RepeatPrevious
        >>> envs = GameVectorEnv(RepeatPrevious, num_envs=64, num_decks=2, k=8)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations, rewards, terminations, truncations, infos = envs.step(envs.action_space.sample())
        >>> observations.shape, rewards.shape
        ((64,), (64,))
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 (gymnasium declares its type)

    def __init__(
        self,
        game: type[Game] | str,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **rules: Any,
    ) -> None:
        if render_mode is not None:
            raise TypeError(f"render_mode must be None for many games at once, got {render_mode!r}: gym.make draws one")
        made_by: Any = load_env_creator(game) if isinstance(game, str) else game
        self.game: Game = made_by(**rules)
        self.num_envs = check_num_envs(num_envs)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space, self.single_action_space = self.game.observation_space, self.game.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._state: State = {}  # no episode has begun

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begin all episodes, or those of `options["reset_mask"]`; the observations are those of all.

        Args:
            seed: Seeds the one generator: an int, or a list of `num_envs` ints taken as a whole.
            options: "reset_mask" or nothing.
        """
        options = dict(options or {})
        mask = check_mask(options.pop("reset_mask", np.ones(self.num_envs, np.bool_)), self.num_envs)
        if options:
            raise ValueError(f"options must be reset_mask alone, got {', '.join(map(repr, options))}")
        if not (self._state or mask.all()):
            raise gym.error.ResetNeeded("the first reset must begin all games")
        seed_one_generator(self, seed)
        self._begin(np.flatnonzero(mask))
        return self.game.observe(self._state), {}

    def step(self, actions: ArrayLike) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        chosen = self._check_actions(actions)
        if not self._state:
            raise gym.error.ResetNeeded("no episode is under way: call reset() first")
        waiting = self._state["ended"]
        if not waiting.any():
            rewards, terminations, truncations = self._play(self._state, chosen)
        elif self.autoreset_mode == AutoresetMode.DISABLED:
            raise gym.error.ResetNeeded("some episodes have ended: reset them (autoreset is off)")
        else:
            rewards, terminations, truncations = self._play_some(np.flatnonzero(~waiting), chosen)
            self._begin(np.flatnonzero(waiting))
        ended, infos = terminations | truncations, {}
        observations = self.game.observe(self._state)
        if self.autoreset_mode != AutoresetMode.SAME_STEP:
            self._state["ended"] = ended
        elif ended.any():
            infos = _final_infos(ended, observations)
            self._begin(np.flatnonzero(ended))
            observations = self.game.observe(self._state)
        return observations, rewards, terminations, truncations, infos

    def get_state(self) -> dict[str, Any]:
        """Everything the episodes depend on: arrays [num_envs, ...] by name, and "random"."""
        arrays = {name: rows.copy() for name, rows in self._state.items()}
        return arrays | {"random": self.np_random.bit_generator.state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where other environments of the same game were, which must have the same number.

        Args:
            state: From their `get_state`.

        Raises:
            ValueError: If `state` is not one that these environments can have. They are left unchanged.
        """
        if not isinstance(state, Mapping):
            raise ValueError(f"state must be a dictionary, got {describe(state)}")
        arrays = {name: np.array(rows) for name, rows in state.items() if name != "random"}
        if arrays:
            expected = self._new_state(np.random.default_rng(), self.num_envs)
            if arrays.keys() != expected.keys():
                raise ValueError(f"state must have {', '.join(expected)}, got {', '.join(arrays)}")
            for name, rows in expected.items():
                if (arrays[name].shape, arrays[name].dtype) != (rows.shape, rows.dtype):
                    raise ValueError(
                        f"state[{name!r}] must be {rows.dtype} of shape {rows.shape}, got {describe(arrays[name])}"
                    )
            self._check_observable(arrays)
        self.np_random = generator_in(state)
        self._state = arrays

    def _check_observable(self, state: State) -> None:
        """Raise ValueError for arrays of the right form that no episode leads to, as far as observations tell."""
        try:
            observations = self.game.observe({name: rows.copy() for name, rows in state.items()})
        except IndexError as error:
            raise ValueError("state must be one of episodes under way, got one beyond their ends") from error
        if (state["t"] < 0).any() or observations not in self.observation_space:
            raise ValueError("state must be one of episodes under way, got one that shows what cannot be seen")

    def _new_state(self, rng: np.random.Generator, num: int) -> State:
        return self.game.begin(rng, num) | {"t": np.zeros(num, np.int64), "ended": np.zeros(num, np.bool_)}

    def _begin(self, which: NDArray[np.intp]) -> None:
        """Begin these episodes."""
        begun = self._new_state(self.np_random, len(which))
        if not self._state:
            self._state = begun
            return
        for name, rows in begun.items():
            self._state[name][which] = rows

    def _play(self, state: State, actions: NDArray[Any]) -> Outcome:
        state["t"] += 1
        return self.game.step(state, actions, self.np_random)

    def _play_some(self, which: NDArray[np.intp], actions: NDArray[Any]) -> Outcome:
        """One step of these episodes; the others have reward 0."""
        part = {name: rows[which] for name, rows in self._state.items()}
        outcome = np.zeros(self.num_envs), np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        for whole, rows in zip(outcome, self._play(part, actions[which]), strict=True):
            whole[which] = rows
        for name, rows in part.items():
            self._state[name][which] = rows
        return outcome

    def _check_actions(self, actions: ArrayLike) -> NDArray[Any]:
        chosen, space = np.array(actions), self.action_space  # a copy, which the state may keep
        if isinstance(space, spaces.Box):
            valid = chosen.shape == space.shape and chosen.dtype.kind in "fiu" and bool(np.isfinite(chosen).all())
            chosen = chosen.astype(space.dtype) if valid else chosen
        else:
            assert isinstance(space, spaces.MultiDiscrete)
            valid = chosen.shape == space.shape and chosen.dtype.kind in "iu"
            valid = valid and bool(((chosen >= space.start) & (chosen < space.start + space.nvec)).all())
        if not valid:
            raise ValueError(f"actions must be {self.num_envs} of {self.single_action_space}, got {describe(actions)}")
        return chosen


class GameEnv(gym.Env[Any, Any]):
    """One episode of a game at a time: `GameVectorEnv` with one environment.

    Args:
        game: The game's class, or its "module:name".
        render_mode: None, or "rgb_array" for a game that has pictures.
        rules: Arguments of the class.

    Raises:
        ValueError: If an argument, action or option is not one of those above.
        TypeError: For any other render_mode.
        gymnasium.error.ResetNeeded: For a step or picture before `reset`, and a step after the end.

    Examples:
        >>> import fw_rl
        >>> env = gym.make("fw_rl/RepeatPreviousEasy-v0")
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(2)
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012 (gymnasium declares its type)

    def __init__(self, game: type[Game] | str, *, render_mode: str | None = None, **rules: Any) -> None:
        self._envs = GameVectorEnv(game, autoreset_mode=AutoresetMode.DISABLED, **rules)
        self.game = self._envs.game
        self.observation_space, self.action_space = self._envs.single_observation_space, self._envs.single_action_space
        modes = [] if self.game.render_fps is None else ["rgb_array"]
        if render_mode not in (None, *modes):  # SB3 asks for "rgb_array" wherever it gets an id, and takes a TypeError for a no
            allowed = "None or rgb_array" if modes else "None, since the game has no pictures"
            raise TypeError(f"render_mode must be {allowed}, got {render_mode!r}")
        self.metadata = dict(render_modes=modes, render_fps=self.game.render_fps)
        self.render_mode = render_mode
        self._actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._envs.np_random = self.np_random
        observations, infos = self._envs.reset(options=options)
        self._actions = []
        return observations[0], infos

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observations, rewards, terminations, truncations, infos = self._envs.step(np.asarray(action)[None])
        self._actions.append(action)
        return observations[0], float(rewards[0]), bool(terminations[0]), bool(truncations[0]), infos

    def render(self) -> NDArray[np.uint8] | None:
        if self.render_mode is None:
            gym.logger.warn("render() shows nothing: the environment was made without a render_mode")
            return None
        state = self._envs.get_state()
        if len(state) == 1:
            raise gym.error.ResetNeeded("there is nothing to render: call reset() first")
        return self.game.picture(state, self._actions)


def register_game(env_id: str, game: type[Game], **rules: Any) -> None:
    """Register an id of a game with Gymnasium if it is new, for one episode and for many."""
    if env_id not in gym.registry:  # no max_episode_steps: every episode ends by itself
        gym.register(
            env_id,
            entry_point="fw_rl.envs.game:GameEnv",
            vector_entry_point="fw_rl.envs.game:GameVectorEnv",
            kwargs=dict(game=f"{game.__module__}:{game.__name__}") | rules,
        )


def _final_infos(ended: NDArray[np.bool_], observations: NDArray[Any]) -> dict[str, Any]:
    """The last observations of the ended episodes, in the form of Gymnasium's `SAME_STEP`."""
    final_obs = np.empty(len(ended), object)  # of None
    for i in np.flatnonzero(ended):
        final_obs[i] = observations[i]
    return {"final_obs": final_obs, "_final_obs": ended.copy(), "final_info": {}, "_final_info": ended.copy()}
