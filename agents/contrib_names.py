"""The names of SB3 and sb3-contrib: those that work here too, and replacements for the others."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

from fw_rl.agents.policy import RecurrentActorCriticPolicy
from fw_rl.arguments import check_kind, constructor_parameters, require

__all__ = ["LSTM_POLICIES", "check_arguments", "check_policy", "own_names", "own_policy"]

LSTM_POLICIES = ("MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy")
"""sb3-contrib's policies; the space of observations decides the features extractor of the first and the last."""

_ARGUMENTS = {
    "use_rms_prop": "optimizer='rmsprop' or 'adam' takes its place",
    "rms_prop_eps": "optimizer_eps takes its place",
    "use_sde": "there is no state-dependent exploration with a memory",
    "sde_sample_freq": "there is no state-dependent exploration with a memory",
    "rollout_buffer_class": "a rollout of sequences takes its place, see bptt_length",
    "rollout_buffer_kwargs": "bptt_length takes its place",
}
_POLICY_ARGUMENTS = {
    "lstm_hidden_size": "hidden_size",
    "n_lstm_layers": "cell_kwargs=dict(layers=...)",
    "shared_lstm": "shared_cell",
    "enable_critic_lstm": "shared_cell=False",
    "lstm_kwargs": "cell_kwargs (no cell has dropout)",
}


_WITHOUT_EFFECT = (("lstm_kwargs", None), ("full_std", True), ("use_expln", False))
"""Arguments of sb3-contrib's policies that have no effect with their defaults."""


def check_arguments(agent_class: type, arguments: Mapping[str, Any]) -> None:
    """Raise ValueError for an argument of a wrong type, and for one of SB3's or sb3-contrib's, with its replacement here."""
    known = constructor_parameters(agent_class)
    for name, value in arguments.items():
        if name in _ARGUMENTS:
            raise ValueError(f"{name} must be left out: {_ARGUMENTS[name]}")
        if name in known:
            check_kind(known[name], value)
    given = arguments.get("policy_kwargs")
    require("policy_kwargs", given, given is None or isinstance(given, Mapping), "a dictionary")


def check_policy(policy_class: Any, arguments: Mapping[str, Any]) -> type[RecurrentActorCriticPolicy]:
    """The class, if it has a memory and takes these arguments; else ValueError, with our name of an argument of sb3-contrib."""
    if not isinstance(policy_class, type) or not issubclass(policy_class, RecurrentActorCriticPolicy):
        got = f"{policy_class.__module__}.{policy_class.__name__}" if isinstance(policy_class, type) else policy_class
        ours = "fw_rl.agents.RecurrentActorCriticPolicy, or a class derived from it"
        raise ValueError(f"policy must be a name such as 'MlpLstmPolicy' or {ours}, got {got}")
    parameters = list(inspect.signature(policy_class).parameters.values())
    known = {parameter.name: parameter for parameter in parameters[3:]}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    for name, value in arguments.items():
        if name in known:
            check_kind(known[name], value)
        elif not takes_any:
            here = f", which is {_POLICY_ARGUMENTS[name]} here" if name in _POLICY_ARGUMENTS else ""
            raise ValueError(f"policy_kwargs must have known names, got {name!r}{here}: known are {', '.join(known)}")
    return policy_class


def own_names(policy_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a policy by their names here."""
    own = dict(policy_kwargs)
    for theirs, ours in (("lstm_hidden_size", "hidden_size"), ("shared_lstm", "shared_cell")):
        if theirs in own:
            own[ours] = own.pop(theirs)
    if "n_lstm_layers" in own:
        own["cell_kwargs"] = dict(layers=own.pop("n_lstm_layers")) | (own.get("cell_kwargs") or {})
    if (of_critic := own.pop("enable_critic_lstm", None)) is not None:
        shared = own.get("shared_cell", False)
        require("enable_critic_lstm", of_critic, of_critic != shared, f"{not shared} where shared_lstm is {shared}")
    return own


def own_policy(policy: str | type[BasePolicy], policy_kwargs: dict[str, Any]) -> tuple[str | type[BasePolicy], dict[str, Any]]:
    """A policy and its arguments; for a name of sb3-contrib, those that make the same net here."""
    policy_kwargs = {name: value for name, value in policy_kwargs.items() if (name, value) not in _WITHOUT_EFFECT}
    match policy_kwargs.get("net_arch"):
        case [dict(parts)]:  # as SB3 had it once
            policy_kwargs["net_arch"] = parts
    if not (isinstance(policy, str) and policy in LSTM_POLICIES):
        return policy, policy_kwargs
    own = own_names(policy_kwargs)
    if own.get("cell", "lstm") != "lstm":
        raise ValueError(
            f"cell must be left out with {policy!r}, whose cell is an LSTM, got {own['cell']!r}: say 'RecurrentPolicy'"
        )
    net = _lstm_net(policy)
    own["cell_kwargs"] = net["cell_kwargs"] | (own.get("cell_kwargs") or {})
    return "RecurrentPolicy", net | {name: value for name, value in own.items() if (name, value) != ("net_arch", None)}


def _lstm_net(policy: str) -> dict[str, Any]:
    """Arguments of `RecurrentActorCriticPolicy` that make the net of an sb3-contrib policy.

    Sizes, activations and initial weights are sb3-contrib's: `forget_bias=1`, the default of "RecurrentPolicy", learns a task
    without history slowly. Observations are scaled, as by any policy here. A shared LSTM learns from the critic's error too.
    Several layers are a `fw_rl.cells.Stack`.
    """
    return dict(
        cell="lstm",
        hidden_size=256,
        cell_kwargs=dict(layers=1, forget_bias=0.0),
        features_extractor_class=NatureCNN if policy == "CnnLstmPolicy" else None,
        shared_cell=False,
        encoder_arch=[],
        net_arch=[] if policy == "CnnLstmPolicy" else [64, 64],
        activation_fn=nn.Tanh,
        ortho_init=True,
    )
