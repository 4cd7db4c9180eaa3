"""Turn the best model of a training run into weights of the package: NAME.safetensors in half precision, and its card.

paddle-rt pack_weights -c CONFIG --model_path output/best_model --save_dir paddle_rt/weights

The name is that of the network and of the data. The weights are scored as they are packed, on the config's val_dataset.
The log of the run, metrics.jsonl, has to lie beside the folder of the model. Only weights that were trained on images
that this package renders are packed, since those of other data are bound to the licence of the data.
"""

import hashlib
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from paddle_rt import __version__
from paddle_rt.cli.arguments import WEIGHTS_HELP, file_or_folder, import_paddle_for, new_parser, output_folder, workers
from paddle_rt.errors import UserError
from paddle_rt.files import whole_file
from paddle_rt.run_logs import METRICS, read_metrics
from paddle_rt.weights import MOST_BYTES, Card, find_card

if TYPE_CHECKING:  # they import Paddle
    import numpy as np

    from paddle_rt.config import Config
    from paddle_rt.tasks.base import Scores, Task

_DATA = "StreetScenes"
State = dict[str, "np.ndarray"]


def main() -> None:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--model_path", type=file_or_folder, required=True, help=WEIGHTS_HELP)
    add("--save_dir", type=output_folder, default="./output/weights", help="folder of the weights and their cards")
    add("--num_workers", type=workers, default=0, help="processes that load the data")
    arguments = parser.parse_args()
    import_paddle_for(arguments.config)

    from paddle_rt.checkpoint import read_state_dict
    from paddle_rt.config import build_task, load_config
    from paddle_rt.training.devices import set_up

    config = load_config(arguments.config, arguments.opts)
    model, start, run = network_name(config), start_of(config), read_run(pathlib.Path(arguments.model_path))
    state = in_half_precision(read_state_dict(arguments.model_path))
    content = _as_file(state)
    set_up(arguments.device)
    task = build_task(config)
    scores = _score(config, task, state, model, arguments.num_workers)
    described = _described(task, scores)
    card = {
        "name": f"{model}_{_DATA.lower()}",
        "model": model,
        "data": _DATA.lower(),
        "licence": "Apache-2.0",
        "made": _how_made(pathlib.Path(arguments.config), run["model"], arguments.opts or [], start),
        "run": run,
        **described,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "config": _of_card(config, described["size"]),
    }
    place = pathlib.Path(arguments.save_dir) / card["name"]
    _write(place, content, card)
    print(
        f"{scores.key} in half precision: {scores.best:.4f} on {described['images']['val']} images; run: {run['best']}"
    )
    print(f"wrote {place}.safetensors, {len(content)} bytes, and {place}.yml")


def network_name(config: "Config") -> str:
    """Return the name that `create_model` knows the network of a config by.

    Raises:
        UserError: It has none, or the config trains on other data than what the package renders.
    """
    from paddle_rt.registry import ENTRIES

    data, model = config.values["train_dataset"]["type"], config.values["model"]
    if data != _DATA:
        raise UserError(
            f"weights trained on {data} are not packed: the package holds those of {_DATA} alone, which it renders"
        )
    pair = model["type"], str(model.get("variant"))
    names = [name for name, entry in ENTRIES.items() if (entry.class_name, entry.variant) == pair]
    if not names:
        raise UserError(
            "the config's model names no variant of a network of paddle_rt.list_models(); set model.variant"
        )
    return names[0]


def start_of(config: "Config") -> Card | None:
    """Return the card of the weights of the package that a run started from, or None where they were random.

    Raises:
        UserError: It started from other weights.
    """
    model = config.values["model"]
    start = model.get("pretrained")
    card = None if start is None else find_card(start, model["type"])
    if start is not None and card is None:
        raise UserError(
            f"weights that started from {start} are not packed: only those of the package may be behind them"
        )
    return card


def read_run(model_path: pathlib.Path) -> dict[str, Any]:
    """Read from the log of a run how long it took and what its best model is.

    Args:
        model_path: The folder best_model or ema_best_model of the run, or the file in it.

    Raises:
        UserError: There is no log, or no evaluation in it.
    """
    folder = model_path if model_path.is_dir() else model_path.parent
    file, network = folder.parent / METRICS, "ema_model" if folder.name == "ema_best_model" else "model"
    rows = read_metrics(file)
    steps = [row for row in rows if row["kind"] == "train"]
    evaluations = [row for row in rows if row["kind"] == "eval" and row["model"] == network]
    if not steps or not evaluations:
        raise UserError(f"{file} holds no evaluation: train with --do_eval")
    key = next(name for name in evaluations[0] if name not in ("kind", "iter", "model"))
    best = max(evaluations, key=lambda row: row[key])
    seconds, before = 0.0, 0
    for row in steps:
        seconds, before = seconds + row["batch_cost"] * (row["iter"] - before), row["iter"]
    return {
        "iterations": max(row["iter"] for row in rows),
        "hours": round(seconds / 3600, 2),
        "model": folder.name,
        "best_iteration": best["iter"],
        "best": f"{key} {best[key]:.4f}",
    }


