"""Training on a Ray cluster by RLlib's IMPALA or PPO, as an SB3 algorithm; needs Ray, `pip install 'fw-rl[ray]'`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

from fw_rl.agents.ray_session import ray_session  # isort: skip (it sets the environment that Ray reads when imported)

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import register_env
from stable_baselines3.common.type_aliases import MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv

from fw_rl.agents.environments import MakeEnv, WorkerVecEnv
from fw_rl.agents.masks import has_masks
from fw_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from fw_rl.agents.policy import RecurrentActorCriticPolicy
from fw_rl.agents.rllib_module import RecurrentModule
from fw_rl.arguments import require
from fw_rl.processes import WorkerError

__all__ = ["RLlibAgent"]

RLLIB_CONFIGS: dict[str, type[AlgorithmConfig]] = {"impala": IMPALAConfig, "ppo": PPOConfig, "appo": APPOConfig}

METRICS = {
    "mean_pi_loss": "train/policy_loss",
    "policy_loss": "train/policy_loss",
    "mean_vf_loss": "train/value_loss",
    "vf_loss_unclipped": "train/value_loss",
    "entropy": "train/entropy",
    "gradients_default_optimizer_global_norm": "train/grad_norm",
    "default_optimizer_learning_rate": "train/learning_rate",
}
"""RLlib's names, and ours for the same; IMPALA and APPO have the losses as means, PPO by other names."""


