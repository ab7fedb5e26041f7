import sys
sys.argv = ["x", "none", "0", "0"] + sys.argv[1:]
exec(open("/tmp/overlap_learn.py").read())
class Decoupled(RecurrentPPO):
    def _evaluate_rollout(self):
        r = self.rollout_buffer; mu = r._evaluation[1]
        self.policy.set_training_mode(False)
        with torch.no_grad():
            ev = [self.policy.evaluate_actions(*s)[:2] for s in r.sequences()]
        r.add_evaluation(*(torch.cat(p) for p in zip(*ev)))
        t = r.targets
        w = (t.log_probs - mu).exp().clamp(max=1)
        return torch.stack(t._replace(advantages=t.advantages * w), dim=-1).flatten(0, 1)
RecurrentPPO = Decoupled
run("ppo", "overlap", int(sys.argv[4]))
