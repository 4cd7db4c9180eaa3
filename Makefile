# make demo: train, score, export and run RTFormer on rendered streets, beside the package's trained weights.
# make test: the tests.   make lint: the linter.
# make test-slow: tests that take long.   make test-install: the base installation labels an image without Paddle.
# make cpp: build the C++ program of deploy/cpp into output/cpp, and test it.
# On a machine with an NVIDIA GPU: make benchmark-gpu writes docs/benchmarks_gpu.md; make test-gpu runs tests/gpu on it.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := output/demo
INSTALL := output/test_install
CONFIG := configs/quick_start/rtformer_slim_streetscenes_256x128.yml
WEIGHTS := rtformer_slim_streetscenes
PIP := -m pip install --quiet --disable-pip-version-check
GPU_VENV ?= .venv-gpu
GPU_BIN := $(GPU_VENV)/bin
GPU_OUT := output/benchmark_gpu

.PHONY: demo test cpp test-slow test-install test-gpu benchmark-gpu gpu lint clean
.DELETE_ON_ERROR:

$(VENV)/installed: requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "error: CPython 3.11 is needed, $(PYTHON) is another or missing; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) -r requirements-dev.txt
	@$(BIN)/python -W ignore -c 'import cv2, paddle' || \
		{ echo "error: a system library is missing (the line above names it); Debian: apt-get install libgl1 libglib2.0-0 libgomp1"; exit 1; }
	@touch $@

demo: $(VENV)/installed
	rm -rf $(DEMO)
	$(BIN)/paddle-rt train -c $(CONFIG) --do_eval --save_interval 250 --log_iters 25 --seed 0 --save_dir $(DEMO)
	$(BIN)/paddle-rt val -c $(CONFIG) --model_path $(DEMO)/best_model --output $(DEMO)/metrics.json
	$(BIN)/paddle-rt export -c $(CONFIG) --model_path $(DEMO)/best_model --input_size 128 256 --save_dir $(DEMO)/export
	$(BIN)/paddle-rt render_streetscenes --output $(DEMO)/frames --number 8 --size 128 256
	$(BIN)/paddle-rt infer --config $(DEMO)/export/deploy.yaml --image_path $(DEMO)/frames/images --save_dir $(DEMO)/result
ifneq ($(wildcard paddle_rt/weights/$(WEIGHTS).yml),)
	$(BIN)/paddle-rt render_streetscenes --output $(DEMO)/large --number 8 --size 256 512
	$(BIN)/paddle-rt predict --model_path $(WEIGHTS) --image_path $(DEMO)/large/images --save_dir $(DEMO)/trained
	$(BIN)/paddle-rt val --model_path $(WEIGHTS) --output $(DEMO)/trained/metrics.json --opts val_dataset.num_samples=40
endif
	$(BIN)/python tools/demo_picture.py -c $(CONFIG) --folder $(DEMO)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu"

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -m "slow and not gpu"

cpp: $(VENV)/installed
	cmake -S deploy/cpp -B output/cpp -DOpenVINO_DIR=$$($(BIN)/python -c 'import openvino; print(openvino.__path__[0])')/cmake
	cmake --build output/cpp
	$(BIN)/python -m pytest -rs tests/deploy/test_cpp.py

test-install: $(VENV)/installed
	rm -rf $(INSTALL)
	$(BIN)/paddle-rt export -c $(CONFIG) --random_weights --input_size 64 128 --formats onnx --save_dir $(INSTALL)/export
	$(PYTHON) -m venv $(INSTALL)/venv
	$(INSTALL)/venv/bin/python $(PIP) '.[openvino]'
	$(INSTALL)/venv/bin/python -P tests/base_install.py $(INSTALL)/export

gpu:
	@nvidia-smi -L > /dev/null 2>&1 || { echo "error: this needs an NVIDIA GPU with its driver; nvidia-smi finds none here"; exit 1; }

$(GPU_VENV)/installed: requirements-gpu.txt requirements.txt requirements-dev.txt pyproject.toml | gpu
	$(PYTHON) -m venv $(GPU_VENV)
	$(GPU_BIN)/python $(PIP) -r requirements-dev.txt
	$(GPU_BIN)/python -m pip uninstall --quiet --yes paddlepaddle onnxruntime
	$(GPU_BIN)/python $(PIP) -r requirements-gpu.txt
	@touch $@

test-gpu: gpu $(GPU_VENV)/installed
	$(GPU_BIN)/python -m pytest tests/gpu --device gpu -m gpu

benchmark-gpu: gpu $(GPU_VENV)/installed
	$(GPU_BIN)/paddle-rt train -c $(CONFIG) --do_eval --save_interval 250 --log_iters 25 --seed 0 --save_dir $(GPU_OUT)/weights
	$(GPU_BIN)/paddle-rt benchmark --devices gpu tensorrt --size 1024 2048 --models rtformer_slim rtformer_base \
		fanet18 fanet34 segformerpp_b0:head=mlp segformerpp_b0 segformerpp_b0:token_merging=bsm_hq \
		--checkpoint rtformer_slim=$(GPU_OUT)/weights/best_model --output $(GPU_OUT)/bench.json --markdown docs/benchmarks_gpu.md

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) $(GPU_VENV) output build
