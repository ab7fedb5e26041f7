"""A recurrent A2C and PPO in JAX, as a peer: Catch, the cell, the loss and the update are one compiled function.

    python benchmarks/jax_agent.py --algo a2c --cell lstm --n-envs 512 --frames 2000000

It is written in the style of PureJaxRL and memorax, with our nets for Catch: a layer of 128 ReLUs, 128 recurrent units that
actor and critic share, linear heads. A rollout is one episode. A2C's gradient goes through the steps as they were taken, so
that the forward pass runs once; PPO runs the cell anew in each epoch. It needs jax and optax, which the extra `bench` brings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
import tyro
from jax import Array, lax, nn, random

N, M, PADDLE = 16, 3, 2
STEPS = N - 1
ACTIONS = 3
UNITS = 128
GAMMA = 0.99

Params = Any
State = tuple[Array, ...]


@dataclass(frozen=True)
class Settings:
    """What to train; the entropy weight and the learning rate are those of `train.py` for Catch-16-3."""

    algo: Literal["a2c", "ppo"] = "a2c"
    """Algorithm."""
    cell: Literal["lstm", "gru", "fast-weights"] = "lstm"
    """Memory cell."""
    n_envs: int = 64
    """Games side by side; for PPO a multiple of the games of a minibatch."""
    learning_rate: float = 1e-3
    """Learning rate of Adam; it falls to 0 over the frames."""
    ent_coef: float = 0.01
    """Weight of the entropy."""
    gae_lambda: float = 1.0
    """Lambda of the generalised advantages."""
    normalize_advantage: bool = False
    """Scale the advantages of an update; PPO always does."""
    n_epochs: int = 4
    """Passes of PPO over each rollout."""
    minibatch_envs: int = 16
    """Games of a minibatch of PPO."""
    frames: int = 2_000_000
    """Length of the training."""
    seed: int = 0
    """Seed of parameters, games and actions."""


class Game(NamedTuple):
    """Columns of ball and paddle, [B]; the row of the ball is the step of the rollout, and so the same in all games."""

    ball: Array
    paddle: Array


class Transition(NamedTuple):
    """A step of all games: what was seen, done and earned, [B, ...], and what the policy computed."""

    seen: Array
    action: Array
    reward: Array
    value: Array
    log_prob: Array
    entropy: Array


def start(key: Array, n_envs: int) -> Game:
    """New games, with random columns."""
    ball, paddle = random.split(key)
    return Game(random.randint(ball, (n_envs,), 0, N), random.randint(paddle, (n_envs,), 0, N - PADDLE + 1))


def screen(game: Game, row: Array) -> Array:
    """The pixels [B, N * N], blank from row M on."""
    column = jnp.arange(N)
    ball = (column == game.ball[:, None]).astype(jnp.float32)
    paddle = ((column >= game.paddle[:, None]) & (column < game.paddle[:, None] + PADDLE)).astype(jnp.float32)
    rows = jnp.arange(N)[:, None]
    pixels = (rows == row) * ball[:, None] + (rows == N - 1) * paddle[:, None]
    return jnp.where(row < M, pixels, 0.0).reshape(len(game.ball), N * N)


def move(game: Game, action: Array) -> Game:
    """The games after an action: 0 stay, 1 right, 2 left."""
    return game._replace(paddle=jnp.clip(game.paddle + jnp.array([0, 1, -1])[action], 0, N - PADDLE))


def reward(game: Game, row: Array) -> Array:
    """+1 or -1 when the ball has reached the bottom row, else 0."""
    caught = (game.paddle <= game.ball) & (game.ball < game.paddle + PADDLE)
    return jnp.where(row == N - 1, jnp.where(caught, 1.0, -1.0), 0.0)


def dense(key: Array, inputs: int, outputs: int, scale: float = 1.0) -> Params:
    """Weights of an orthogonal map, and biases of 0."""
    return dict(w=nn.initializers.orthogonal(scale)(key, (inputs, outputs)), b=jnp.zeros(outputs))


def apply(layer: Params, x: Array) -> Array:
    return x @ layer["w"] + layer["b"]


def lstm(p: Params, state: State, x: Array, step: Array) -> tuple[State, Array]:
    h, c = state
    i, f, g, o = jnp.split(x + h @ p["h"]["w"], 4, axis=-1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
    h = nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def gru(p: Params, state: State, x: Array, step: Array) -> tuple[State, Array]:
    (h,) = state
    xr, xz, xn = jnp.split(x, 3, axis=-1)
    hr, hz, hn = jnp.split(apply(p["h"], h), 3, axis=-1)
    z = nn.sigmoid(xz + hz)
    h = (1 - z) * jnp.tanh(xn + nn.sigmoid(xr + hr) * hn) + z * h
    return (h,), h


def fast_weights(p: Params, state: State, x: Array, step: Array, eta: float = 0.1, decay: float = 0.1) -> tuple[State, Array]:
    """Ba16 Eq. 1 to 4 in the form of attention over the steps of the episode, with one inner step."""
    h, past = state
    boundary = x + h @ p["h"]["w"]
    h = nn.relu(boundary)
    age = step - 1 - jnp.arange(STEPS)
    strength = jnp.where(age >= 0, eta * decay ** jnp.maximum(age, 0), 0.0)
    recalled = jnp.einsum("bkh,bk->bh", past, strength * jnp.einsum("bkh,bh->bk", past, h))
    z = boundary + recalled
    z = (z - z.mean(-1, keepdims=True)) * lax.rsqrt(z.var(-1, keepdims=True) + 1e-5)
    h = nn.relu(z * p["gain"] + p["bias"])
    return (h, past.at[:, step].set(h)), h


class Cell(NamedTuple):
    """A memory: one step of it with mapped inputs [B, gates * H], gates, and the shapes of its state for a game."""

    step: Callable[..., tuple[State, Array]]
    gates: int
    state: tuple[tuple[int, ...], ...]


CELLS = {
    "lstm": Cell(lstm, 4, ((UNITS,), (UNITS,))),
    "gru": Cell(gru, 3, ((UNITS,),)),
    "fast-weights": Cell(fast_weights, 1, ((UNITS,), (STEPS, UNITS))),
}


def parameters(key: Array, cell: Cell) -> Params:
    """The parameters of layer, cell and heads."""
    keys = random.split(key, 5)
    recurrent = dense(keys[2], UNITS, cell.gates * UNITS)
    if cell.step is fast_weights:
        recurrent = dict(w=0.3 * jnp.eye(UNITS))
    return dict(
        encoder=dense(keys[0], N * N, UNITS, 2**0.5),
        cell=dict(x=dense(keys[1], UNITS, cell.gates * UNITS), h=recurrent, gain=jnp.ones(UNITS), bias=jnp.zeros(UNITS)),
        policy=dense(keys[3], UNITS, ACTIONS, 0.01),
        value=dense(keys[4], UNITS, 1),
    )


def encode(params: Params, seen: Array) -> Array:
    """The cell's inputs [..., gates * H], of a step or of a whole sequence at once."""
    return apply(params["cell"]["x"], nn.relu(apply(params["encoder"], seen)))


