"""Entry points of paddle.hub: every model of paddle_rt.list_models() under its name.

paddle.hub.load(FOLDER, "segformerpp_b0", source="local", num_classes=19, token_merging="bsm_hq")

Paddle imports this file from the folder that it is given, and takes each callable without an underscore for a model.
"""

import functools as _functools
import inspect as _inspect

from paddle_rt.registry import create_model as _create_model
from paddle_rt.registry import list_models as _list_models
from paddle_rt.registry import model_class as _model_class

dependencies = ["paddle", "numpy"]


def _entry(name: str) -> _functools.partial:
    build = _functools.partial(_create_model, name)
    about = _model_class(name)
    build.__doc__ = (
        f"{name}: what `paddle_rt.create_model({name!r}, num_classes=19, checkpoint=None, **arguments)` builds.\n\n"
        f"The arguments are those of {about.__name__}. {_inspect.getdoc(about)}"
    )
    return build


globals().update({_name: _entry(_name) for _name in _list_models()})
