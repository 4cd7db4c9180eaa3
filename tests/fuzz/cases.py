"""The cases of the fuzzer: what is changed, and which tool gets it."""

import hashlib
import json
import os
import pathlib
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import yaml

from tests import bad_inputs as bad
from tests.fuzz.mutate import ODD_FLAGS, Rng, change_bytes, change_state, change_text, change_tree, pick
from tests.helpers import ROOT, TINY, write_video
from tests.tasks.classification.helpers import class_folders
from tests.tasks.segmentation.prepare import annotations

SIZE = str(bad.SIZE)
MODEL = "rtformer_slim:" + ",".join(f"{key}={value}" for key, value in TINY.items())
CONFIG_TOOLS = ("train", "train", "val", "predict", "compare", "export", "quantize", "check_data")
SUFFIXES = (".png", ".jpg", ".bmp", ".tiff", ".webp")


@dataclass(frozen=True)
class Case:
    """One call of a tool.

    Args:
        tool: Its name.
        arguments: Its command line. Paths are relative to the folder of the case.
        recipe: What was changed, in words.
    """

    tool: str
    arguments: list[str]
    recipe: str

    @property
    def outputs(self) -> list[str]:
        """The names in the folder that the tool may write to: those that its flags give, or its own."""
        own = {"quantize": "export"}.get(self.tool, "output")
        flags = ("--save_dir", "--output", "--markdown")
        named = [value for flag, value in zip(self.arguments, self.arguments[1:], strict=False) if flag in flags]
        charts = [pathlib.Path(value).with_suffix(".png").name for value in named if value.strip("./")]
        return ["out", own, *(value.split("/")[0] for value in named), *self.arguments[-3:], *charts]


