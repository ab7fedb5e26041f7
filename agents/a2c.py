"""Advantage actor-critic with a memory, as an SB3 algorithm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import LinearSchedule, explained_variance
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from fw_rl.agents.checkpoint import read_checkpoint, write_checkpoint
from fw_rl.agents.loss import actor_critic_loss
from fw_rl.agents.masks import check_masks
from fw_rl.agents.policy import RecurrentActorCriticPolicy
from fw_rl.agents.restore import build_agent
from fw_rl.agents.rollout import RecurrentRollout
from fw_rl.cells import State, Stepper
from fw_rl.envs.sb3 import VecEnvAdapter

__all__ = ["OPTIMIZERS", "PRECISIONS", "RecurrentA2C"]

PRECISIONS = ("highest", "high", "medium")
"""Of matrix products, as Torch names them."""

OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "rmsprop": (torch.optim.RMSprop, dict(alpha=0.99, eps=1e-5)),
    "adam": (torch.optim.Adam, dict(eps=1e-5, fused=True)),
}


class RecurrentA2C(OnPolicyAlgorithm):
    """Synchronous advantage actor-critic whose policy remembers, with the habits of SB3.

    Every `n_steps` steps of all environments make a chunk, and every chunk one update. The memory's state goes on from chunk to
    chunk, the gradient does not. The acting pass keeps no graph: one pass over the whole chunk, with matrix products over all
    its steps at once, then serves values, loss and gradient.

    `env`: an SB3 `VecEnv`, a Gymnasium `VectorEnv`, a Gymnasium `Env`, or an id; if it has the method `action_masks` that
    sb3-contrib's `MaskablePPO` asks for, no forbidden action is taken. `learning_rate`: a number, or an SB3 schedule.
    `bptt_length`: back-propagation goes through so many steps, from 1 to `n_steps`, and begins anew there; None is `n_steps`.
    `anneal`: a number as learning rate goes down to 0 along `learn`, linearly; `anneal_entropy`: so does `ent_coef`.
    `matmul_precision`: of the matrix products of learning, as in `torch.set_float32_matmul_precision`: "highest", "high", or
    "medium", which lets a processor that has bfloat16 use it inside of them. `optimizer`: "rmsprop", as in the A3C paper (Mnih
    et al. 2016), or "adam". `policy_kwargs`: those of `RecurrentActorCriticPolicy`, so `dict(cell="lstm", hidden_size=64)`. The
    other arguments are those of SB3's `A2C`.

    Raises ValueError for an optimizer, a cell or an option that does not exist, and for a number that is not allowed.

    >>> from fw_rl.envs import CatchVectorEnv
    >>> model = RecurrentA2C("RecurrentPolicy", CatchVectorEnv(64, n=16, m=3), policy_kwargs=dict(cell="fast-weights"))
    >>> model = model.learn(total_timesteps=960)
    >>> action, state = model.predict(model.get_env().reset(), state=None, deterministic=True)
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"RecurrentPolicy": RecurrentActorCriticPolicy}
    policy: RecurrentActorCriticPolicy
    rollout_buffer: RecurrentRollout  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[RecurrentActorCriticPolicy],
        env: GymEnv | VectorEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 16,
        gamma: float = 0.99,
        gae_lambda: float = 1.0,
        ent_coef: float = 0.01,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        bptt_length: int | None = None,
        optimizer: str = "rmsprop",
        anneal: bool = True,
        anneal_entropy: bool = False,
        normalize_advantage: bool = False,
        matmul_precision: str = "highest",
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        monitor_wrapper: bool = True,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer is {optimizer!r}: choose from {', '.join(OPTIMIZERS)}")
        self.optimizer, self.anneal, self.anneal_entropy = optimizer, anneal, anneal_entropy
        if matmul_precision not in PRECISIONS:
            raise ValueError(f"matmul_precision is {matmul_precision!r}: choose from {', '.join(PRECISIONS)}")
        self.normalize_advantage, self.matmul_precision = normalize_advantage, matmul_precision
        self.monitor_wrapper = monitor_wrapper
        if n_steps < 1:
            raise ValueError(f"n_steps is {n_steps}: it must be at least 1")
        if bptt_length is not None and not 1 <= bptt_length <= n_steps:
            raise ValueError(f"bptt_length is {bptt_length}: it must be from 1 to n_steps, {n_steps}")
        self.bptt_length = bptt_length
        policy_kwargs = dict(policy_kwargs or {})
        if "optimizer_class" not in policy_kwargs:
            policy_kwargs["optimizer_class"], standard = OPTIMIZERS[optimizer]
            policy_kwargs["optimizer_kwargs"] = standard | (policy_kwargs.get("optimizer_kwargs") or {})
        self._stepper: Stepper | None = None
        self._masked = False
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            rollout_buffer_class=RecurrentRollout,  # type: ignore[arg-type]
            rollout_buffer_kwargs=dict(bptt_length=bptt_length),
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            monitor_wrapper=monitor_wrapper,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            supported_action_spaces=(spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
            _init_setup_model=_init_setup_model,
        )

    @staticmethod
    def _wrap_env(env: GymEnv | VectorEnv | str, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        if isinstance(env, VectorEnv):
            env = VecEnvAdapter(env, monitor=monitor_wrapper)
        env = maybe_make_env(env, verbose)
        return OnPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def _setup_lr_schedule(self) -> None:
        super()._setup_lr_schedule()
        if self.anneal and not callable(self.learning_rate):
            self.lr_schedule = LinearSchedule(float(self.learning_rate), 0.0, 1.0)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        total_timesteps, callback = super()._setup_learn(*args, **kwargs)
        assert self.env is not None
        self._masked = is_masking_supported(self.env)
        if self._last_state is None or len(self._last_state[0]) != self.n_envs:
            self._last_state = self.policy.initial_state(self.n_envs)
        return total_timesteps, callback

    @property
    def _last_state(self) -> State | None:
        """What the memory holds after the last step, as `_last_obs` is what it shows."""
        return None if self._stepper is None else self._stepper.state

    @_last_state.setter
    def _last_state(self, state: State) -> None:
        self._stepper = self.policy.cell.stepper(state)

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RecurrentRollout, n_rollout_steps: int
    ) -> bool:
        """Act for `n_rollout_steps` steps and keep them; False if a callback asked to stop."""
        assert self._last_obs is not None and self._last_episode_starts is not None and self._stepper is not None
        self.policy.set_training_mode(False)
        forgotten = self._last_episode_starts.all()
        rollout_buffer.reset(self.policy.initial_state(env.num_envs) if forgotten else self._stepper.state)
        callback.on_rollout_start()
        for _ in range(n_rollout_steps):
            if rollout_buffer.wants_state:
                rollout_buffer.keep_state(self._stepper.state)
            observation, starts = rollout_buffer.see(self._last_obs, self._last_episode_starts)  # type: ignore[arg-type]
            masks = None
            if self._masked:
                masks = rollout_buffer.allow(check_masks(get_action_masks(env), self.action_space, env.num_envs))
            actions, output = self.policy.act(observation, self._stepper, starts, action_masks=masks)
            new_obs, rewards, dones, infos = env.step(self.policy.to_env_actions(actions))
            self.num_timesteps += env.num_envs
            # Before the callback, which may save, or stop: observation and state belong together.
            self._last_obs, self._last_episode_starts = new_obs, dones  # type: ignore[assignment]

            callback.update_locals(locals())
            if not callback.on_step():
                return False
            if dones.any():
                self._update_info_buffer(infos, dones)
                rewards = rewards + self.gamma * self._values_beyond(dones, infos)
            rollout_buffer.act(actions, rewards, output)

        rollout_buffer.end(dones, self._next_values(dones))
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _values_beyond(self, dones: NDArray[np.bool_], infos: list[dict[str, Any]]) -> NDArray[np.float32]:
        """For each environment what its last observation is worth, where a time limit and not the game ended the episode."""
        values = np.zeros(len(dones), dtype=np.float32)
        rows = [int(i) for i in np.flatnonzero(dones) if infos[i].get("TimeLimit.truncated", False)]
        if rows:
            assert self._last_state is not None
            last = [infos[i]["terminal_observation"] for i in rows]
            stacked = (
                {key: np.stack([part[key] for part in last]) for key in last[0]}
                if isinstance(last[0], dict)
                else np.stack(last)
            )
            state = tuple(part[rows] for part in self._last_state)
            values[rows] = self._predict_values(stacked, state)
        return values

    def _next_values(self, dones: NDArray[np.bool_]) -> NDArray[np.float32]:
        """What the observations after the chunk are worth; 0 where an episode has ended."""
        if dones.all():
            return np.zeros(len(dones), dtype=np.float32)
        assert self._last_obs is not None and self._last_state is not None
        return self._predict_values(self._last_obs, self._last_state) * ~dones

    @torch.no_grad()
    def _predict_values(self, observations: Any, state: State) -> NDArray[np.float32]:
        tensors, _ = self.policy.obs_to_tensor(observations)
        no_starts = torch.zeros(len(state[0]), dtype=torch.bool, device=self.device)
        values: NDArray[np.float32] = self.policy.predict_values(tensors, state, no_starts).cpu().numpy()
        return values

    def train(self) -> None:
        """One update from the chunk that was collected last.

        Raises FloatingPointError if the net has diverged.
        """
        self._require_finite_outputs()
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        weights = self._entropy_weight, self.vf_coef
        with matmul_precision(self.matmul_precision):
            loss = actor_critic_loss(self.policy, self.rollout_buffer, *weights, self.normalize_advantage)
            self.policy.zero_grad()
            loss.total.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self._apply_gradients()

        self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/explained_variance", explained(loss.values, loss.returns))
        self.logger.record("train/entropy_loss", loss.entropy.item())
        self.logger.record("train/policy_loss", loss.policy.item())
        self.logger.record("train/value_loss", loss.value.item())
        self.logger.record("train/grad_norm", grad_norm.item())

    @property
    def _entropy_weight(self) -> float:
        return self.ent_coef * (self._current_progress_remaining if self.anneal_entropy else 1.0)

    def _require_finite_outputs(self) -> None:
        if not self.rollout_buffer.outputs.sum().isfinite():
            raise FloatingPointError(
                f"the memory's output is not finite after {self.num_timesteps:,} frames: train with a lower learning rate"
            )

    def _apply_gradients(self) -> None:
        self.policy.optimizer.step()

    def dump_logs(self, iteration: int = 0) -> None:
        """Write what was logged, with what the memory did on the last chunk."""
        for name, value in self._memory_metrics().items():
            self.logger.record(name, value)
        super().dump_logs(iteration)

    def _memory_metrics(self) -> dict[str, float]:
        rollout = self.rollout_buffer
        with torch.no_grad():
            encoded = self.policy.encode(rollout.observations)
        metrics = self.policy.cell.diagnostics(encoded, rollout.state, rollout.episode_starts)
        return {f"memory/{name}": value for name, value in metrics.items()}

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 100,
        tb_log_name: str = "RecurrentA2C",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for at least `total_timesteps` steps, counted over all environments; see SB3's `learn`."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def predict(  # type: ignore[override]
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """The action for an observation, or for a batch of them; see `RecurrentActorCriticPolicy.predict`."""
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    def save(self, path: str | os.PathLike[str], include_state: bool | None = None) -> None:  # type: ignore[override]
        """Write the agent into one safetensors file, whole or not at all; `path` gets the ending .safetensors.

        `include_state`: whether the file also has what the memory holds now, and the observations and episode starts that
        belong to it (`read_checkpoint(path).episodes`). None: where the environment goes with it, since it is a vector
        environment with the methods `get_state` and `set_state`, such as `CatchVectorEnv`. Then a file from between two chunks
        (after `learn`, or by a callback's `_on_rollout_start`) lets training go on bit for bit; one from amid a chunk, as of
        SB3's `CheckpointCallback`, is without the steps of that chunk. True: with any environment; see `force_reset` of `load`.
        False: never, which makes the file smaller. Settings and statistics of a `VecNormalize` are saved too.

        Warns of what a file cannot hold, such as a learning rate that is a function; see `load`.
        """
        write_checkpoint(path, self, include_state)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | os.PathLike[str],
        env: GymEnv | VectorEnv | str | None = None,
        device: torch.device | str = "auto",
        force_reset: bool = True,
        **overrides: Any,
    ) -> Self:
        """An agent from a file that `save` wrote, on any device; nothing in the file is run.

        `env`: as for a new agent, with the same spaces. Without it the agent predicts only. With it, `learn(...,
        reset_num_timesteps=False)` goes on where the file stops, with the same random numbers: in the same episodes if the file
        holds them and `env` takes them and has as many, else in new ones.

        `force_reset`: as in SB3, `env` is reset before it learns, unless it takes its episodes from the file. False takes it to
        be amid the episodes of a file saved with `include_state=True`, which then go on with what the memory held.

        If the agent learned with a `VecNormalize`, that of `env` takes over its statistics; if there is none, `env` is put into
        one like it (`get_env()` then is what the agent sees). Without `env`, `get_vec_normalize_env().normalize_obs` turns what
        an environment shows into what `predict` takes.

        `overrides`: arguments of the constructor to change. What `policy_kwargs` leaves out stays as it was; an optimizer or
        its options begin its state anew; a `seed` begins new random numbers and episodes, other `cell_kwargs` new episodes.
        What a file cannot hold must be given again: a learning rate that is a function, and classes of the policy that are not
        from Torch or SB3.

        Raises CheckpointError, a ValueError, for a file that is no whole checkpoint or does not fit `env` and `overrides`, and
        ValueError for an unknown override.

        >>> model = RecurrentA2C.load("agent", env)  # doctest: +SKIP
        >>> model = model.learn(1_000_000 - model.num_timesteps, reset_num_timesteps=False)  # doctest: +SKIP
        """
        checkpoint = read_checkpoint(path)
        if force_reset and checkpoint.episodes is not None and checkpoint.episodes.get("env") is None:
            checkpoint = replace(checkpoint, episodes=None)
        return build_agent(cls, checkpoint, env, device, overrides)

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = True, device: torch.device | str = "auto") -> None:
        """Take parameters as `get_parameters` gives them; raises ValueError for a path, since `load` is what reads files."""
        if not isinstance(load_path_or_dict, dict):
            raise ValueError(
                f"set_parameters takes a dictionary, not {load_path_or_dict!r}: {type(self).__name__}.load reads files"
            )
        super().set_parameters(load_path_or_dict, exact_match, device)


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Compute matrix products with this precision; small ones, as while acting, are slower with a lower one."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def explained(values: Tensor, returns: Tensor) -> float:
    """The share of the variance of returns [T, B] that values [T, B] explain."""
    return float(explained_variance(values.flatten().cpu().numpy(), returns.flatten().cpu().numpy()))