def in_half_precision(state: State) -> State:
    """Return a state dict with float16 in place of float32, but for arrays that float16 cannot hold."""
    import numpy as np

    half = {}
    for name, value in state.items():
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite
            rounded = value.astype(np.float16) if value.dtype.kind == "f" else value
        half[name] = rounded if np.isfinite(rounded).all() else value
    return half


def _as_file(state: State) -> bytes:
    from safetensors.numpy import save

    content = save(dict(state))
    if len(content) > MOST_BYTES:
        raise UserError(
            f"the weights take {len(content)} bytes in half precision; the package holds files of {MOST_BYTES}"
        )
    return content


def _score(config: "Config", task: "Task", state: State, model: str, num_workers: int) -> "Scores":
    """Score the weights as they are packed.

    Raises:
        UserError: They do not fit, or `create_model` builds another network with them than the config.
    """
    import numpy as np
    import paddle

    from paddle_rt import components, create_model
    from paddle_rt.checkpoint import load
    from paddle_rt.config.build import without_pretrained

    network = components.build_network(without_pretrained(config.values["model"]))
    by_name = create_model(model, config.values["model"]["num_classes"])
    dataset = task.build_data("val")
    image, results = paddle.to_tensor(dataset[0]["img"][np.newaxis]), []
    for candidate in (network, by_name):
        load(candidate, state)
        candidate.eval()
        with paddle.no_grad():
            results.append(candidate(image)[0].numpy())
    if not np.array_equal(*results):
        raise UserError(
            f"create_model({model!r}) is another network than the config's: its model has arguments of its own"
        )
    return task.evaluate(network, dataset, num_workers)


def _described(task: "Task", scores: "Scores") -> dict[str, Any]:
    """Return what a card says about images, classes and scores."""
    data = {split: task.build_data(split) for split in ("train", "val")}
    classes = {
        row["name"]: row["iou"] if row["iou"] is None else round(row["iou"], 4) for row in scores.report["classes"]
    }
    return {
        "size": [data["val"].height, data["val"].width],
        "images": {split: len(dataset) for split, dataset in data.items()},
        "scores": {name: round(value, 4) for name, value in scores.values.items()},
        "class_iou": classes,
    }


def _how_made(config: pathlib.Path, model: str, opts: Sequence[str], start: Card | None) -> dict[str, str]:
    import paddle

    file = config.name if config.is_absolute() else config.as_posix()
    changes = f" --opts {shlex.join(opts)}" if opts else ""
    if start is None:
        begin = "random weights"
    else:
        begin = f"the weights of the package that were {start.name} before, with SHA-256 {start.sha256}"
    return {
        "data": f"{_DATA}, rendered by this package; no other images were used",
        "start": begin,
        "training": f"paddle-rt train -c {file} --do_eval{changes}",
        "packing": f"paddle-rt pack_weights -c {file} --model_path {model}{changes}",
        "versions": f"paddle_rt {__version__}, Paddle {paddle.__version__}",
    }


def _of_card(config: "Config", size: Sequence[int]) -> dict[str, Any]:
    """Return a config's values without `pretrained`, whose validation transforms first scale an image to a size."""
    from paddle_rt.config.build import without_pretrained

    values = {**config.values, "model": without_pretrained(config.values["model"])}
    section = values["val_dataset"]
    if not any(step["type"].startswith("Resize") for step in section["transforms"]):
        scaling = {"type": "ResizeByShort", "short_size": min(size)}
        values["val_dataset"] = {**section, "transforms": [scaling, *section["transforms"]]}
    return values


def _write(place: pathlib.Path, content: bytes, card: Mapping[str, Any]) -> None:
    """Write the weights and, last, their card."""
    with whole_file(f"{place}.safetensors") as part:
        part.write_bytes(content)
    with whole_file(f"{place}.yml") as part:
        text = yaml.safe_dump(dict(card), sort_keys=False, width=120, allow_unicode=True)
        part.write_text(
            f"# Card of {place.name}.safetensors, written by paddle-rt pack_weights.\n{text}", encoding="utf-8"
        )
