"""The options of a training run, one for each flag of tools/train.py."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainOptions:
    """How a run is trained, logged and saved. Names and defaults are PaddleSeg's where it has the flag.

    Args:
        save_dir: Folder of the checkpoints and logs.
        device: "cpu", "gpu" or another device of Paddle; falls back to the CPU where Paddle has no such device.
        do_eval: Evaluate every `save_interval` iterations and keep the best model.
        resume_model: Checkpoint folder to resume from, "auto" for the newest one in `save_dir`, or None.
        seed: Seed of weights, augmentation and stochastic depth; None draws one.
        num_workers: Processes that load images; 0 loads them in a thread.
        save_interval: Iterations between checkpoints.
        log_iters: Iterations between log lines.
        keep_checkpoint_max: Number of checkpoints to keep; 0 keeps all.
        use_vdl: Write a VisualDL log to `save_dir`.
        use_ema: Also keep an exponential moving average of the weights.
        precision: "fp32", "fp16" or "bf16".
        amp_level: "O1" or "O2", the level of automatic mixed precision.
        profiler_options: PaddleSeg's option string of its profiler, or None.
        weights_format: "pdparams" or "safetensors", the format of the weights; the rest stays PaddleSeg's.
        repeats: Number of times that an epoch visits each image.
        accumulate: Number of batches whose gradients are averaged for one iteration.
        early_stop_intervals: Stop after so many evaluations below the best score; None never stops early.
    """

    save_dir: str = "./output"
    device: str = "gpu"
    do_eval: bool = False
    resume_model: str | None = None
    seed: int | None = None
    num_workers: int = 0
    save_interval: int = 1000
    log_iters: int = 10
    keep_checkpoint_max: int = 5
    use_vdl: bool = False
    use_ema: bool = False
    precision: str = "fp32"
    amp_level: str = "O1"
    profiler_options: str | None = None
    weights_format: str = "pdparams"
    repeats: int = 1
    accumulate: int = 1
    early_stop_intervals: int | None = None
