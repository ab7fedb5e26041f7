"""RLlib's IMPALA with our module and with its own LSTM: frames per second, bytes per step, and the runners that a learner
serves.

    python benchmarks/ray_speed.py --out results/ray/speed.json

Frames per second are those that the runners sampled while the learner learned, on Catch-16-3, each contender in turn. Bytes are
those of a step in the episodes that a runner sends, pickled. The speeds of a learner alone and of a runner alone give the
number of runners that a learner can serve. Needs `pip install 'fw-rl[ray]'`.
"""

from __future__ import annotations

import math
import pickle
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fw_rl.agents.rllib import RLlibAgent  # isort: skip (it sets the environment that Ray reads when imported)

import torch
import tyro
from gymnasium.vector import AutoresetMode
from measure import calls_per_second, in_turn, ratio_row, write_report
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.learner import Learner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from fw_rl.agents.ray_session import ray_session
from fw_rl.envs import CatchVectorEnv

PEER = "RLlib's LSTM"
CONTENDERS: dict[str, dict[str, Any]] = {
    "fast weights, last hidden vectors": dict(cell="fast-weights", cell_kwargs=dict(eta=0.1, decay=0.1)),
    "fast weights, matrix": dict(cell="fast-weights", cell_kwargs=dict(eta=0.01, decay=0.95)),
    "lstm": dict(cell="lstm"),
    PEER: {},
}
"""What a state holds depends on the decay, see `FastWeightsCell`: only a slow one has a matrix."""


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    n: int = 16
    """Pixels of a side of Catch."""
    num_envs: int = 16
    """Environments of a runner."""
    hidden_size: int = 64
    """Units of the memory."""
    runners: tuple[int, ...] = (1, 2)
    """Runners."""
    many_runners: tuple[int, ...] = (10, 100, 1000)
    """Runners for which the limits are computed."""
    repeats: int = 3
    """Measurements of each, in turn."""
    seconds: float = 15.0
    """Length of one measurement."""
    out: Path | None = None
    """A JSON file for the settings, versions and all measurements."""


def main(settings: Settings) -> None:
    torch.set_num_threads(1)
    parts = {name: measure_parts(name, settings) for name in CONTENDERS}
    print(f"{'':36}{'bytes a step':>14}{'runner alone':>14}{'learner alone':>15}   frames/s")
    for name, part in parts.items():
        print(f"{name:36}{part['bytes']:14,.0f}{part['runner']:14,.0f}{part['learner']:15,.0f}")
    speeds: dict[int, dict[str, list[float]]] = {}
    with ray_session(None, max(settings.runners)):
        for runners in settings.runners:
            measure = partial(frames_per_second, settings=settings, runners=runners)
            speeds[runners] = in_turn(measure, list(CONTENDERS), settings.repeats)
            print(f"\n{f'runners: {runners}':36}{'frames/s':>12}{'ratio':>10}   min to max, beside {PEER}")
            for name, measured in speeds[runners].items():
                print(ratio_row(name, measured, speeds[runners][PEER], width=36), flush=True)
    table = {name: limits(part, settings.many_runners) for name, part in parts.items()}
    for name, rows in table.items():
        print(f"\n{name}")
        for count, row in rows.items():
            network = f"{row['gigabits']:.2f} Gbit/s"
            print(f"{count:6,} runners sample {row['sampled']:12,.0f} frames/s, {network}: needs {row['learners']:,} learners")
    write_report(settings.out, settings, parts=parts, frames_per_second=speeds, limits=table)


def limits(part: dict[str, float], counts: tuple[int, ...]) -> dict[int, dict[str, float]]:
    """What these numbers of runners would send, and how many learners they would need."""
    return {
        count: dict(
            sampled=count * part["runner"],
            gigabits=count * part["runner"] * part["bytes"] * 8 / 1e9,
            learners=math.ceil(count * part["runner"] / part["learner"]),
        )
        for count in counts
    }


def make_config(name: str, settings: Settings, runners: int) -> AlgorithmConfig:
    """The same settings for every contender, except the module."""
    make = partial(CatchVectorEnv, settings.num_envs, n=settings.n, m=3, autoreset_mode=AutoresetMode.NEXT_STEP)
    memory = dict(hidden_size=settings.hidden_size, encoder_arch=[128], net_arch=[], shared_cell=True) | CONTENDERS[name]
    agent = RLlibAgent("RecurrentPolicy", make, n_steps=settings.n - 1, n_workers=runners, seed=0, policy_kwargs=memory)
    config = agent._config(10**9)
    if name == PEER:
        sizes = dict(fcnet_hiddens=[128], fcnet_activation="relu", lstm_cell_size=settings.hidden_size)
        model = DefaultModelConfig(**sizes, use_lstm=True, max_seq_len=settings.n, vf_share_layers=True, head_fcnet_hiddens=[])
        config.rl_module(rl_module_spec=RLModuleSpec(model_config=model))
    return config


def frames_per_second(name: str, settings: Settings, runners: int) -> float:
    """Frames sampled and learned from per second, after a warm-up."""
    algorithm = make_config(name, settings, runners).build_algo()
    try:
        before = 0
        while before < 1_000:  # until kernels are compiled and queues are full
            before = sampled(algorithm)
        begin = time.perf_counter()
        while time.perf_counter() - begin < settings.seconds:
            after = sampled(algorithm)
        return (after - before) / (time.perf_counter() - begin)
    finally:
        algorithm.stop()


def sampled(algorithm: Any) -> int:
    return int(algorithm.train()["env_runners"].get("num_env_steps_sampled_lifetime", 0))


def measure_parts(name: str, settings: Settings) -> dict[str, float]:
    """Bytes per step, and the frames per second of one runner and of one learner, each alone in this process."""
    config = make_config(name, settings, 1)
    runner = SingleAgentEnvRunner(config=config, worker_index=1)
    steps = (settings.n - 1) * settings.num_envs
    episodes = runner.sample(num_timesteps=steps)
    size = len(pickle.dumps(episodes, protocol=5)) / sum(map(len, episodes))
    acted = calls_per_second(lambda: runner.sample(num_timesteps=steps), settings.seconds)
    learner = config.build_learner(env=runner.env)
    learner.build()

    def learn() -> None:  # the step of any of RLlib's learners: IMPALA's own hands over to a thread, and returns
        batch = pickle.loads(pickle.dumps(episodes))  # the learner's connectors write into the episodes
        Learner.update(learner, training_data=TrainingData(episodes=batch), timesteps={})

    learn()
    learned = calls_per_second(learn, settings.seconds)
    learner.shutdown()
    runner.stop()
    return dict(bytes=size, runner=acted * steps, learner=learned * steps)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
