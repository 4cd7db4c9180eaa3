"""Train and measure the networks of RTFormer's ablation tables.

paddle-rt ablations --output output/ablations

Trains each network by one recipe, measures its size, operations and time, and writes tables with what the paper reports
beside them (ablations.md), a chart (ablations.png) and all numbers (ablations.json). A second call goes on where the
first was stopped: finished trainings are read, not repeated.
"""

import pathlib

from paddle_rt.cli.arguments import Parser, count, file_or_folder, output_folder, positive, threads
from paddle_rt.cpu import import_paddle

_CONFIG = "configs/rtformer/rtformer_slim_streetscenes_256x128_ablations.yml"


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("-c", "--config", type=file_or_folder, default=_CONFIG, help="the recipe, a config of RTFormer-Slim")
    add("--output", type=output_folder, default="output/ablations", help="folder of the runs and the results")
    add("--rows", nargs="+", metavar="NAME", help="names of networks, as the table has them; all by default")
    add("--steps", nargs="+", choices=["train", "measure"], default=["train", "measure"], help="one or both")
    add("--iters", type=positive, help="iterations of each training, in place of the config's")
    add("--runs", type=count, default=15, help="rounds of the measurement")
    add("--threads", type=threads, default=2, help="CPU threads of the measurement")
    arguments = parser.parse_args()
    import_paddle()

    import openvino
    import paddle

    from paddle_rt.benchmark import ablations
    from paddle_rt.config import load_config

    rows, root = ablations.find_rows(arguments.rows), pathlib.Path(arguments.output)
    config = load_config(arguments.config, iters=arguments.iters)
    scenes, num_classes = config.values["val_dataset"], config.values["model"].get("num_classes", 19)
    size = [scenes["height"], scenes["width"]]
    root.mkdir(parents=True, exist_ok=True)
    results, facts = ablations.read_results(root / "ablations.json")
    for row in rows:
        result = results.setdefault(row.name, {})
        result["parameters"] = ablations.count_parameters(row, size, num_classes)
        result["repeats_cells"] = ablations.repeats_cells(row, size)
    if "measure" in arguments.steps:
        facts["Measured"] = (
            f"OpenVINO {openvino.__version__.partition('-')[0]}, fp32, {arguments.threads} threads, random weights, "
            f"median of {arguments.runs} rounds of all networks in turns"
        )
        for height, width in ablations.SIZES:
            measured = ablations.measure(rows, (height, width), num_classes, arguments.runs, arguments.threads)
            for name, result in measured.items():
                results[name].setdefault("sizes", {})[f"{height}x{width}"] = result
            ablations.write_results(root, rows, results, facts)
    if "train" in arguments.steps:
        facts["Trained"] = f"{arguments.config}, {config.iters} iterations, paddlepaddle {paddle.__version__}"
        for row, seed in sorted(((r, s) for r in rows for s in r.seeds), key=lambda run: run[1]):
            score = ablations.train(row, seed, arguments.config, config.iters, size, root)
            results[row.name].setdefault("scores", {})[str(seed)] = score
            print(f"{row.name}, seed {seed}: {ablations.SCORE} {score:.4f}", flush=True)
            ablations.write_results(root, rows, results, facts)
    print(ablations.write_results(root, rows, results, facts))
