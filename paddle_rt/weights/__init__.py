"""Trained weights that come with the package: for each name a file NAME.safetensors, and NAME.yml, its card.

`paddle-rt pack_weights` writes both files. A name is that of a network and of the data that it was trained on, such as
rtformer_slim_streetscenes. The name of the data alone, streetscenes, stands for the weights of the network that asks.
"""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paddle_rt.errors import UserError
from paddle_rt.files import check_plain_file
from paddle_rt.yaml_file import read_yaml

FOLDER = pathlib.Path(__file__).parent
DEFAULT = "rtformer_slim_streetscenes"  # what images are labelled with where nothing is said
MOST_BYTES = 12_000_000  # of a file of weights


@dataclass(frozen=True)
class Card:
    """What tools read of a card.

    Args:
        name: The name of the weights.
        data: The name of the data that they were trained on.
        sha256: The digest of the file of weights.
        config: The config of the training. Its validation transforms also scale an image to the size of the training.
    """

    name: str
    data: str
    sha256: str
    config: Mapping[str, Any]

    @property
    def class_name(self) -> str:
        """The name of the network's class."""
        return self.config["model"]["type"]


def list_weights() -> list[str]:
    """Return the names of the weights that come with the package, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.yml"))


def find_card(name: object, class_name: str | None = None) -> Card | None:
    """Return the card of weights, or None where `name` is no name of weights of the package.

    Args:
        name: A text is compared with the names; a path object is no name.
        class_name: The class of the network, among whose weights the name of the data alone chooses; None for all.

    Raises:
        UserError: The name of the data stands for none or several of the weights, or a card is damaged.
    """
    names = list_weights() if isinstance(name, str) else []
    if name in names:
        return _read_card(name)
    of_data = [card for card in (_read_card(n) for n in names if n.endswith(f"_{name}")) if card.data == name]
    fitting = [card for card in of_data if class_name in (None, card.class_name)]
    if len(fitting) == 1 or not of_data:
        return fitting[0] if fitting else None
    found = ", ".join(card.name for card in fitting or of_data)
    if not fitting:
        raise UserError(f"no weights {name!r} of this package are for {class_name}; there are {found}")
    raise UserError(f"{name!r} stands for several weights of this package; give one of {found}")


def find_weights(source: str | os.PathLike, class_name: str | None = None) -> str | os.PathLike:
    """Return the path of the weights that a name stands for, or the source itself where it is no name.

    Args:
        source: The name of weights of the package, a path, or an address. A file or folder that is called as weights
            of the package are is given as ./NAME.
        class_name: As for `find_card`.

    Raises:
        UserError: The name does not fit the class, or the file is not the one that its card describes.
    """
    card = find_card(source, class_name)
    if card is None:
        return source
    file = check_plain_file(FOLDER / f"{card.name}.safetensors", "file of weights")
    with open(file, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != card.sha256:
        raise UserError(f"{file} is damaged: its SHA-256 is {found}, its card says {card.sha256}; install it again")
    return file


def described() -> str:
    """Return the names of all weights of the package as messages list them."""
    return ", ".join(list_weights()) or "none in this installation"


def _read_card(name: str) -> Card:
    file = FOLDER / f"{name}.yml"
    content = read_yaml(str(file), "card of weights")
    keys = ("data", "sha256", "config")
    if not isinstance(content, dict) or any(key not in content for key in keys):
        raise UserError(f"{file} is damaged: a card of weights has the keys {', '.join(keys)}; install it again")
    return Card(name, *(content[key] for key in keys))
