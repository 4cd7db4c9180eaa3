"""What makes PaddleSeg 2.8.0, as released, run on Paddle 3: one small function a fault.

Each `fix_*` function names the symptom, the cause, where it was reported and where PaddleSeg mended it. It looks for
the fault in the installed package, leaves a package without it alone, and returns whether it changed anything.
Nothing happens on import: call `apply()` before PaddleSeg is used.
"""

from paddle_rt.errors import UserError, unknown
from paddle_rt.paddleseg import evaluation, losses
from paddle_rt.paddleseg import loop_fixes as training
from paddle_rt.paddleseg.evaluation import ABSENT_CLASS_RULES, absent_class_mean_iou
from paddle_rt.paddleseg.loop_fixes import sync_batch_norm_buffers

__all__ = ["absent_class_mean_iou", "apply", "check_precision", "sync_batch_norm_buffers"]


def apply(absent_class: str = "exclude") -> list[str]:
    """Make the installed PaddleSeg run on the installed Paddle. Calling it again changes nothing more.

    Args:
        absent_class: How `paddleseg.utils.metrics.mean_iou` counts a class that neither labels nor predictions
            hold: "exclude", "zero" or "one"; see `absent_class_mean_iou`.

    Returns:
        The names of the fixes that this call applied.

    Raises:
        UserError: `absent_class` is no rule.
    """
    if absent_class not in ABSENT_CLASS_RULES:
        raise unknown("rule for absent classes", absent_class, ABSENT_CLASS_RULES)
    applied = [fix.__name__ for fix in (*training.FIXES, *losses.FIXES, *evaluation.FIXES) if fix()]
    if evaluation.fix_mean_iou_absent_class(absent_class):
        applied.append(evaluation.fix_mean_iou_absent_class.__name__)
    return applied


def check_precision(precision: str, device: str) -> None:
    """Refuse half precision where Paddle ignores it.

    Symptom without the check: training with `--precision fp16` on a CPU is fp32 training, number for number. Cause:
    `paddle.amp.auto_cast` and `GradScaler` do nothing on a CPU.

    Args:
        precision: "fp32", "fp16" or another name that `--precision` takes.
        device: "cpu", "gpu" or another name that `--device` takes; PaddleSeg falls back to the CPU where
            Paddle has no such device.

    Raises:
        UserError: Anything but fp32 would run on a CPU.
    """
    import paddle

    kind = device.partition(":")[0]
    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    there = {"gpu": has_gpu, "xpu": paddle.is_compiled_with_xpu()}
    if precision != "fp32" and not there.get(kind, kind in paddle.device.get_all_custom_device_type()):
        raise UserError(
            f"precision {precision} does nothing in Paddle on a CPU, and that is what --device {device} gives here; "
            "use --device gpu on a machine with a GPU, or --precision fp32"
        )