class RLlibAgent(RecurrentOnPolicyAlgorithm):
    """The recurrent policy, trained by RLlib on the machines of a Ray cluster, in the style of SB3.

    `n_workers` runners act, each in its own environments, wherever the cluster has a core; the process that calls `learn` is
    the learner. Everything between them, also when a runner or a node is lost, is RLlib's. Callbacks, logs, evaluation and
    `save` belong to this process. A checkpoint is one of `RecurrentA2C`, which can load it without Ray.

    RLlib's optimizer is Adam; its PPO scales the advantages, its IMPALA does not and has no `gae_lambda`.

    Args:
        policy: "RecurrentPolicy", or a class derived from `RecurrentActorCriticPolicy`.
        env: A function that makes the environments of one runner, a Gymnasium `Env`, or a `VectorEnv` in mode `NEXT_STEP`, as
            RLlib asks for; or an id.
        learning_rate: A number; a schedule is rejected.
        algorithm: "impala" (Espeholt et al. 2018), "ppo" or "appo".
        n_workers: Runners.
        ray_address: Address of a running cluster, "auto" for that of this machine; None starts Ray here, on the loopback
            interface only, and ends it after `learn`.
        algorithm_kwargs: Further settings for `training` of RLlib's config.
        timeout: Seconds without a frame after which `learn` gives up.
        device: "cpu" or "auto", which is the same: the learner is on this machine's processor.
        **kwargs: The other arguments of `RecurrentOnPolicyAlgorithm`, as far as RLlib has them; it scales neither observations
            nor rewards. `n_steps` are the steps that a runner sends at a time: a gradient flows over them, and an update has as
            many from each environment.

    Raises:
        ValueError: For an algorithm that does not exist, a learning rate that is a function, environments in another mode or
            with action masks, and for what `RecurrentOnPolicyAlgorithm` and `BatchFirstPolicy` do not take.

    Examples:
        >>> memory = dict(cell="fast-weights", hidden_size=64)
        >>> model = RLlibAgent("RecurrentPolicy", "CartPole-v1", n_workers=2, policy_kwargs=memory)  # doctest: +SKIP
        >>> model = model.learn(total_timesteps=100_000)  # doctest: +SKIP
        >>> model.save("agent")  # doctest: +SKIP
    """

    def __init__(
        self,
        policy: str | type[RecurrentActorCriticPolicy],
        env: MakeEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        algorithm: str = "impala",
        n_workers: int = 2,
        ray_address: str | None = None,
        algorithm_kwargs: dict[str, Any] | None = None,
        timeout: float = 300.0,
        device: torch.device | str = "cpu",
        **kwargs: Any,
    ) -> None:
        require("algorithm", algorithm, algorithm in RLLIB_CONFIGS, f"one of {', '.join(RLLIB_CONFIGS)}")
        require("n_workers", n_workers, n_workers >= 1, "at least 1")
        if callable(learning_rate):
            raise ValueError("learning_rate must be a number, which anneal=True lets go down to 0, got a function")
        # Under names that a checkpoint does not look for: they belong to the cluster, not to the agent.
        self.engine, self.runners, self.address = algorithm, n_workers, ray_address
        self.engine_kwargs, self.patience = algorithm_kwargs or {}, timeout
        made = None if env is None else self._wrap_env(env, monitor_wrapper=kwargs.get("monitor_wrapper", True))
        if made is not None and has_masks(made):
            raise ValueError("env must be without action_masks, of which RLlib does not know, got one that has them")
        device = "cpu" if device == "auto" else device
        unscaled = dict(norm_obs=False) | (kwargs.pop("policy_kwargs", None) or {})  # nobody sees all steps
        super().__init__(policy, made, learning_rate, device=device, policy_kwargs=unscaled, **dict(norm_reward=False) | kwargs)

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        if isinstance(env, WorkerVecEnv):
            return env
        make = partial(gym.make, env) if isinstance(env, str) else env
        return WorkerVecEnv(partial(_vector_env, make) if callable(make) else make, monitor_wrapper)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "RLlib",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for at least `total_timesteps` steps, counted over all runners; see SB3's `learn`.

        Callbacks see about one rollout per second.

        Raises:
            WorkerError: If there is no cluster at the address, or if no frame has come for `timeout` seconds. What had been
                learned is kept.
        """
        total_timesteps, callback = self._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
        callback.on_training_start(locals(), globals())
        with ray_session(self.address, self.runners), self._algorithm(total_timesteps) as algorithm:
            before, last = self.num_timesteps, time.monotonic()
            while self.num_timesteps < total_timesteps:
                callback.on_rollout_start()
                result = algorithm.train()
                frames = before + int(result["env_runners"].get("num_env_steps_sampled_lifetime", 0))
                if frames == self.num_timesteps:
                    if time.monotonic() - last > self.patience:
                        raise WorkerError(f"no frame has come for {self.patience:g} seconds: see the logs of Ray")
                    continue
                self.num_timesteps, last = frames, time.monotonic()
                self._update_from(algorithm, result)
                callback.update_locals(locals())
                if not callback.on_step():
                    break
                callback.on_rollout_end()
                if log_interval is not None and self._n_updates % log_interval == 0:
                    self.dump_logs(self._n_updates)
        callback.on_training_end()
        return self

    def _update_from(self, algorithm: Algorithm, result: dict[str, Any]) -> None:
        """Take over the learner's weights and optimizer, and what RLlib reports."""
        ((weights, optimizer),) = (answer.get() for answer in algorithm.learner_group.foreach_learner(_copy_weights))
        self.policy.load_state_dict(weights)
        self.policy.optimizer.load_state_dict(self.policy.optimizer.state_dict() | dict(state=optimizer))
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        self._n_updates += 1
        acted, learned = result["env_runners"], result.get("learners", {}).get(DEFAULT_MODULE_ID, {})
        if "episode_return_mean" in acted:  # over the last episodes; RLlib reports no more
            mean = dict(r=float(acted["episode_return_mean"]), l=float(acted["episode_len_mean"]))
            self.ep_info_buffer = deque([mean], maxlen=self._stats_window_size)
        for theirs, name in METRICS.items():
            if theirs in learned:
                self.logger.record(name, float(learned[theirs]))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    @contextmanager
    def _algorithm(self, total_timesteps: int) -> Iterator[Algorithm]:
        """RLlib's algorithm, running, in this agent's current state."""
        algorithm = self._config(total_timesteps - self.num_timesteps).build_algo()
        try:
            learners = algorithm.learner_group
            learners.foreach_learner(lambda learner: _set_weights(learner, self.policy))
            algorithm.env_runner_group.sync_weights(from_worker_or_learner_group=learners, inference_only=True)
            yield algorithm
        finally:
            algorithm.stop()

    def _config(self, frames: int) -> AlgorithmConfig:
        """This agent's settings as RLlib's, with `frames` to go."""
        assert isinstance(self.env, WorkerVecEnv)
        register_env("fw_rl", lambda context: context["make"]())
        policy_kwargs = {k: v for k, v in self.policy_kwargs.items() if k not in ("optimizer_class", "optimizer_kwargs")}
        module = dict(policy_kwargs=policy_kwargs, max_seq_len=self.n_steps + 1)  # with a step for the value after the last
        config = RLLIB_CONFIGS[self.engine]()
        config.environment("fw_rl", env_config=dict(make=self.env.make), normalize_actions=False, clip_actions=True)
        config.env_runners(
            num_env_runners=self.runners,
            num_envs_per_env_runner=self.n_envs,
            gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
            rollout_fragment_length=self.n_steps,
        )
        config.learners(num_learners=0)
        config.rl_module(rl_module_spec=RLModuleSpec(RecurrentModule, model_config=module))
        config.reporting(min_time_s_per_iteration=1, metrics_num_episodes_for_smoothing=self._stats_window_size)
        config.debugging(seed=None if self.seed is None else self.seed + self.num_timesteps, log_level="ERROR")
        return config.training(**self._training(frames) | self.engine_kwargs)

    def _training(self, frames: int) -> dict[str, Any]:
        rate, entropy = self.lr_schedule(self._current_progress_remaining), self._entropy_weight
        batch = self.n_steps * self.n_envs * self.runners
        settings: dict[str, Any] = dict(
            lr=[[0, rate], [frames, 0.0]] if self.anneal else rate,
            entropy_coeff=[[0, entropy], [frames, 0.0]] if self.anneal_entropy else entropy,
            gamma=self.gamma,
            grad_clip=self.max_grad_norm,
            grad_clip_by="global_norm",
            train_batch_size_per_learner=batch,
        )
        if self.engine == "ppo":
            updates = dict(num_epochs=4, minibatch_size=max(batch // 4, self.n_steps + 1), clip_param=0.2)
            plain = dict(use_kl_loss=False, vf_clip_param=float("inf"))  # the clipped objective alone, as SB3 has it
            return settings | updates | plain | dict(lambda_=self.gae_lambda, vf_loss_coeff=self.vf_coef)
        settings["vf_loss_coeff"] = 2 * self.vf_coef  # RLlib halves the squared error here
        if self.engine == "appo":
            return settings | dict(use_circular_buffer=False)
        return settings | dict(learner_queue_size=1)  # what waits there was acted by weights that are as many updates old


def _copy_weights(learner: Any) -> tuple[dict[str, Any], dict[int, Any]]:
    """A copy of a learner's weights, and of its optimizer's averages."""
    weights = learner.module[DEFAULT_MODULE_ID].unwrapped().net.policy.state_dict()
    averages = learner.get_optimizer(DEFAULT_MODULE_ID).state_dict()["state"]
    return {name: part.clone() for name, part in weights.items()}, {
        number: {name: part.clone() for name, part in own.items()} for number, own in averages.items()
    }


def _set_weights(learner: Any, policy: RecurrentActorCriticPolicy) -> None:
    """Set a learner's weights to those of a policy, with the averages of its optimizer."""
    learner.module[DEFAULT_MODULE_ID].unwrapped().net.policy.load_state_dict(policy.state_dict())
    optimizer = learner.get_optimizer(DEFAULT_MODULE_ID)
    if policy.optimizer.state:
        optimizer.load_state_dict(optimizer.state_dict() | dict(state=policy.optimizer.state_dict()["state"]))


def _vector_env(make: MakeEnv) -> VectorEnv:
    """The environments of one runner, as RLlib steps them."""
    made: Any = make()
    if not isinstance(made, VectorEnv):
        return SyncVectorEnv([lambda: made], autoreset_mode=AutoresetMode.NEXT_STEP)
    mode = made.metadata.get("autoreset_mode")
    if mode != AutoresetMode.NEXT_STEP:
        raise ValueError(f"autoreset_mode of env must be AutoresetMode.NEXT_STEP, got {mode}")
    vector: VectorEnv = made
    return vector
