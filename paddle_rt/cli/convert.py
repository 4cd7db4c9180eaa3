"""Turn a PyTorch checkpoint into ours.

paddle-rt convert --model NAME --input x.pth --output x.pdparams
"""

from paddle_rt.cli.arguments import Parser, count, file_or_folder, output_file
from paddle_rt.cpu import import_paddle


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="one of paddle_rt.list_models()")
    add("--input", type=file_or_folder, required=True, help="what torch.save, safetensors or Paddle wrote")
    add("--output", type=output_file, required=True, help="the file to write, .pdparams or .safetensors")
    add("--num_classes", type=count, help="number of classes (default 19) or keypoints (default 17) of the checkpoint")
    add("--head", choices=["conv", "mlp"], help="of SegFormer++; without it, the head that the checkpoint has")
    add("--backbone_only", action="store_true", help="the trunk alone, as of an ImageNet checkpoint, to train from")
    arguments = parser.parse_args()
    import_paddle()

    from paddle_rt.checkpoint import atomic_save, read_state_dict
    from paddle_rt.convert import from_torch, known_names, model_arguments, read_torch
    from paddle_rt.registry import create_model, model_config

    model_type = model_config(arguments.model)["type"]
    read = read_state_dict if arguments.input.endswith(".pdparams") else read_torch
    state = known_names(model_type, read(arguments.input))
    given = model_arguments(model_type, state)
    if arguments.head:
        given["head"] = arguments.head
    net = create_model(arguments.model, arguments.num_classes, **given)
    converted = from_torch(net, state, arguments.backbone_only)
    atomic_save(converted, arguments.output)
    made = f"{arguments.model} {given}" if given else arguments.model
    print(f"{arguments.output}: {len(converted)} tensors for {made}")