def decide(params: Params, h: Array) -> tuple[Array, Array]:
    """Log-probabilities [..., A] and values [...]."""
    return nn.log_softmax(apply(params["policy"], h)), apply(params["value"], h)[..., 0]


def log_prob_of(logits: Array, action: Array) -> Array:
    return jnp.take_along_axis(logits, action[..., None], -1)[..., 0]


def entropy_of(logits: Array) -> Array:
    return -(jnp.exp(logits) * logits).sum(-1)


def play(cell: Cell, params: Params, key: Array, n_envs: int, greedy: bool = False) -> Transition:
    """An episode of all games, [T, B, ...]."""
    games, actions = random.split(key)

    def step(carry: tuple[Game, State], t_and_key: tuple[Array, Array]) -> tuple[tuple[Game, State], Transition]:
        (game, state), (t, key) = carry, t_and_key
        seen = screen(game, t)
        state, h = cell.step(params["cell"], state, encode(params, seen), t)
        logits, value = decide(params, h)
        action = logits.argmax(-1) if greedy else random.categorical(key, lax.stop_gradient(logits))
        game = move(game, action)
        thought = value, log_prob_of(logits, action), entropy_of(logits)
        return (game, state), Transition(seen, action, reward(game, t + 1), *thought)

    state = tuple(jnp.zeros((n_envs, *shape)) for shape in cell.state)
    steps = (jnp.arange(STEPS), random.split(actions, STEPS))
    return lax.scan(step, (start(games, n_envs), state), steps)[1]