def make_material(folder: pathlib.Path) -> None:
    """Make everything that cases change, once: paths in it are relative to the folder."""
    os.chdir(folder)
    kit = bad.make_kit(pathlib.Path(), formats=("paddle", "onnx"))
    shutil.move(kit.weights, "weights_1")
    (folder / "images").mkdir()
    for number, suffix in enumerate(SUFFIXES):
        bad.write_image(folder / f"images/{number}{suffix}", bad.image())
    bad.write_image(folder / "images/grey.png", bad.image(1))
    bad.write_image(folder / "images/alpha.png", bad.image(4))
    frames = [np.roll(bad.image(), shift, axis=1) for shift in range(6)]
    write_video(folder / "video.mp4", frames)
    write_video(folder / "video.avi", frames, "MJPG")
    shutil.copy(ROOT / "tests/data/segformer_transformers.safetensors", "torch.safetensors")
    shutil.copy(ROOT / "tests/data/segformer_mmsegmentation_float16.pth", "torch.pth")
    for image in annotations.photos(folder / "annotated", ["a.png", "b.png"]):
        square = annotations.shape("a", [[1, 1], [9, 9]], "rectangle")
        annotations.labelme(image.with_suffix(".json"), [square], image.name)
    class_folders(pathlib.Path("objects"), ("a", "b", "c"))
    names = [f"{name}/{number}.png" for name in "abc" for number in (0, 1)]
    pathlib.Path("classes.txt").write_text("".join(f"train/{name} {'abc'.index(name[0])}\n" for name in names))
    root = {"dataset_root": "objects", "num_classes": bad.CLASSES}
    for file, data in {
        "folders.yml": {"type": "ImageFolder", **root},
        "classes.yml": {"type": "ImageNet", **root, "cls_label_path": "classes.txt"},
    }.items():
        pathlib.Path(file).write_text(yaml.safe_dump(bad.classification(data)))
    bad.save_classifier(pathlib.Path("classifier.pdparams"))
    numbers = [{"kind": "train", "iter": i, "epoch": 1, "loss": 2.0 / i} for i in (1, 2)]
    numbers.append({"kind": "eval", "iter": 2, "model": "model", "mIoU": 0.5})
    (folder / "log").mkdir()
    (folder / "log/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in numbers))


def command(tool: str, config: str = "config.yml", **changes: str | None) -> list[str]:
    """Return a command line that works on the material; a change of None leaves a flag out."""
    shared = {"-c": config, "--device": "cpu"}
    size = f"{SIZE} {SIZE}"
    lines: dict[str, dict[str, str | None]] = {
        "train": {**shared, "--iters": "2", "--save_dir": "out", "--do_eval": "", "--seed": "0"},
        "val": {**shared, "--model_path": "weights_1", "--output": "out/scores.json"},
        "predict": {**shared, "--model_path": "weights_1", "--image_path": "images", "--save_dir": "out"},
        "compare": {**shared, "--model_path": "weights_1", "--input_size": size, "--images": "1"},
        "export": {**shared, "--model_path": "weights_1", "--input_size": size, "--formats": "onnx",
                   "--save_dir": "out/export"},
        "quantize": {**shared, "--export_dir": "export", "--images": "2"},
        "infer": {"--config": "export", "--image_path": "images", "--save_dir": "out", "--threads": "1",
                  "--backend": "onnxruntime"},
        "benchmark": {"--models": MODEL, "--num_classes": str(bad.CLASSES), "--size": size, "--runs": "1",
                      "--backends": "onnxruntime", "--precisions": "fp32", "--against": "none", "--threads": "1",
                      "--checkpoint": "rtformer_slim=weights_1", "--frames": "images", "--output": "out/bench.json"},
        "benchmark_training": {"--model": MODEL, "--size": size, "--runs": "1", "--threads": "1", "--num_classes": "3",
                               "--output": "out/bench.json"},
        "convert": {"--model": "segformerpp_b0", "--input": "torch.safetensors", "--output": "out/x.pdparams"},
        "check_data": {"-c": config, "--num_workers": "1", "--output": "out/check"},
        "plot_runs": {"--runs": "a=log", "--output": "out/runs.png"},
        "video_metrics": {"-c": config, "--model_path": "weights_1", "--videos": "1", "--frames": "2",
                          "--device": "cpu", "--output": "out/scores.json"},
        "data/prepare_data": {"--format": "labelme", "--input": "annotated", "--output": "out/mine", "--model": "none"},
        "data/prepare_camvid": {"--input": "images", "--output": "out/camvid"},
        "data/prepare_jbd": {"--keypoints": "images", "--images": "images", "--output": "out/jbd"},
        "data/render_streetscenes": {"--output": "out/scenes", "--number": "1", "--size": "32 64"},
    }  # fmt: skip
    flags = {**lines[tool], **{f"--{key}": value for key, value in changes.items()}}
    return [part for flag, value in flags.items() if value is not None for part in (flag, *value.split(" ")) if part]


def _edit(path: str, change: Callable[[bytes], tuple[bytes, str]]) -> str:
    file = pathlib.Path(path)
    data, recipe = change(file.read_bytes())
    file.write_bytes(data)
    return f"{path}: {recipe}"


def config_values(rng: Rng) -> Case:
    content = yaml.safe_load(pathlib.Path("config.yml").read_text())
    recipes = []
    for _ in range(int(rng.integers(1, 3))):
        content, recipe = change_tree(rng, content)
        recipes.append(recipe)
    pathlib.Path("config.yml").write_text(yaml.safe_dump(content))
    tool = pick(rng, CONFIG_TOOLS)
    return Case(tool, command(tool), f"config.yml: {'; '.join(recipes)}")


def components(rng: Rng) -> Case:
    """Another loss, transform, optimizer or schedule, with odd arguments."""
    content = yaml.safe_load(pathlib.Path("config.yml").read_text())
    from paddle_rt.config.optimizer import SCHEDULERS
    from paddle_rt.tasks.segmentation.losses import LOSSES
    from paddle_rt.tasks.segmentation.transforms import transform_catalogue

    kind = pick(rng, ("loss", "transform", "optimizer", "schedule"))
    names = {
        "loss": sorted(LOSSES), "transform": sorted(transform_catalogue()), "schedule": sorted(SCHEDULERS),
        "optimizer": ("SGD", "Momentum", "Adam", "AdamW", "AdamWDL"),
    }  # fmt: skip
    section = {"type": pick(rng, names[kind])}
    for name in _arguments(kind, section["type"], rng):
        section[name] = pick(rng, (0, 1, 2, -1, 0.5, 1.5, True, None, "x", [1, 2], [0.5], [64, 64], [32, 32], 32))
    if kind == "loss":
        content["loss"]["types"] = [section]
    elif kind == "transform":
        part = pick(rng, ("train_dataset", "val_dataset"))
        content[part]["transforms"] = [section, *content[part]["transforms"]]
    else:
        content["optimizer" if kind == "optimizer" else "lr_scheduler"] = section
    if kind == "schedule":
        section["learning_rate"] = 0.01
    pathlib.Path("config.yml").write_text(yaml.safe_dump(content))
    tool = pick(rng, ("train", "train", "val"))
    return Case(tool, command(tool), f"{kind}: {section}")


def _arguments(kind: str, name: str, rng: Rng) -> list[str]:
    import inspect

    from paddle_rt.config.optimizer import SCHEDULERS
    from paddle_rt.tasks.segmentation.losses import LOSSES
    from paddle_rt.tasks.segmentation.transforms import transform_catalogue

    if kind == "optimizer":
        known = ["weight_decay", "momentum", "beta1", "epsilon", "grad_clip_cfg", "custom_cfg", "use_nesterov"]
    else:
        component = {"loss": LOSSES, "transform": transform_catalogue(), "schedule": SCHEDULERS}[kind][name]
        known = [name for name in inspect.signature(component).parameters if name not in ("learning_rate", "kwargs")]
    return [name for name in known if rng.random() < 0.6]


def config_text(rng: Rng) -> Case:
    recipe = _edit("config.yml", lambda data: change_text(rng, data.decode()))
    tool = pick(rng, CONFIG_TOOLS)
    return Case(tool, command(tool), recipe)


def overrides(rng: Rng) -> Case:
    content = yaml.safe_load(pathlib.Path("config.yml").read_text())
    from tests.fuzz.mutate import ODD_TEXT, ODD_VALUES, _paths

    name = ".".join(map(str, pick(rng, _paths(content))))
    name = pick(rng, (name, name, name, f"{name}.x", name.upper(), f"{name}.0", "", ".", "model..type"))
    value = pick(rng, (str(pick(rng, ODD_VALUES)), pick(rng, ODD_TEXT), pick(rng, ODD_FLAGS)))
    option = f"{name}={value}".replace("\0", "0")[:100_000]
    tool = pick(rng, CONFIG_TOOLS)
    return Case(tool, [*command(tool), "--opts", option.encode("utf-8", "replace").decode()], f"--opts {option[:80]}")


def checkpoints(rng: Rng) -> Case:
    file = pick(rng, ("model.pdparams", "model.pdparams", "model.pdopt", "train_state.safetensors"))
    path = f"weights_1/{file}"
    kind = pick(rng, ("bytes", "bytes", "state", "state", "hostile", "special"))
    if kind == "special":
        name = pick(rng, sorted(bad.NO_PLAIN_FILE))
        pathlib.Path(path).unlink()
        bad.NO_PLAIN_FILE[name](pathlib.Path(path))
        recipe = f"{path}: {name}"
    elif kind == "hostile":
        bad.hostile_pickle(pathlib.Path(path), int(pick(rng, (2, 4, 5))))
        recipe = f"{path}: a pickle that runs code"
    elif kind == "state" and not file.endswith("safetensors"):
        recipe = _edit(path, lambda data: change_state(rng, pickle.loads(data)))
    else:
        recipe = _edit(path, lambda data: change_bytes(rng, data))
    if file != "model.pdparams" or rng.random() < 0.2:
        return Case("train", command("train", resume_model="weights_1", iters="3"), recipe)
    tool = pick(rng, ("val", "predict", "export", "compare", "pretrained", "safetensors"))
    if tool == "pretrained":
        return Case("train", [*command("train"), "--opts", f"model.pretrained={path}"], recipe)
    if tool == "safetensors":
        from safetensors.numpy import save_file

        save_file({"a": np.zeros((2, 3), np.float32), "b": np.zeros(5, np.int64)}, "x.safetensors")
        recipe = _edit("x.safetensors", lambda data: change_bytes(rng, data))
        return Case("val", command("val", model_path="x.safetensors"), recipe)
    return Case(tool, command(tool, model_path=pick(rng, ("weights_1", path))), recipe)


def _spoil(rng: Rng, path: str) -> str:
    """Change an image file: bytes, what kind of file it is, or the format of its pixels."""
    kind = pick(rng, ("bytes", "bytes", "bytes", "special", "pixels", "name"))
    file = pathlib.Path(path)
    if kind == "bytes":
        return _edit(path, lambda data: change_bytes(rng, data))
    file.unlink()
    if kind == "special":
        name = pick(rng, sorted(bad.NO_PLAIN_FILE))
        bad.NO_PLAIN_FILE[name](file)
        return f"{path}: {name}"
    if kind == "name":
        file.write_bytes(cv2.imencode(pick(rng, SUFFIXES), bad.image())[1].tobytes())
        return f"{path}: another format than its name says"
    channels, dtype = int(pick(rng, (1, 3, 4, 5))), pick(rng, (np.uint8, np.uint16, np.float32, np.float64, np.int16))
    shape = pick(rng, ((1, 1), (1, 32), (32, 1), (33, 31), (1, 70000), (3, 5)))
    if channels == 5:
        bad.write_image(file, bad.image(5))
        return f"{path}: TIFF of 5 channels"
    pixels = np.zeros((*shape, channels), dtype)
    cv2.imwrite("pixels.tiff", pixels)
    os.replace("pixels.tiff", path)
    return f"{path}: TIFF {shape} of {channels} {dtype.__name__}"


def images(rng: Rng) -> Case:
    tool = pick(rng, ("predict", "infer", "infer", "train", "val", "compare", "benchmark", "quantize"))
    if tool in ("train", "val", "quantize"):
        return Case(tool, command(tool), _spoil(rng, "image.png"))
    path = pick(rng, sorted(map(str, pathlib.Path("images").iterdir())))
    recipe = _spoil(rng, path)
    flag = {"benchmark": "frames"}.get(tool, "image_path")
    backend = {"backend": pick(rng, ("onnxruntime", "openvino", "paddle"))} if tool == "infer" else {}
    return Case(tool, command(tool, **{flag: pick(rng, ("images", path))}, **backend), recipe)


def labels(rng: Rng) -> Case:
    tool = pick(rng, ("train", "val", "quantize"))
    if rng.random() < 0.5:
        return Case(tool, command(tool), _spoil(rng, "label.png"))
    values = pick(rng, ([0, 255], [255], [0, 1, 2, 3], [254], [0, 0], [1]))
    dtype, size = pick(rng, (np.uint8, np.uint8, np.uint16)), int(pick(rng, (bad.SIZE, bad.SIZE, 8, 1)))
    cv2.imwrite("label.png", np.resize(np.array(values, dtype), (size, size)))
    return Case(tool, command(tool), f"label.png: {values} {dtype.__name__} {size}x{size}")


def lists(rng: Rng) -> Case:
    recipe = _edit("list.txt", lambda data: change_text(rng, data.decode()))
    tool = pick(rng, ("train", "val", "predict", "infer", "compare"))
    more = {} if tool in ("train", "val") else {"image_path": "list.txt"}
    return Case(tool, command(tool, **more), recipe)


def classification(rng: Rng) -> Case:
    """A config of classification, its class folders, its list, or one of its images."""
    config = pick(rng, ("folders.yml", "classes.yml"))
    kind = pick(rng, ("values", "values", "text", "data", "data", "image"))
    if kind == "values":
        content, recipe = change_tree(rng, yaml.safe_load(pathlib.Path(config).read_text()))
        pathlib.Path(config).write_text(yaml.safe_dump(content))
        recipe = f"{config}: {recipe}"
    elif kind == "text":
        recipe = _edit(config, lambda data: change_text(rng, data.decode()))
    elif kind == "image":
        recipe = _spoil(rng, f"objects/{pick(rng, ('train', 'val'))}/{pick(rng, 'abc')}/0.png")
    elif config == "classes.yml":
        recipe = _edit("classes.txt", lambda data: change_text(rng, data.decode()))
    else:
        recipe = _spoil_folder(rng, pathlib.Path("objects", pick(rng, ("train", "val")), pick(rng, "abc")))
    tool = pick(rng, ("train", "train", "val", "predict", "export"))
    weights = {} if tool == "train" else {"model_path": "classifier.pdparams"}
    return Case(tool, command(tool, config, **weights), recipe)


def _spoil_folder(rng: Rng, folder: pathlib.Path) -> str:
    """Change a class folder: empty, gone, nested, a link or a file."""
    kind = pick(rng, ("empty", "gone", "nested", "more", "special"))
    if kind == "nested":
        (folder / "x").mkdir()
    elif kind == "more":
        shutil.copytree(folder, folder.with_name(pick(rng, ("d", " ", "ä", "0", ".x"))))
    else:
        shutil.rmtree(folder)
    if kind == "empty":
        folder.mkdir()
    if kind == "special":
        kind = pick(rng, sorted(bad.NO_PLAIN_FILE))
        bad.NO_PLAIN_FILE[kind](folder)
    return f"{folder}: {kind}"


def deployments(rng: Rng) -> Case:
    name = pick(rng, ("deploy.yaml", "deploy.yaml", "deploy.yaml", "verification.json"))
    path = f"export/{name}"
    if rng.random() < 0.5:
        recipe = _edit(path, lambda data: change_text(rng, data.decode()))
    else:
        content, recipe = change_tree(rng, yaml.safe_load(pathlib.Path(path).read_text()))
        pathlib.Path(path).write_text(json.dumps(content) if name.endswith("json") else yaml.safe_dump(content))
        recipe = f"{path}: {recipe}"
    tool = "quantize" if rng.random() < 0.1 else "infer"
    return Case(tool, command(tool), recipe)


def graphs(rng: Rng) -> Case:
    """A changed graph, sometimes with a digest that fits it, as its author could make it."""
    name = pick(rng, ("model.onnx", "model.onnx", "model.json", "model.pdiparams"))
    recipe = _edit(f"export/{name}", lambda data: change_bytes(rng, data))
    if rng.random() < 0.7:
        report = pathlib.Path("export/verification.json")
        content = json.loads(report.read_text())
        content["files"][name] = hashlib.sha256(pathlib.Path(f"export/{name}").read_bytes()).hexdigest()
        report.write_text(json.dumps(content))
        recipe += ", with its digest"
    backend = pick(rng, ("onnxruntime", "openvino")) if name == "model.onnx" else "paddle"
    return Case("infer", command("infer", image_path="images/0.png", backend=backend), recipe)


def videos(rng: Rng) -> Case:
    path = pick(rng, ("video.mp4", "video.avi"))
    recipe = _edit(path, lambda data: change_bytes(rng, data))
    save = pick(rng, ("labels", "overlay", "labels overlay"))
    return Case("infer", command("infer", image_path=path, save=save), recipe)


FLAGS = {
    "train": "iters batch_size learning_rate save_interval log_iters keep_checkpoint_max early_stop_intervals "
    "accumulate seed precision amp_level profiler_options data_format repeats loop num_workers resume_model save_dir "
    "device",
    "val": "batch_size absent_class scales crop_size stride num_workers output model_path device",
    "predict": "custom_color scales crop_size stride image_path model_path save_dir device",
    "compare": "input_size images image_path model_path device",
    "export": "input_size input_shape output_op formats save_dir model_path device",
    "quantize": "images max_drop agreement export_dir",
    "infer": "frames backend device device_id precision profile threads save_dir save scene_cut image_path config "
    "boxes box_category threshold",
    "benchmark": "models checkpoint num_classes size frames backends precisions against beside threads runs output "
    "markdown",
    "benchmark_training": "model size batch_size num_classes threads runs output",
    "convert": "model input output num_classes head",
    "check_data": "images labels num_classes num_workers output device",
    "plot_runs": "runs score output",
    "video_metrics": "model_path videos frames device output",
    "data/prepare_data": "format input images palette output classes unlabelled on_top split lists group seed",
    "data/prepare_camvid": "input output layout",
    "data/prepare_jbd": "keypoints images boxes output",
    "data/render_streetscenes": "output mode number size seed",
}


def flags(rng: Rng) -> Case:
    tool = pick(rng, sorted(FLAGS))
    flag = pick(rng, FLAGS[tool].split())
    values = [pick(rng, ODD_FLAGS) for _ in range(int(pick(rng, (1, 1, 1, 2, 3))))]
    arguments = command(tool)
    if flag in ("is_slide", "crop_size", "stride"):
        arguments += ["--is_slide", "--crop_size", SIZE, SIZE, "--stride", "16", "16"]
    recipe = f"--{flag} {' '.join(map(repr, values))}"[:200]
    return Case(tool, [*arguments, f"--{flag}", *values], recipe)


def torch_files(rng: Rng) -> Case:
    path = pick(rng, ("torch.pth", "torch.safetensors"))
    recipe = _edit(path, lambda data: change_bytes(rng, data))
    return Case("convert", command("convert", input=path), recipe)


def logs(rng: Rng) -> Case:
    recipe = _edit("log/metrics.jsonl", lambda data: change_text(rng, data.decode()))
    return Case("plot_runs", command("plot_runs"), recipe)


# How often each kind comes, as parts of the whole.
KINDS: dict[Callable[[Rng], Case], int] = {
    config_values: 22, components: 14, config_text: 8, overrides: 6, checkpoints: 14, images: 12, labels: 5, lists: 5,
    deployments: 6, graphs: 5, videos: 5, flags: 14, torch_files: 3, logs: 2,
    classification: 12,
}  # fmt: skip


def make_case(rng: Rng, material: pathlib.Path, folder: pathlib.Path) -> Case:
    """Copy the material, change it, and say which tool gets it. The working directory becomes the folder."""
    shutil.copytree(material, folder, symlinks=True)
    os.chdir(folder)
    weights = np.array(list(KINDS.values()), float)
    return list(KINDS)[int(rng.choice(len(weights), p=weights / weights.sum()))](rng)
