"""Configs: what is shipped loads and builds, PaddleSeg's style is understood, and every mistake is named."""

import math

import numpy as np
import paddle
import pytest
import yaml

from paddle_rt import list_models, registry
from paddle_rt.config import build_network, build_optimizer, build_task, load_config
from paddle_rt.config.optimizer import build_schedule
from paddle_rt.config_file import read_config_file
from paddle_rt.errors import UserError
from paddle_rt.yaml_file import read_yaml
from tests.helpers import ROOT, tiny_config

SHIPPED = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "configs").glob("[!_]*/*.yml"))]
PRESETS = ("bsm_hq", "bsm_fast", "n2d_2x2", "downsample")
# One example in each folder; for others there is `--opts model.token_merging=...`.
OF_A_PRESET = {path: preset for path in SHIPPED for preset in PRESETS if path.endswith(f"_{preset}.yml")}
CLASSIFICATION = [path for path in SHIPPED if "street_objects" in path or "imagenet" in path]
POSE = [path for path in SHIPPED if "/pose/" in path or "streetpeople" in path]


@pytest.mark.parametrize("path", [path for path in SHIPPED if path not in [*OF_A_PRESET, *CLASSIFICATION, *POSE]])
def test_shipped_config_builds(path):
    config = load_config(str(ROOT / path), ["model.pretrained=None"])
    name = path.rpartition("/")[2].split("_")
    entry = registry.find_entry(name[0] if name[0] in list_models() else "_".join(name[:2]))
    section = config.values["model"]
    if section["type"] != "PaddleSegRTFormer":  # which has sizes in place of a variant
        assert (section["type"], str(section["variant"])) == (entry.class_name, entry.variant)
        repeated = [key for key, value in entry.arguments.items() if section.get(key) == value]
        assert not repeated, f"{path} repeats the variant's {repeated}"
    if "depths" in entry.arguments:
        config.values["model"]["depths"] = [1, 1, 1, 1]  # B5 takes seconds to build
    network, task = build_network(config), build_task(config)
    classes = {"cityscapes": 19, "streetscenes": 19, "ade20k": 150, "camvid": 11, "coco_stuff": 171}
    expected = classes[min((name for name in classes if name in path), key=path.index)]  # the weights' data comes later
    outputs = network(paddle.zeros([2, 3, 64, 64]))
    assert [output.shape[1] for output in outputs] == [expected] * len(outputs)
    losses = task.losses(outputs, {"label": paddle.zeros([2, 64, 64], "int64")})
    assert len(losses) == len(outputs) and all(math.isfinite(float(loss)) for loss in losses)
    assert build_optimizer(config, network) is not None
    assert len(task.build_transforms().transforms) >= 1


@pytest.mark.parametrize("path", CLASSIFICATION)
def test_shipped_config_of_classification_builds(path):
    config = load_config(str(ROOT / path))
    section, name = config.values["model"], path.rpartition("/")[2].split("_")[1]
    assert (section["type"], section["variant"]) == ("RTFormerClassifier", name) and section["bn_momentum"] == 0.9
    config.values["model"]["base_channels"] = 8  # the test is of the config, not of the network's size
    network, task = build_network(config), build_task(config)
    outputs = network(paddle.zeros([2, 3, 64, 64]))
    (loss,) = task.losses(outputs, {"label": paddle.zeros([2], "int64")})
    assert outputs[0].shape == [2, 1000 if "imagenet" in path else 12] and math.isfinite(float(loss))
    assert build_optimizer(config, network) is not None
    assert task.export_spec().transforms[-1]["type"] == "NormalizeImage"


@pytest.mark.parametrize("path", [path for path in POSE if path not in OF_A_PRESET])
def test_shipped_config_of_pose_builds(path):
    config = load_config(str(ROOT / path), ["model.pretrained=None"])
    section = config.values["model"]
    width, height = map(int, path.removesuffix(".yml").split("_")[3 if "/pose/" in path else -1].split("x"))
    keypoints = 20 if "jbd" in path else 17
    assert (section["type"], section["num_keypoints"]) == ("SegFormerPose", keypoints)
    assert section["variant"] == path.rpartition("/")[2].split("_")[1]
    config.values["model"] |= {"depths": [1, 1, 1, 1], "embed_dim": 8, "head_channels": 16}  # the sizes are not tested
    network, task = build_network(config), build_task(config)
    spec = task.export_spec()
    assert tuple(spec.input_size) == (width, height) and len(spec.settings.keypoints) == keypoints
    outputs = network(paddle.zeros([1, 3, height, width]))
    size = next(step["heatmap_size"] for step in config.values["train_dataset"]["transforms"] if "heatmap_size" in step)
    target, weight = paddle.zeros([1, keypoints, *size[::-1]]), paddle.ones([1, keypoints])
    (loss,) = task.losses(outputs, {"target": target, "weight": weight})
    assert math.isfinite(float(loss)) and build_optimizer(config, network) is not None


