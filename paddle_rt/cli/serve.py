"""Serve an exported network by HTTP: images in; labels, polygons, keypoints or classes out.

paddle-rt serve --config EXPORT/deploy.yaml

The page /docs of the service says what it answers, docs/serve.md how it is run. Ctrl-C or SIGTERM ends it: new work is
refused, and what is queued is answered.
"""

import argparse
import logging
import warnings

import cv2

from paddle_rt.cli.arguments import Parser, count, file_or_folder
from paddle_rt.cli.backend import add_engine_flags, load_predictor
from paddle_rt.kinds import flag, number, whole
from paddle_rt.listening import address_of, bind


def main() -> None:
    arguments = parse_arguments()
    from PIL import Image

    from paddle_rt.serving.server import Server
    from paddle_rt.serving.service import Limits, Service

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the service has a limit of its own
    cv2.setLogLevel(1)  # fatal errors alone
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # what it finds, a client is told
    listener = bind(arguments.host, arguments.port)
    predictor = load_predictor(arguments)
    limits = Limits(arguments.max_mb << 20, arguments.max_pixels, arguments.queue, arguments.timeout)
    service = Service(predictor, f"{arguments.backend} {arguments.precision} {arguments.device}", limits)
    predictor.warmup()
    listener.listen()  # not before there is somebody to answer
    address = address_of(listener)
    print(f"{predictor.task} by {service.engine} at {address}; {address}/docs describes it", flush=True)
    Server(service).run([listener])
    service.close()
    print("the service has ended; all that was queued is answered")


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--config", type=file_or_folder, required=True, help="deploy.yaml of an export, or its folder")
    add_engine_flags(parser)
    add("--host", default="127.0.0.1", help="the address to listen at; 0.0.0.0 lets other machines in")
    add("--port", type=flag(whole(0, 65535)), default=8000, help="the port; 0 for a free one")
    add("--max_mb", type=flag(whole(1, 1024)), default=16, help="the size in MiB that a request may have")
    add(
        "--max_pixels",
        type=flag(whole(1, 2**30)),
        default=2**24,
        help="pixels that an image may have; a graph with open sizes runs at the image's size and needs memory for it",
    )
    add("--queue", type=count, default=16, help="requests in work or waiting; further ones are answered with 503")
    add(
        "--timeout",
        type=flag(number(0, 3600, above=True)),
        default=30,
        help="seconds within which a request has to arrive, has to be answered, and its answer has to be taken",
    )
    return parser.parse_args()
