import sys, time, json, torch
import fw_rl.agents.a2c as a2c_module
from torch.nn import functional as F
from stable_baselines3.common.callbacks import BaseCallback
from fw_rl.agents import RecurrentPPO, RecurrentA2C
from fw_rl.agents.loss import ActorCriticLoss, actor_critic_loss
from fw_rl.envs import CatchVectorEnv
import numpy as np

def with_ratio(policy, rollout, ent, vf, norm=False):
    old = rollout._evaluated
    ev = [policy.evaluate_actions(*s) for s in rollout.sequences()]
    values, log_prob, entropy = (torch.cat(p) for p in zip(*ev))
    ov = values.detach()
    rollout.add_evaluation(ov, log_prob.detach())
    adv, ret = (p.to(values.dtype) for p in rollout.targets[:2])
    if old is not None:
        adv = adv * (log_prob.detach() - old[1]).exp().clamp(max=2.0)
    pl = -(adv * log_prob).mean(); vl = F.mse_loss(values, ret); el = -entropy.mean()
    return ActorCriticLoss(pl + vf*vl + ent*el, pl, vl, el, ov, ret)

def without_ratio(policy, rollout, *a):
    rollout.acted_log_probs = None
    return actor_critic_loss(policy, rollout, *a)

class Solve(BaseCallback):
    at = None; curve = None
    def _on_training_start(self): self.curve = []
    def _on_step(self): return self.at is None
    def _on_rollout_end(self):
        b = self.model.ep_info_buffer
        m = np.mean([e["r"] for e in b]) if b else -1
        self.curve.append((self.model.num_timesteps, m))
        if m >= 0.9 and len(b) == 400: self.at = self.model.num_timesteps

def run(algo, way, seed):
    a2c_module.actor_critic_loss = without_ratio if way == "noratio" else actor_critic_loss
    env = CatchVectorEnv(16, n=8, m=3)
    kw = dict(seed=seed, overlap=way != "plain", stats_window_size=400, gae_lambda=1.0, policy_kwargs=dict(cell="fast-weights", shared_cell=True))
    if algo == "a2c": m = RecurrentA2C("RecurrentPolicy", env, learning_rate=4e-3, n_steps=7, ent_coef=0.005, **kw); total = 400_000
    else: m = RecurrentPPO("RecurrentPolicy", env, n_steps=35, n_epochs=4, batch_size=140, learning_rate=2e-3, ent_coef=.005, **kw); total = 200_000
    s = Solve(); b = time.time(); c = time.process_time()
    m.learn(total, callback=s)
    print(algo, way, seed, "solved at", s.at, "last %.2f" % s.curve[-1][1], "%.0f s %.0f cpu" % (time.time()-b, time.process_time()-c), flush=True)
for seed in range(int(sys.argv[2]), int(sys.argv[3])):
    for way in sys.argv[4:]:
        run(sys.argv[1], way, seed)