@pytest.mark.parametrize("path", [path for path in POSE if "_210e.yml" in path])
def test_recipe_of_pose(path):
    """AdamW with decay on everything at a constant rate of 5e-4 behind the warm-up; 210 epochs of batches of 16."""
    values = load_config(str(ROOT / path), ["model.pretrained=None"]).values
    assert values["optimizer"] == {"type": "AdamW", "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01}
    schedule = build_schedule(values["lr_scheduler"], values["iters"])
    rates = []
    for step in (0, 499, 500, 100_000, values["iters"]):
        schedule.step(step)
        rates.append(schedule())
    assert np.allclose(rates, [5e-7, *[5e-4] * 4], rtol=1e-6, atol=0), rates
    samples = {"coco": 149_813, "jbd": 1000}["coco" if "coco" in path else "jbd"]
    assert values["batch_size"] == 16 and values["iters"] == 210 * (samples // 16)


@pytest.mark.parametrize("path", OF_A_PRESET)
def test_preset_differs_in_the_merging_alone(path):
    same = sum(other.rpartition("/")[0] == path.rpartition("/")[0] for other in OF_A_PRESET)
    assert same == (12 if path in POSE else 1)
    preset = OF_A_PRESET[path]
    ours, base = load_config(str(ROOT / path)).values, load_config(str(ROOT / path.replace(f"_{preset}", ""))).values
    assert len((ROOT / path).read_text().splitlines()) == 2
    assert ours.pop("model") == {**base.pop("model"), "token_merging": preset}
    assert ours == base


@pytest.mark.parametrize("preset", PRESETS)
def test_every_segformer_takes_every_preset(preset):
    bases = [path for path in SHIPPED if "segformerpp" in path and path not in [*OF_A_PRESET, *POSE]]
    assert len(bases) == 6 + 6 + 3 + 2, bases
    for path in bases:
        base = load_config(str(ROOT / path)).values
        ours = load_config(str(ROOT / path), [f"model.token_merging={preset}"]).values
        assert ours == {**base, "model": {**base["model"], "token_merging": preset}}, path


def test_recipe_of_segformer():
    """MMSegmentation's: head x10, no decay on the encoder's norms, warm-up from a millionth, a line down to 0."""
    path = str(ROOT / "configs/segformerpp/segformerpp_b0_cityscapes_1024x1024_160k.yml")
    config = load_config(path, ["model.pretrained=None"])
    model = build_network(config)
    optimizer = build_optimizer(config, model)
    schedule = optimizer._learning_rate
    rates = {}
    for step in (0, 750, 1500, 80750, 160000):
        schedule.step(step)
        rates[step] = schedule()
    expected = {0: 6e-11, 750: 3e-5, 1500: 6e-5, 80750: 3e-5, 160000: 0.0}
    assert all(math.isclose(rates[step], rate, rel_tol=1e-5, abs_tol=1e-12) for step, rate in expected.items()), rates

    # With gradients of zero, AdamW multiplies a parameter by 1 - rate * lr_mult * decay, exact enough at rate 10.
    optimizer.set_lr_scheduler(paddle.optimizer.lr.LambdaDecay(10.0, lambda _: 1.0))
    for parameter in model.parameters():
        if not parameter.stop_gradient:
            parameter.set_value(paddle.ones_like(parameter))
            parameter.grad = paddle.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        if parameter.stop_gradient:
            continue
        kept = 0.0 if name.startswith("linear_") else 1.0 if "norm" in name else 0.9
        assert np.allclose(parameter.numpy(), kept, atol=1e-6), f"{name} becomes {parameter.numpy().flat[0]}"


@pytest.mark.parametrize("name", ["cityscapes_1024x1024_160k", "ade20k_512x512_160k", "ade20k_640x640_160k"])
def test_sizes_of_segformer(name):
    dic = load_config(str(ROOT / f"configs/segformerpp/segformerpp_b{5 if '640' in name else 0}_{name}.yml")).values
    size = [int(name.split("_")[1].split("x")[0])] * 2
    crop = next(t for t in dic["train_dataset"]["transforms"] if t["type"] == "RandomPaddingCrop")
    assert crop["crop_size"] == size and crop["category_max_ratio"] == 0.75
    slide = dict(is_slide=True, crop_size=[1024, 1024], stride=[768, 768])
    assert dic.get("test_config") == (slide if "city" in name else None)
    assert dic["batch_size"] * 4 == (8 if "city" in name else 16) and dic["iters"] == 160000


def test_recipe_of_fanet():
    for path in [path for path in SHIPPED if "/fanet" in path]:
        dic = load_config(str(ROOT / path)).values
        warmup = dict(warmup_start_lr=1e-5, warmup_iters=dic["lr_scheduler"]["warmup_iters"])
        poly = dict(type="PolynomialDecay", learning_rate=1e-2, end_lr=0.0, power=0.9)
        assert dic["lr_scheduler"] == {**poly, **warmup}
        assert dic["optimizer"] == dict(type="SGD", momentum=0.9, weight_decay=5e-4)
        assert dic["loss"]["coef"] == [1, 0.5, 0.5]
        losses = [{key: value for key, value in loss.items() if key != "ignore_index"} for loss in dic["loss"]["types"]]
        crop = next(t for t in dic["train_dataset"]["transforms"] if t["type"] == "RandomPaddingCrop")["crop_size"]
        pixels = dic["batch_size"] * crop[0] * crop[1]
        assert losses == [dict(type="OhemCrossEntropyLoss", thresh=0.7, min_kept=pixels // 16)] * 3, path


CITYSCAPES = dict(batch_size=3, iters=120000, learning_rate=4e-4, end_lr=1e-6, weight_decay=0.0125, crop=[1024, 512])
ADE20K = dict(batch_size=4, iters=160000, learning_rate=1e-4, end_lr=1e-7, weight_decay=0.05, crop=[512, 512])
SLIM, BASE = dict(base_channels=32, head_channels=64), dict(base_channels=64, head_channels=128)
RELEASE = {
    "slim_cityscapes_1024x512_120k": (CITYSCAPES, dict(**SLIM, use_injection=[True, True])),
    "base_cityscapes_1024x512_120k": (CITYSCAPES, dict(**BASE, use_injection=[True, False])),
    "slim_ade20k_512x512_160k": (
        ADE20K,
        dict(**SLIM, use_injection=[True, False], drop_path_rate=0.1, cross_size=8),
    ),
    "base_ade20k_512x512_160k": (ADE20K, dict(**BASE, use_injection=[True, False], drop_path_rate=0.1)),
}


@pytest.mark.parametrize("name", RELEASE)
def test_hyper_parameters_are_the_releases(name):
    recipe, model = RELEASE[name]
    dic = load_config(str(ROOT / f"configs/rtformer/rtformer_{name}.yml")).values
    assert dic["batch_size"] == recipe["batch_size"] and dic["iters"] == recipe["iters"]
    assert dic["optimizer"] == dict(type="AdamW", beta1=0.9, beta2=0.999, weight_decay=recipe["weight_decay"])
    warmup = dict(warmup_iters=1500, warmup_start_lr=1e-6)
    decay = dict(type="PolynomialDecay", power=1.0, learning_rate=recipe["learning_rate"], end_lr=recipe["end_lr"])
    assert dic["lr_scheduler"] == {**decay, **warmup}
    assert dic["loss"]["coef"] == [1, 0.4]
    assert [loss["type"] for loss in dic["loss"]["types"]] == ["CrossEntropyLoss"] * 2
    size = name.split("_")[0]
    weights = f"https://paddleseg.bj.bcebos.com/dygraph/backbone/rtformer_{size}_backbone_imagenet_pretrained.zip"
    model_class, arguments = registry.network_of(dic["model"])
    classes = 19 if "city" in name else 150
    assert model_class.__name__ == "RTFormer"
    assert arguments == {**model, "pretrained": weights, "num_classes": classes, "in_channels": 3}
    normalize = dict(type="Normalize", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    assert dic["train_dataset"]["transforms"] == [
        dict(type="ResizeStepScaling", min_scale_factor=0.5, max_scale_factor=2.0, scale_step_size=0.25),
        dict(type="RandomPaddingCrop", crop_size=recipe["crop"]),
        dict(type="RandomHorizontalFlip"),
        dict(type="RandomDistort", brightness_range=0.4, contrast_range=0.4, saturation_range=0.4),
        normalize,
    ]
    resize = dict(type="Resize", target_size=[2048, recipe["crop"][1] * (2 if "city" in name else 1)], keep_ratio=True)
    resize |= {"size_divisor": 32} if "ade" in name else {}
    assert dic["val_dataset"]["transforms"] == [resize, normalize]


def test_style_of_paddlesegs_configs(tmp_path):
    """Bases of bases, several bases, mappings that are not inherited, SGD with momentum."""
    files = {
        "common/schedule.yml": "iters: 80000\noptimizer: {type: SGD, momentum: 0.9, weight_decay: 4.0e-5}\n"
        "lr_scheduler: {type: PolynomialDecay, learning_rate: 0.01, end_lr: 0, power: 0.9}\n",
        "common/scenes.yml": "_base_: schedule.yml\nbatch_size: 2\niters: 70000\n"
        "train_dataset: {type: StreetScenes, mode: train, transforms: [{type: Normalize}]}\n"
        "val_dataset: {type: StreetScenes, mode: val, transforms: [{type: Normalize}]}\n"
        "loss: {types: [{type: CrossEntropyLoss}], coef: [1]}\n",
        "common/other.yml": "iters: 1\nbatch_size: 7\nto_static_training: True\n",
        "rtformer/own.yml": "_base_: ['../common/scenes.yml', '../common/other.yml']\nbatch_size: 3\n"
        "train_dataset:\n  num_samples: 5\n  transforms:\n    - type: RandomHorizontalFlip\n    - type: Normalize\n"
        "lr_scheduler:\n  _inherited_: False\n  type: PiecewiseDecay\n  boundaries: [10]\n  values: [0.1, 0.01]\n"
        "loss:\n  coef: [1, 0.4]\n"
        "model:\n  _inherited_: False\n  type: RTFormer\n  base_channels: 8\n  num_heads: 2\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    config = load_config(str(tmp_path / "rtformer/own.yml"), batch_size=4)
    dic = config.values
    assert (dic["batch_size"], dic["iters"], dic["to_static_training"]) == (4, 70000, True)
    assert dic["train_dataset"]["num_samples"] == 5 and len(dic["train_dataset"]["transforms"]) == 2
    assert dic["lr_scheduler"] == dict(type="PiecewiseDecay", boundaries=[10], values=[0.1, 0.01])
    added = dict(num_classes=19, in_channels=3)  # by the data set
    assert dic["model"] == dict(type="RTFormer", base_channels=8, num_heads=2, **added)
    assert dic["loss"]["types"] == [dict(type="CrossEntropyLoss", ignore_index=255)] * 2
    assert type(build_optimizer(config, build_network(config))).__name__ == "Momentum"


def test_overrides(tmp_path):
    opts = ["model.cross_size=8", "train_dataset.transforms.0.prob=0.25", "loss.coef=[1,0.5]", "model.pretrained=null"]
    dic = load_config(tiny_config(tmp_path), [*opts, "optimizer.type=SGD"], learning_rate=0.5, iters=9).values
    assert dic["model"]["cross_size"] == 8 and dic["model"]["pretrained"] is None
    assert dic["train_dataset"]["transforms"][0]["prob"] == 0.25
    assert dic["loss"]["coef"] == [1, 0.5] and dic["iters"] == 9
    assert dic["lr_scheduler"]["learning_rate"] == 0.5 and dic["optimizer"]["type"] == "SGD"


WRONG = {
    "bath_size=2": "unknown config key 'bath_size', did you mean 'batch_size'",
    "modell.cross_size=8": "unknown part of 'modell.cross_size' 'modell', did you mean 'model'",
    "model.type=RTFormr": "unknown model type 'RTFormr', did you mean 'RTFormer'",
    "model.cross_sise=8": "unknown argument of RTFormer 'cross_sise', did you mean 'cross_size'",
    "loss.coef=[0, 0.0]": "loss.coef is 0 for every output",
    "model.num_classes=20": "numbers of classes differ: model 20, train_dataset 19, val_dataset 19",
    "model=3": "'model' must hold a mapping",
    "train_dataset.type=StreetScene": "unknown train_dataset type 'StreetScene', did you mean 'StreetScenes'",
    "train_dataset.hight=64": "unknown argument of StreetScenes 'hight', did you mean 'height'",
    "train_dataset.transforms.0.type=Normalise": r"unknown train_dataset.transforms\[0\] type 'Normalise', did you",
    "train_dataset.transforms.0.probb=1": "unknown argument of RandomHorizontalFlip 'probb', did you mean 'prob'",
    "train_dataset.transforms.7.prob=1": "'7' is no position in a list of 2",
    "val_dataset=null": "val_dataset must be a mapping with a 'type', got None",
    "optimizer.type=AdamWW": "unknown optimizer type 'AdamWW', did you mean 'AdamW'",
    "optimizer.weight_decai=0.1": "unknown argument of AdamW 'weight_decai', did you mean 'weight_decay'",
    "optimizer.custom_cfg=[{'name':'spp','lr_multi':2}]": "unknown key of a parameter group 'lr_multi', did you mean",
    "lr_scheduler.type=PolynomialDekay": "unknown lr_scheduler type 'PolynomialDekay', did you mean 'PolynomialDecay'",
    "lr_scheduler.powr=1": "unknown argument of PolynomialDecay 'powr', did you mean 'power'",
    "lr_scheduler.warmup_iters=5": "needs both warmup_iters and warmup_start_lr",
    "lr_scheduler.learning_rate=0": "learning_rate must be a number above 0, got 0",
    "lr_scheduler.learning_rate=-1": "learning_rate must be a number above 0, got -1",
    "lr_scheduler.learning_rate=.nan": "learning_rate must be a finite number",
    "lr_scheduler.learning_rate=fast": "lr_scheduler.learning_rate must be a number above 0, got 'fast'",
    "loss.coeff=[1]": "unknown loss key 'coeff', did you mean 'coef'",
    "loss.coef=[1,'a']": r"loss.coef must be a list of numbers of at least 0, got \[1, 'a'\]",
    "loss.coef=2": "loss.coef must be a list",
    "loss.types.0.type=CrossEntropy": "unknown loss.types\\[0\\] type 'CrossEntropy', did you mean 'CrossEntropyLoss'",
    "loss.types=[{'type':'CrossEntropyLoss'}]*3": "--opts loss.types=.* is not valid YAML",
    "loss.types=3": "loss.types must be a list",
    "test_config={'scale':[1]}": "unknown test_config key 'scale', did you mean 'scales'",
    "test_config=null": "test_config must be a mapping with the keys aug_eval, .*, got None",
    "loss.types.0.type=DualTaskLoss": "unknown loss.types\\[0\\] type 'DualTaskLoss'.*Valid: BCELoss, Boots.*",
    "loss.types=[{'type':'MixedLoss','losses':[{'type':'RMILoss'}],'coef':[1]}]": r"types\[0\].losses\[0\] type 'RMI",
    "loss.types.0.ignore_index=0": "CrossEntropyLoss.ignore_index is 0, but the data set ignores 255",
    "optimizer.beta1=big": "optimizer.beta1 must be a number of at least 0 and below 1, got 'big'",
    "optimizer.weight_decay=True": "optimizer.weight_decay must be null or a number of at least 0, got True",
    "optimizer.lazy_mode=1": "optimizer.lazy_mode must be True or False, got 1",
    "optimizer.grad_clip_cfg={'name':'ClipGrad'}": "grad_clip_cfg.name must be 'ClipGradByValue' or .*, got 'ClipGrad'",
    "optimizer.grad_clip_cfg={'name':'ClipGradByNorm'}": "optimizer.grad_clip_cfg.clip_norm is missing; it must be a n",
    "optimizer.grad_clip_cfg={'name':'ClipGradByNorm','clip_norm':0}": "clip_norm must be a number above 0, got 0",
    "model.in_channels=4": "channels of images differ: model 4, train_dataset 3, val_dataset 3",
    "task=segmentatoin": "unknown task 'segmentatoin', did you mean 'segmentation'",
    "task=3": "task must be the name of a task, got 3",
    "to_static_training=maybe": "to_static_training must be True or False",
    "batch_size=0": "batch_size must be a whole number from 1 to 1000000, got 0",
    "iters=1.5": "iters must be a whole number from 1 to .*, got 1.5",
    "batch_size=" + "9" * 5000: "--opts batch_size=9.*: a number of 5000 digits is too large",
    "lr_scheduler={type: LambdaDecay, lr_lambda: !!python/name:os._exit ''}": "lr_lambda: tags such as !!python",
    "model.use_injection=" + "[" * 999: "--opts model.use_injection=.* more than 32 levels deep",
    "model.use_injection=[" + "1," * 9999: "--opts model.use_injection: the value has 19999 characters",
    "train_dataset.transforms." + "9" * 5000 + ".prob=1": "is no position in a list of 2",
    "optimizer.momentum=fast": "optimizer: unknown argument of AdamW 'momentum'",
    "optimizer={'type':'SGD','momentum':'0.9x'}": "optimizer.momentum must be a number of .*, got '0.9x'",
    "lr_scheduler.type=LambdaDecay": "unknown lr_scheduler type 'LambdaDecay'",
    "lr_scheduler={'type':'StepDecay','learning_rate':0.1}": "lr_scheduler.step_size is missing; it must be",
    "lr_scheduler.power=soft": "lr_scheduler.power must be a number of at least 0, got 'soft'",
    "train_dataset.height=1": "train_dataset.height must be a whole number from 16 to 16384, got 1",
    "train_dataset.transforms=3": "train_dataset.transforms must be a list, got 3",
    "train_dataset.transforms.0.prob=often": r"train_dataset.transforms\[0\].prob must be a number from 0 to 1, got",
    "train_dataset.transforms.0={'type':'RandomPaddingCrop','crop_size':[0,3]}": r"\[0\]\.crop_size must be "
    r"a list of 2 items, each a whole number from 1 to 65500, got \[0, 3\]",
    "train_dataset.transforms.0={'type':'Padding'}": r"train_dataset.transforms\[0\].target_size is missing",
    "train_dataset={'type':'CamVid','transforms':[]}": "train_dataset.dataset_root is missing; it must be a text",
    "val_dataset.transforms.0.std=[0,1,1]": r"val_dataset.transforms\[0\].std must be a list .* a number above 0, got",
    "loss.types.0.weight=[1,'x']": r"loss.types\[0\].weight must be null or a list .*, got \[1, 'x'\]",
    "loss.types.0={'type':'BootstrappedCrossEntropyLoss','loss_th':1}": r"loss.types\[0\].min_K is missing",
    "loss.types.0={'type':'MixedLoss','losses':[{'type':'DiceLoss','smooth':-1}],'coef':[1]}": r"losses\[0\].smooth",
    "test_config={'scales':[1,'x']}": "test_config.scales must be a number above 0 and at most 100 or a list",
    "model.cross_size=0": "model.cross_size must be a whole number from 1 to 1024, got 0",
    "model.base_channels=wide": "model.base_channels must be a whole number from 1 to 65536, got 'wide'",
    "model.use_injection=[True]": r"model.use_injection must be two booleans, got \[True\]",
    "model.pretrained=3": "model.pretrained must be null or a text, got 3",
    "model={'type':'STDCSeg','backbone':{'type':'STDC1','relative_lr':[1]}}": "backbone.relative_lr must be a n",
    "model={'type':'STDCSeg'}": "model.backbone is missing; it must be a mapping",
    "iters": "--opts takes key=value",
    "batch_size=[1": "--opts .*batch_size",
    "batch_size.x=1": "batch_size is 4, which has no keys",
}


@pytest.mark.parametrize("item", WRONG)
def test_wrong_value_is_named(item, tmp_path):
    path = tiny_config(tmp_path)
    with pytest.raises(UserError, match=WRONG[item]) as raised:
        load_config(path, [item])
    assert path in str(raised.value)


@pytest.mark.parametrize("key", ["batch_size", "iters", "train_dataset", "optimizer", "lr_scheduler", "loss", "model"])
def test_missing_key_is_named(key, tmp_path):
    path = tiny_config(tmp_path)
    content = yaml.safe_load(open(path))
    del content[key]
    (tmp_path / "config.yml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=f"{key!r} is missing"):
        load_config(path)


BROKEN = {
    "batch_size: [1\n": "not valid YAML",
    "": "is empty; a config is a mapping",
    "- batch_size\n": "holds no keys; a config is a mapping",
    "just a text\n": "holds no keys; a config is a mapping",
    "_base_: nowhere.yml\n": "no base of the config .*config.yml at .*nowhere.yml",
    "_base_: config.yml\n": "circle",
    "_base_: loop.yml\n": "loop.yml names .*config.yml as its _base_, which makes a circle: .* -> .*loop.yml -> ",
    "_base_: {a: 1}\n": "_base_ takes a file or a list of files",
    "_base_: [1]\n": "_base_ takes a file or a list of files, got 1",
    "iters: 1\niters: 2\n": "the key 'iters' occurs twice",
    "model: {type: A, type: B}\n": "the key 'type' occurs twice",
    "a: !!python/object/apply:os.getcwd []\n": "config.yml, line 1: a: tags such as !!python/object/apply:os.getcwd",
}


@pytest.mark.parametrize("text", BROKEN)
def test_broken_file(text, tmp_path):
    (tmp_path / "config.yml").write_text(text)
    (tmp_path / "loop.yml").write_text("_base_: config.yml\n")
    with pytest.raises(UserError, match=BROKEN[text]):
        load_config(str(tmp_path / "config.yml"))


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="no config file at .*none.yml"):
        load_config(str(tmp_path / "none.yml"))
    (tmp_path / "folder.yml").mkdir()
    with pytest.raises(UserError, match="folder.yml is a folder, expected a regular file"):
        load_config(str(tmp_path / "folder.yml"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="a config is a .yml or .yaml file"):
        load_config(str(tmp_path / "config.json"))
    (tmp_path / "bytes.yml").write_bytes(b"a: \xff\xfe\x00")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(str(tmp_path / "bytes.yml"))


def test_a_base_is_read_once_however_often_it_is_named(tmp_path, monkeypatch):
    """Each of twenty files names the next one twice, which makes a million ways to the last."""
    for number in range(20):
        (tmp_path / f"{number}.yml").write_text(f"_base_: [{number + 1}.yml, {number + 1}.yml]\nkey{number}: 1\n")
    (tmp_path / "20.yml").write_text("iters: 3\n")
    calls = []
    monkeypatch.setattr("paddle_rt.config_file.read_yaml", lambda *line: calls.append(line) or read_yaml(*line))
    assert read_config_file(str(tmp_path / "0.yml"))["iters"] == 3 and len(calls) == 21
    for number in range(20, 60):
        (tmp_path / f"{number}.yml").write_text(f"_base_: {number + 1}.yml\n")
    with pytest.raises(UserError, match="0.yml consists of more than 50 files"):
        read_config_file(str(tmp_path / "0.yml"))


def test_number_that_yaml_reads_as_a_text(tmp_path):
    path = tiny_config(tmp_path)
    text = (tmp_path / "config.yml").read_text().replace("learning_rate: 0.001", "learning_rate: 1e-3")
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(UserError, match="lr_scheduler.learning_rate is the text '1e-3'.*1.0e-03"):
        load_config(path)
    assert math.isclose(load_config(path, learning_rate=1e-3).values["lr_scheduler"]["learning_rate"], 1e-3)


def test_classes_of_a_plain_dataset(tmp_path):
    plain = {"type": "Dataset", "mode": "train", "dataset_root": str(tmp_path), "transforms": []}
    path = tiny_config(tmp_path, train_dataset=plain, val_dataset=plain)
    with pytest.raises(UserError, match="train_dataset.num_classes is missing"):
        load_config(path)


WRONG_MODEL = {
    "model.num_heads=3": "num_heads",
    "model.pretrained=nowhere.pdparams": "no checkpoint at nowhere.pdparams",
}


@pytest.mark.parametrize("item", WRONG_MODEL)
def test_model_that_cannot_be_built(item, tmp_path):
    config = load_config(tiny_config(tmp_path), [item])
    with pytest.raises(UserError, match=WRONG_MODEL[item]) as raised:
        build_network(config)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["RTFormer", "PaddleSegRTFormer"])
def test_weights_that_cannot_be_downloaded(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("SEG_HOME", str(tmp_path))
    address = "http://127.0.0.1:9/weights.zip"
    config = load_config(tiny_config(tmp_path), [f"model.type={kind}", f"model.pretrained={address}"])
    with pytest.raises(UserError, match=f"cannot download {address} .*fetch it by hand"):
        build_network(config)
