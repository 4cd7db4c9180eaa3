"""Entry points of paddle.hub: every network of paddle_rt.list_models() under its name.

paddle.hub.load(FOLDER, "segformerpp_b0", source="local", num_classes=19, token_merging="bsm_hq")

Paddle imports this file from the given folder and lists every callable in it whose name does not begin with an
underscore.
"""

import functools as _functools
import inspect as _inspect

from paddle_rt.registry import create_model as _create_model
from paddle_rt.registry import find_entry as _find_entry
from paddle_rt.registry import list_models as _list_models

dependencies = ["paddle", "numpy"]


def _entry_point(name: str) -> _functools.partial:
    entry = _find_entry(name)
    network_class = entry.network_class()
    build = _functools.partial(_create_model, name)
    build.__doc__ = (
        f"{name}: builds `paddle_rt.create_model({name!r}, {entry.outputs}=..., checkpoint=None, **arguments)`.\n\n"
        f"The arguments are those of {network_class.__name__}. {_inspect.getdoc(network_class)}"
    )
    return build


globals().update({_name: _entry_point(_name) for _name in _list_models()})