def advantages(done: Transition, gae_lambda: float) -> Array:
    """Generalised advantages [T, B] of rollouts that end with their episodes."""

    def step(carry: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        (advantage, next_value), (got, value) = carry, now
        advantage = got + GAMMA * next_value - value + GAMMA * gae_lambda * advantage
        return (advantage, value), advantage

    zeros = jnp.zeros_like(done.value[0])
    return lax.scan(step, (zeros, zeros), (done.reward, done.value), reverse=True)[1]


def scaled(x: Array) -> Array:
    return (x - x.mean()) / (x.std() + 1e-8)


def a2c_loss(params: Params, key: Array, cell: Cell, settings: Settings) -> tuple[Array, Array]:
    """The loss of a rollout that is played within it, and the mean return."""
    done = play(cell, params, key, settings.n_envs)
    gained = advantages(lax.stop_gradient(done), settings.gae_lambda)
    returns = gained + lax.stop_gradient(done.value)
    weights = scaled(gained) if settings.normalize_advantage else gained
    loss = -(weights * done.log_prob).mean() + 0.5 * ((returns - done.value) ** 2).mean()
    return loss - settings.ent_coef * done.entropy.mean(), done.reward.sum(0).mean()


def ppo_loss(params: Params, done: Transition, gained: Array, cell: Cell, settings: Settings) -> Array:
    """The clipped loss of some games of a rollout; only the cell goes step by step."""

    def step(state: State, now: tuple[Array, Array]) -> tuple[State, Array]:
        t, x = now
        return cell.step(params["cell"], state, x, t)

    state = tuple(jnp.zeros((done.action.shape[1], *shape)) for shape in cell.state)
    logits, value = decide(params, lax.scan(step, state, (jnp.arange(STEPS), encode(params, done.seen)))[1])
    weights, ratio = scaled(gained), jnp.exp(log_prob_of(logits, done.action) - done.log_prob)
    policy = -jnp.minimum(weights * ratio, weights * jnp.clip(ratio, 0.8, 1.2)).mean()
    value_error = ((gained + done.value - value) ** 2).mean()
    return policy + 0.5 * value_error - settings.ent_coef * entropy_of(logits).mean()


def make_update(settings: Settings) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
    """The optimiser, and an update: from parameters, optimiser state and a key to the new ones and the mean return."""
    cell = CELLS[settings.cell]
    updates = settings.frames // (settings.n_envs * STEPS)
    minibatches = settings.n_epochs * settings.n_envs // settings.minibatch_envs if settings.algo == "ppo" else 1
    rate = optax.linear_schedule(settings.learning_rate, 0.0, max(updates * minibatches, 1))
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(rate))

    def descend(params: Params, state: Any, gradient: Params) -> tuple[Params, Any]:
        change, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, change), state

    def a2c(params: Params, state: Any, key: Array) -> tuple[Params, Any, Array]:
        gradient, mean_return = jax.grad(a2c_loss, has_aux=True)(params, key, cell, settings)
        return *descend(params, state, gradient), mean_return

    def ppo(params: Params, state: Any, key: Array) -> tuple[Params, Any, Array]:
        key, rollout = random.split(key)
        done = play(cell, params, rollout, settings.n_envs)
        gained = advantages(done, settings.gae_lambda)

        def minibatch(carry: tuple[Params, Any], envs: Array) -> tuple[tuple[Params, Any], None]:
            some = jax.tree.map(lambda part: part[:, envs], (done, gained))
            return descend(*carry, jax.grad(ppo_loss)(carry[0], *some, cell, settings)), None

        orders = jax.vmap(lambda key: random.permutation(key, settings.n_envs))(random.split(key, settings.n_epochs))
        (params, state), _ = lax.scan(minibatch, (params, state), orders.reshape(-1, settings.minibatch_envs))
        return params, state, done.reward.sum(0).mean()

    return optimizer, a2c if settings.algo == "a2c" else ppo


class Progress(NamedTuple):
    """After some updates: frames, seconds since the first, mean return of their episodes, and the parameters."""

    frames: int
    seconds: float
    mean_return: float
    params: Params


def train(settings: Settings, together: int = 20) -> Iterator[Progress]:
    """Train, with `together` updates per call; the clock runs only during the calls, after compilation."""
    cell = CELLS[settings.cell]
    optimizer, update = make_update(settings)

    @jax.jit
    def several(params: Params, state: Any, key: Array) -> tuple[Params, Any, Array]:
        def body(carry: tuple[Params, Any], key: Array) -> tuple[tuple[Params, Any], Array]:
            params, state, mean_return = update(*carry, key)
            return (params, state), mean_return

        (params, state), returns = lax.scan(body, (params, state), random.split(key, together))
        return params, state, returns.mean()

    key, first = random.split(random.key(settings.seed))
    params = parameters(first, cell)
    state = optimizer.init(params)
    compiled = several.lower(params, state, key).compile()
    frames, seconds = 0, 0.0
    while frames < settings.frames:
        began = time.perf_counter()
        key, now = random.split(key)
        params, state, mean_return = compiled(params, state, now)
        mean = float(mean_return)
        seconds += time.perf_counter() - began
        frames += together * settings.n_envs * STEPS
        yield Progress(frames, seconds, mean, params)


@partial(jax.jit, static_argnames=("cell", "episodes"))
def _greedy(params: Params, cell: str, seed: int, episodes: int) -> Array:
    return play(CELLS[cell], params, random.key(seed), episodes, greedy=True).reward.sum(0).mean()


def greedy_return(params: Params, cell: str, episodes: int = 1000) -> float:
    """The mean return of greedy episodes."""
    return float(_greedy(params, cell, 12345, episodes))


def main(settings: Settings) -> None:
    for progress in train(settings):
        speed = progress.frames / progress.seconds
        print(f"{progress.frames:12,d} frames {speed:12,.0f} a second, mean return {progress.mean_return:6.3f}", flush=True)
    print(f"greedy return over 1,000 episodes: {greedy_return(progress.params, settings.cell):.3f}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
