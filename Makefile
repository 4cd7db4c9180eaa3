# make demo: train, score, export and run RTFormer on rendered streets.   make test: all tests.   make lint: the linter.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := output/demo
CONFIG := configs/quick_start/rtformer_slim_streetscenes_256x128.yml

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

$(VENV)/installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "error: CPython 3.11 is needed, $(PYTHON) is another or missing; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@$(BIN)/python -W ignore -c 'import cv2, paddle' || \
		{ echo "error: a system library is missing (the line above names it); Debian: apt-get install libgl1 libglib2.0-0 libgomp1"; exit 1; }
	@touch $@

demo: $(VENV)/installed
	rm -rf $(DEMO)
	$(BIN)/python tools/train.py -c $(CONFIG) --do_eval --save_interval 300 --log_iters 20 --seed 0 --save_dir $(DEMO)
	$(BIN)/python tools/val.py -c $(CONFIG) --model_path $(DEMO)/best_model --output $(DEMO)/metrics.json
	$(BIN)/python tools/export.py -c $(CONFIG) --model_path $(DEMO)/best_model --input_size 128 256 --save_dir $(DEMO)/export
	$(BIN)/python tools/data/render_streetscenes.py --output $(DEMO)/frames --number 8 --size 128 256
	$(BIN)/python deploy/python/infer.py --config $(DEMO)/export/deploy.yaml --image_path $(DEMO)/frames/images --save_dir $(DEMO)/result
	$(BIN)/python tools/demo_picture.py -c $(CONFIG) --folder $(DEMO)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/installed
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) output
