.PHONY: test test-processes test-all test-envs test-ray test-gpu test-versions slow faults lint format docs notebooks bench

test:  # what is fast, on all cores
	python -m pytest -n auto --dist worksteal

test-processes:  # what starts processes or trains
	python -m pytest -n auto --dist worksteal -m 'processes and not slow'

test-all: test test-processes

test-envs:  # where fw-rl[envs] is installed, and flappy-bird-gymnasium and memory-gym without what they pin
	python -m pytest -n auto --dist worksteal -m 'not slow' tests/third_party

test-ray:  # where fw-rl[ray] is installed
	timeout --kill-after=30 1800 python -m pytest -m 'not slow' tests/ray tests/commands/test_ray_engine.py

test-gpu:  # where fw-rl[triton] is installed: on a GPU, or else by Triton's interpreter
	TRITON_INTERPRET=$$(python -c 'import torch; print(int(not torch.cuda.is_available()))') python -m pytest -m gpu

test-versions:  # what must work with every version that pyproject.toml allows
	python -m pytest -n auto --dist worksteal tests/agents tests/envs

slow:
	python -m pytest -m slow

faults:  # kills, full disks, damaged files and wrong command lines, counted
	python -m tests.faults --out results/faults.md

lint:
	ruff check .
	ruff format --check .
	mypy

docs:
	NO_MKDOCS_2_WARNING=1 mkdocs build --quiet

notebooks:  # runs them, and stores what they print
	python -m tests.test_notebooks

format:
	ruff check --fix .
	ruff format .

bench:
	python benchmarks/env_speed.py --games --out results/env_speed.json
	python benchmarks/env_speed.py --num-envs --seconds 0.1 --out results/popgym_speed.json
	python benchmarks/cell_speed.py --out results/cell_speed.json
	python benchmarks/products.py --out results/products.json
	python benchmarks/training_speed.py --peer-envs 16 64 512 --peer-batches 512 1024 8192 --out results/training_speed.json
	python benchmarks/ppo_speed.py --seconds 4 --out results/ppo_speed.json
	python benchmarks/jax_speed.py --n-envs 64 512 1024 2048 --repeats 3 --seconds 3 --out results/jax_speed_epyc.json
	python benchmarks/acting_speed.py --repeats 9 --out results/acting_speed.json
	python benchmarks/solve_time.py --algos a3c --peer-seeds 0 --out results/solve_time.json
	python benchmarks/worker_speed.py --out results/worker_speed.json
	python benchmarks/growth.py --out results/growth.json --picture results/growth.png
	python benchmarks/retrieval_epoch.py --out results/retrieval_epoch.json
