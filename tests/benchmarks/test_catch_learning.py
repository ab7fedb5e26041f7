"""A file of runs may hold those of several environments, engines and algorithms."""

import json

from benchmarks import catch_learning


def test_a_run_of_another_environment_or_algorithm_is_not_taken(tmp_path, monkeypatch):
    made = []

    def train(settings, cell, seed):
        made.append((settings.env, settings.algo, cell, seed))
        of = dict(env=f"fw_rl/{settings.env}-v0", engine=settings.engine, algo=settings.algo)
        return dict(cell=cell, seed=seed, mean=0.5, timesteps=100, seconds=1.0, settings=of)

    monkeypatch.setattr(catch_learning, "train", train)
    asked = dict(cells=("gru",), seeds=(0, 1), out=tmp_path / "seeds.json")
    for settings in (dict(), dict(env="Catch-24-5"), dict(algo="a3c"), dict()):
        catch_learning.main(catch_learning.Settings(**asked, **settings))
    assert made == [
        *(("Catch-16-3", "a2c", "gru", seed) for seed in (0, 1)),
        *(("Catch-24-5", "a2c", "gru", seed) for seed in (0, 1)),
        *(("Catch-16-3", "a3c", "gru", seed) for seed in (0, 1)),
    ]
    assert len(json.loads((tmp_path / "seeds.json").read_text())) == 6
