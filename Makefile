.PHONY: test slow lint format bench

test:
	python -m pytest

slow:
	python -m pytest -m slow

lint:
	ruff check .
	ruff format --check .
	mypy

format:
	ruff check --fix .
	ruff format .

bench:
	python benchmarks/env_speed.py --out results/env_speed.json
	python benchmarks/training_speed.py --n-envs 512 --out results/training_speed.json
	python benchmarks/retrieval_epoch.py --out results/retrieval_epoch.json
