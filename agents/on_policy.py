"""What all agents share: acting with a memory, and prediction. It contains no loss."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from fw_rl.agents.contrib_names import LSTM_POLICIES, check_arguments, check_policy, own_policy
from fw_rl.agents.devices import choose_device
from fw_rl.agents.environments import wrap_env
from fw_rl.agents.finite import first_in_rollout, first_not_finite
from fw_rl.agents.masks import check_masks, has_masks, masks_of
from fw_rl.agents.optimization import OPTIMIZERS, PRECISIONS, torch_threads
from fw_rl.agents.policy import RecurrentActorCriticPolicy
from fw_rl.agents.rollout import Observation, RecurrentRollout, RolloutSequences, map_observation
from fw_rl.agents.saving import SavedAgent
from fw_rl.agents.update_log import memory_metrics
from fw_rl.arguments import require
from fw_rl.cells import State, Stepper
from fw_rl.envs.sb3_tensors import TensorVecEnvAdapter

__all__ = ["RecurrentOnPolicyAlgorithm"]


class RecurrentOnPolicyAlgorithm(SavedAgent):
    """The base of all agents: an SB3 `OnPolicyAlgorithm` whose policy remembers.

    Every `n_steps` steps of all environments make a rollout, from which `train` of a derived class learns. The memory's state
    carries over from rollout to rollout, the gradient does not. If the environment has the method `action_masks` that
    sb3-contrib's `MaskablePPO` asks for, no forbidden action is taken.

    Args:
        policy: "RecurrentPolicy", or a class derived from `RecurrentActorCriticPolicy`; sb3-contrib's "MlpLstmPolicy",
            "CnnLstmPolicy" and "MultiInputLstmPolicy", with their arguments, are this policy with sb3-contrib's net.
        env: An SB3 `VecEnv`, a Gymnasium `VectorEnv` or `Env`, or an id. What a `VectorEnv` with a `device` returns and takes
            stays there, see `TensorVecEnvAdapter`.
        learning_rate: A number, or an SB3 schedule.
        n_steps: Steps of each environment in a rollout.
        gamma: Discount, from 0 to 1.
        gae_lambda: Lambda of the generalised advantages, from 0 to 1.
        ent_coef: Weight of the entropy, at least 0.
        vf_coef: Weight of the value error, at least 0.
        max_grad_norm: Norm to which a longer gradient is clipped, above 0.
        bptt_length: Steps of a sequence, from 1 to `n_steps`, over which gradients are back-propagated; None takes `n_steps`.
        optimizer: "rmsprop", as in the A3C paper (Mnih et al. 2016), or "adam". An `optimizer_class` in `policy_kwargs`
            replaces `optimizer` and `optimizer_eps`.
        optimizer_eps: Its epsilon: gradients far below it move the parameters little.
        anneal: Reduce a learning rate that is a number linearly to 0 over each call of `learn`.
        anneal_entropy: Do the same to `ent_coef`.
        normalize_advantage: Scale the advantages to mean 0 and standard deviation 1; None leaves it to the algorithm.
        norm_reward: Divide rewards by the running deviation of the discounted return, as SB3's `VecNormalize` does; values are
            of scaled rewards. Observations are scaled by the policy, see its `norm_obs`.
        matmul_precision: Precision of matrix products in learning, see `torch.set_float32_matmul_precision`: "highest", "high"
            or "medium".
        threads: Threads of Torch in `learn`. Small nets are fastest on one, above all on shared cores. None keeps Torch's own
            number, which large nets may need.
        stats_window_size: Episodes over which their returns and lengths are averaged for logging.
        tensorboard_log: Folder for TensorBoard's logs; None writes none.
        monitor_wrapper: Report the returns and lengths of episodes.
        policy_kwargs: Arguments of `RecurrentActorCriticPolicy`, such as `dict(cell="lstm", hidden_size=64)`.
        verbose: 0 prints nothing, 1 what happens, 2 more.
        seed: Seed of networks, environments and actions; None for a new one each time.
        device: "cpu", "cuda", or "auto": that of the environment's tensors, a GPU for images and large cells, else the
            processor.
        _init_setup_model: Build the policy at once.

    Raises:
        ValueError: For an optimizer, a cell or an option that does not exist, and for a number that is not allowed.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"RecurrentPolicy": RecurrentActorCriticPolicy}
    policy: RecurrentActorCriticPolicy
    rollout_buffer: RecurrentRollout  # type: ignore[assignment]
    _of_worker = ""  # which environments an error is about, if each worker has its own

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        check_arguments(cls, kwargs)
        return super().__new__(cls)

    def __init__(
        self,
        policy: str | type[RecurrentActorCriticPolicy],
        env: GymEnv | VectorEnv | str | None,
        learning_rate: float | Schedule = 4e-3,
        n_steps: int = 16,
        gamma: float = 0.99,
        gae_lambda: float = 0.9,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 1.0,
        bptt_length: int | None = None,
        optimizer: str = "adam",
        optimizer_eps: float = 1e-5,
        anneal: bool = False,
        anneal_entropy: bool = False,
        normalize_advantage: bool | None = False,
        norm_reward: bool = True,
        matmul_precision: str = "highest",
        threads: int | None = 1,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        monitor_wrapper: bool = True,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        require("threads", threads, threads is None or threads >= 1, "at least 1")
        require("optimizer", optimizer, optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")
        require("matmul_precision", matmul_precision, matmul_precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        require("n_steps", n_steps, n_steps >= 1, "at least 1")
        within = bptt_length is None or 1 <= bptt_length <= n_steps
        require("bptt_length", bptt_length, within, f"from 1 to n_steps, which is {n_steps}")
        for name, share in (("gamma", gamma), ("gae_lambda", gae_lambda)):
            require(name, share, 0 <= share <= 1, "between 0 and 1")
        for name, number in (("max_grad_norm", max_grad_norm), ("optimizer_eps", optimizer_eps)):
            require(name, number, number > 0, "above 0")
        for name, weight in (("ent_coef", ent_coef), ("vf_coef", vf_coef)):
            require(name, weight, 0 <= weight < math.inf, "at least 0 and finite")
        require("env", env, env is not None or not _init_setup_model, "an environment, or an id")
        self.optimizer, self.optimizer_eps, self.anneal, self.anneal_entropy = optimizer, optimizer_eps, anneal, anneal_entropy
        self.normalize_advantage, self.norm_reward, self.matmul_precision = normalize_advantage, norm_reward, matmul_precision
        self.bptt_length, self.monitor_wrapper = bptt_length, monitor_wrapper
        self.torch_threads = threads  # under another name, since it belongs to the machine and not to the agent that is saved
        policy, policy_kwargs = self._resolve_policy(policy, dict(policy_kwargs or {}))
        env = maybe_make_env(env, verbose) if isinstance(env, str) else env
        device = choose_device(device, env, policy_kwargs.get("hidden_size", 0), verbose)
        self._stepper: Stepper | None = None
        self._has_learned = False
        self._masked = False
        self._discounted_returns = torch.zeros(0, dtype=torch.float64)
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
            seed=None if seed is None else int(seed),  # of NumPy too
            device=device,
            supported_action_spaces=(spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
            _init_setup_model=_init_setup_model,
        )

    def _resolve_policy(
        self, policy: str | type[BasePolicy], policy_kwargs: dict[str, Any]
    ) -> tuple[type[RecurrentActorCriticPolicy], dict[str, Any]]:
        """The policy class and its arguments, with those of the optimizer."""
        policy, policy_kwargs = own_policy(policy, policy_kwargs)
        found = self._get_policy_from_name(policy) if isinstance(policy, str) else policy
        policy_class = check_policy(found, policy_kwargs)
        if "optimizer_class" not in policy_kwargs:
            policy_kwargs["optimizer_class"], usual = OPTIMIZERS[self.optimizer]
            own = dict(eps=self.optimizer_eps) | (policy_kwargs.get("optimizer_kwargs") or {})
            policy_kwargs["optimizer_kwargs"] = usual | own
        return policy_class, policy_kwargs

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            known = ", ".join((*self.policy_aliases, *LSTM_POLICIES))
            raise ValueError(f"policy must be one of {known}, or a class of RecurrentActorCriticPolicy, got {policy_name!r}")
        return self.policy_aliases[policy_name]

    @staticmethod
    def _wrap_env(env: GymEnv | VectorEnv | str, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return wrap_env(env, verbose, monitor_wrapper)

    def _setup_lr_schedule(self) -> None:
        super()._setup_lr_schedule()
        if self.anneal and not callable(self.learning_rate):
            self.lr_schedule = LinearSchedule(float(self.learning_rate), 0.0, 1.0)

    def learn(self, *args: Any, **kwargs: Any) -> Self:
        if self.verbose and self.torch_threads not in (None, torch.get_num_threads()):
            print(f"Torch has {self.torch_threads} of {torch.get_num_threads()} threads while it learns; see `threads`")
        with torch_threads(self.torch_threads):
            return super().learn(*args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self._masked = self.env is not None and has_masks(self.env)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        require("env", self.env, self.env is not None, "given before learn, by set_env(env) or load(path, env)")
        was_annealed = self.anneal and not callable(self.learning_rate) and self._current_progress_remaining <= 0
        if self._has_learned and was_annealed and not reset_num_timesteps:
            warnings.warn(
                "the learning rate has gone down to 0, and goes down to 0 again: to call learn in a loop, take anneal=False",
                stacklevel=4,
            )
        self._has_learned = True
        total_timesteps, callback = super()._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        if self._last_state is None or len(self._last_state[0]) != self.n_envs:
            self._last_state = self.policy.initial_state(self.n_envs)
        if len(self._discounted_returns) != self.n_envs:
            self._discounted_returns = torch.zeros(self.n_envs, dtype=torch.float64, device=self.device)
        return total_timesteps, callback

    @property
    def _last_state(self) -> State | None:
        """The memory's state after the last step, matching `_last_obs`."""
        return None if self._stepper is None else self._stepper.state

    @_last_state.setter
    def _last_state(self, state: State) -> None:
        self._stepper = self.policy.cell.stepper(state)

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RecurrentRollout, n_rollout_steps: int
    ) -> bool:
        """Act for `n_rollout_steps` steps of each environment, and fill the rollout; False if a callback asked to stop."""
        assert self._last_obs is not None and self._last_episode_starts is not None and self._stepper is not None
        self.policy.set_training_mode(False)
        self.policy.observation_scaling.refresh()
        rollout_buffer.reset()
        callback.on_rollout_start()
        for _ in range(n_rollout_steps):
            if rollout_buffer.starts_sequence:
                forgotten = not self._keeps_tensors and self._last_episode_starts.all()
                rollout_buffer.add_state(self.policy.initial_state(env.num_envs) if forgotten else self._stepper.state)
            obs_tensor, episode_starts = rollout_buffer.add_observation(
                self._last_obs,  # type: ignore[arg-type]
                self._last_episode_starts,
            )
            masks = None
            if self._masked:
                masks = rollout_buffer.add_action_masks(check_masks(masks_of(env), self.action_space, env.num_envs))
            try:
                sampled, output = self.policy.act(obs_tensor, self._stepper, episode_starts, action_masks=masks)
            except FloatingPointError as error:
                raise self._not_finite("the distribution over actions") from error
            # Actions and what the environment takes of them, under SB3's names for callbacks; tensors where it gives such.
            actions: Any = sampled if self._keeps_tensors else sampled.numpy(force=True)
            clipped_actions: Any = (self.policy.fit_actions if self._keeps_tensors else self.policy.to_env_actions)(sampled)
            new_obs, rewards, dones, infos = env.step(clipped_actions)
            dones = dones if self._keeps_tensors else np.asarray(dones, dtype=bool)
            self.num_timesteps += env.num_envs
            # Before the callback, which may save, or stop: observation and state belong together.
            self._last_obs, self._last_episode_starts = new_obs, dones  # type: ignore[assignment]

            callback.update_locals(locals())
            if not callback.on_step():
                return False
            rollout_buffer.add(sampled, rewards, output)
            self._note_ends(env, dones, infos)

        last_dones = torch.as_tensor(dones, device=self.device)
        scale = self._scale_rewards if self.norm_reward else None
        rollout_buffer.finish(last_dones, self._last_values(last_dones), self._evaluate, scale)
        if isinstance(env, TensorVecEnvAdapter):
            episodes = [dict(episode=one) for one in env.take_episodes()]
            self._update_info_buffer(episodes, np.ones(len(episodes), dtype=bool))
        seen, scaling = rollout_buffer.observations, self.policy.observation_scaling
        finite = rollout_buffer.outputs.sum().isfinite() & rollout_buffer.has_finite_rewards
        if not (finite and scaling.takes(seen)):
            raise self._not_finite("the memory's output")
        scaling.update(seen)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    @property
    def _keeps_tensors(self) -> bool:
        """Whether the environment returns and takes tensors on the policy's device."""
        return isinstance(self.env, TensorVecEnvAdapter)

    def _note_ends(self, env: VecEnv, dones: Any, infos: list[dict[str, Any]]) -> None:
        """Where episodes have ended, keep their infos, and the values of the last observations if a time limit ended them."""
        if isinstance(env, TensorVecEnvAdapter):
            if env.last_observations is not None and env.truncations.any():
                assert self._last_state is not None
                values = self._predict_values(env.last_observations, self._last_state)
                self.rollout_buffer.add_bootstrap(values.where(env.truncations, 0.0))
        elif dones.any():
            self._update_info_buffer(infos, dones)
            self.rollout_buffer.add_bootstrap(self._bootstrap_values(dones, infos))

    def _bootstrap_values(self, dones: NDArray[np.bool_], infos: list[dict[str, Any]]) -> Tensor:
        """The values [B] of the last observations where a time limit, not the game, ended the episode; else 0."""
        values = torch.zeros(len(dones), device=self.device)
        cut = [int(i) for i in np.flatnonzero(dones) if infos[i].get("TimeLimit.truncated", False)]
        rows = [i for i in cut if infos[i].get("terminal_observation") is not None]
        if rows:
            assert self._last_state is not None
            last = [infos[i]["terminal_observation"] for i in rows]
            several = isinstance(last[0], dict)
            stacked = {key: np.stack([part[key] for part in last]) for key in last[0]} if several else np.stack(last)
            found = first_not_finite("terminal_observation", map_observation(lambda part: part[None], stacked))
            if found is not None:
                raise found._replace(environment=rows[found.environment]).error(self.num_timesteps, self._of_worker)
            tensors, _ = self.policy.obs_to_tensor(stacked)
            values[rows] = self._predict_values(tensors, tuple(part[rows] for part in self._last_state))
        return values

    def _last_values(self, dones: Tensor) -> Tensor:
        """The values [B] of the observations after the rollout; 0 where an episode has ended."""
        if dones.all():
            return torch.zeros(len(dones), device=self.device)
        assert self._last_obs is not None and self._last_state is not None
        seen: Any = self._last_obs if self._keeps_tensors else self.policy.obs_to_tensor(self._last_obs)[0]  # type: ignore[arg-type]
        return self._predict_values(seen, self._last_state).masked_fill(dones, 0.0)

    def _scale_rewards(self, rewards: Tensor, starts: Tensor) -> Tensor:
        return self.policy.reward_scaling.scale(rewards, starts, self._discounted_returns, self.gamma)

    def _evaluate(self, sequences: RolloutSequences) -> tuple[Tensor, Tensor]:
        """Values and log-probabilities of sequences by the policy as it acts."""
        self.policy.set_training_mode(False)
        values, log_prob, _ = self.policy.evaluate_actions(*sequences)
        return values, log_prob

    @torch.no_grad()
    def _predict_values(self, observations: Observation, state: State) -> Tensor:
        no_starts = torch.zeros(len(state[0]), dtype=torch.bool, device=self.device)
        values = self.policy.predict_values(observations, state, no_starts)
        if not values.isfinite().all():
            raise self._not_finite("the value of an observation")
        return values

    @property
    def _entropy_weight(self) -> float:
        return self.ent_coef * (max(self._current_progress_remaining, 0.0) if self.anneal_entropy else 1.0)

    def _clip_gradient(self, loss: Tensor) -> Tensor:
        """Clip the gradient of a loss, and return its norm; FloatingPointError if loss or gradient is not finite."""
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        if not (loss.detach() + norm).isfinite():
            raise self._not_finite("the loss or its gradient")
        return norm

    def _not_finite(self, what: str) -> FloatingPointError:
        """The error for numbers that are not finite: it blames an environment that returned them, else the training."""
        frames, found = self.num_timesteps, first_in_rollout(self.rollout_buffer, self._last_obs)  # type: ignore[arg-type]
        if found is not None:
            return found.error(frames - (self.rollout_buffer.pos - found.step) * self.n_envs, self._of_worker)
        return FloatingPointError(f"{what} is not finite after {frames:,} frames: train with a lower learning rate")

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the log, with the memory's metrics on the last rollout if it was collected in this process."""
        if self.logger.output_formats:  # else nobody would see what takes a pass over the rollout
            for name, value in memory_metrics(self.policy, self.rollout_buffer).items():
                self.logger.record(name, value)
        super().dump_logs(iteration)

    def predict(  # type: ignore[override]
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """The action for an observation, or for a batch of them; see `RecurrentActorCriticPolicy.predict`."""
        if self._masked and action_masks is None:
            warnings.warn(
                "action_masks did not come with an observation, so that forbidden actions may be taken: evaluate by "
                "fw_rl.agents.evaluate_policy or MaskedEvalCallback, not by those of SB3",
                stacklevel=2,
            )
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)
