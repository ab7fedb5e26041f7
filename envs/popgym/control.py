"""CartPole and Pendulum of POPGym (Morad et al. 2023): those of Gymnasium, partly observed, with or without noise."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from fw_rl.envs.game import Game, Outcome, State


class Control(Game):
    """What CartPole and Pendulum share: a time limit, and two numbers that are seen.

    Args:
        steps: After how many steps an episode is truncated.
        noise: Standard deviation of the normal noise that is added to what is seen.
    """

    observation_space: spaces.Box

    def __init__(self, steps: int = 200, noise: float = 0.0) -> None:
        self.steps, self.noise = steps, noise

    @abstractmethod
    def begin_motion(self, rng: np.random.Generator, num: int) -> State:
        """Positions and velocities at the beginning, [num] each."""

    @abstractmethod
    def move(self, state: State, actions: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Change positions and velocities by one step; returns rewards and terminations."""

    @abstractmethod
    def seen(self, state: State) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The two numbers of each episode that are seen."""

    def begin(self, rng: np.random.Generator, num: int) -> State:
        return self.begin_motion(rng, num) | self._draw_noise(rng, num)

    def step(self, state: State, actions: NDArray[Any], rng: np.random.Generator) -> Outcome:
        rewards, terminations = self.move(state, actions)
        state |= self._draw_noise(rng, len(actions))
        return rewards, terminations, state["t"] == self.steps

    def observe(self, state: State) -> NDArray[Any]:
        seen = np.stack(self.seen(state), axis=1).astype(np.float32)
        if not self.noise:
            return seen
        return np.clip(seen + state["noise"], self.observation_space.low, self.observation_space.high)

    def _draw_noise(self, rng: np.random.Generator, num: int) -> State:
        return dict(noise=rng.normal(0, self.noise, (num, 2)).astype(np.float32)) if self.noise else {}


class PositionOnlyCartPole(Control):
    """Balance a pole on a cart without seeing the velocities.

    Observation: the position of the cart and the angle of the pole. Action: 0 push to the left, 1 to the right. A step earns
    1 / steps. The episode terminates when the cart is 2.4 from the middle or the pole leans by 12 degrees.

    Args:
        steps: After how many steps an episode is truncated.
        noise: Standard deviation of the normal noise that is added to what is seen.
    """

    farthest, steepest = 2.4, 12 * 2 * math.pi / 360
    gravity, cart_mass, pole_mass, half_length, force, seconds = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02

    def __init__(self, steps: int = 200, noise: float = 0.0) -> None:
        super().__init__(steps, noise)
        high = np.array([2 * self.farthest, 2 * self.steepest], np.float32)
        self.observation_space, self.action_space = spaces.Box(-high, high), spaces.Discrete(2)

    def begin_motion(self, rng: np.random.Generator, num: int) -> State:
        x, x_velocity, angle, angle_velocity = rng.uniform(-0.05, 0.05, (4, num))
        return dict(x=x, x_velocity=x_velocity, angle=angle, angle_velocity=angle_velocity)

    def move(self, state: State, actions: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        x, x_velocity, angle, angle_velocity = (state[name] for name in ("x", "x_velocity", "angle", "angle_velocity"))
        mass, pole = self.cart_mass + self.pole_mass, self.pole_mass * self.half_length
        sine, cosine = np.sin(angle), np.cos(angle)
        push = (np.where(actions == 1, self.force, -self.force) + pole * np.square(angle_velocity) * sine) / mass
        inertia = self.half_length * (4.0 / 3.0 - self.pole_mass * np.square(cosine) / mass)
        angle_acceleration = (self.gravity * sine - cosine * push) / inertia
        x_acceleration = push - pole * angle_acceleration * cosine / mass
        state["x"] = x = x + self.seconds * x_velocity
        state["x_velocity"] = x_velocity + self.seconds * x_acceleration
        state["angle"] = angle = angle + self.seconds * angle_velocity
        state["angle_velocity"] = angle_velocity + self.seconds * angle_acceleration
        return np.full(len(x), 1 / self.steps), (np.abs(x) > self.farthest) | (np.abs(angle) > self.steepest)

    def seen(self, state: State) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return state["x"], state["angle"]


class VelocityOnlyCartPole(PositionOnlyCartPole):
    """Balance a pole on a cart, seeing only the velocities.

    It is `PositionOnlyCartPole` except for the observation: the velocities of cart and pole. As in popgym, the first
    observation of an episode is of the positions.

    Args:
        steps: After how many steps an episode is truncated.
    """

    def __init__(self, steps: int = 200) -> None:
        super().__init__(steps)
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,))

    def seen(self, state: State) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        begins = state["t"] == 0
        return (
            np.where(begins, state["x"], state["x_velocity"]),
            np.where(begins, state["angle"], state["angle_velocity"]),
        )


class PositionOnlyPendulum(Control):
    """Swing a pendulum up and hold it there; its velocity is not seen.

    Observation: cosine and sine of the angle, which is 0 at the top. Action: the torque, clipped to [-2, 2]. A step earns (1 -
    2 cost / 16.27) / steps with cost = angle^2 + 0.1 velocity^2 + 0.001 torque^2: from -1 / steps to 1 / steps.

    Args:
        steps: After how many steps an episode is truncated.
        noise: Standard deviation of the normal noise that is added to what is seen.
    """

    highest_cost, highest_velocity, highest_torque, gravity, seconds = 16.2736044, 8.0, 2.0, 10.0, 0.05

    def __init__(self, steps: int = 200, noise: float = 0.0) -> None:
        super().__init__(steps, noise)
        self.observation_space = spaces.Box(-1.0, 1.0, (2,))
        self.action_space = spaces.Box(-self.highest_torque, self.highest_torque, (1,))

    def begin_motion(self, rng: np.random.Generator, num: int) -> State:
        return dict(angle=rng.uniform(-np.pi, np.pi, num), velocity=rng.uniform(-1.0, 1.0, num))

    def move(self, state: State, actions: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        angle, velocity = state["angle"], state["velocity"]
        torque = np.clip(actions[:, 0], -self.highest_torque, self.highest_torque)
        lean = (angle + np.pi) % (2 * np.pi) - np.pi
        costs = lean**2 + 0.1 * velocity**2 + 0.001 * torque**2
        faster = velocity + (3 * self.gravity / 2 * np.sin(angle) + 3.0 * torque) * self.seconds
        state["velocity"] = velocity = np.clip(faster, -self.highest_velocity, self.highest_velocity)
        state["angle"] = angle + velocity * self.seconds
        middle = self.highest_cost / 2
        return (middle - costs) / middle / self.steps, np.zeros(len(angle), np.bool_)

    def seen(self, state: State) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.cos(state["angle"]), np.sin(state["angle"])
