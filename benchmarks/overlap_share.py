import sys, time
from functools import partial
sys.path.insert(0, "benchmarks")
import overlap_speed as o
from fw_rl.envs import ParallelVectorEnv
from fw_rl.agents.algorithms import ALGORITHMS
def main():
    for algo, cell in (("ppo", "fast-weights"), ("ppo", "lru-delta-net"), ("ppo", "lstm"), ("a2c", "fast-weights")):
        base = ALGORITHMS[algo].agent
        t = []
        class Timed(base):
            def train(self):
                b = time.thread_time(); super().train(); t.append(("learn", time.thread_time() - b))
            def collect_rollouts(self, *a, **k):
                b = time.thread_time(); r = super().collect_rollouts(*a, **k); t.append(("act", time.thread_time() - b)); return r
        env = ParallelVectorEnv(partial(o.make_envs, 0.0, False), 8, 2)
        m = Timed("RecurrentPolicy", env, policy_kwargs=dict(cell=cell), seed=0)
        m.learn(m.n_steps * 8 * (4 if algo == "ppo" else 12), log_interval=10**9)
        env.close()
        med = {k: sorted(v for n, v in t if n == k)[len(t)//4] for k in ("learn", "act")}
        W = {ms: m.n_steps * 4 * ms / 1000 for ms in (1, 2, 5, 10)}
        print(algo, cell, m.n_steps, {k: round(v, 4) for k, v in med.items()}, {ms: round((w + med["act"] + med["learn"]) / max(w + med["act"], med["learn"]), 2) for ms, w in W.items()}, flush=True)
if __name__ == "__main__": main()
