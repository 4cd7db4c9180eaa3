"""Rewriting of ONNX graphs: what folds, what must not, and what is left of every model."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import paddle
import pytest
from onnx import TensorProto, helper, numpy_helper

import paddle_rt
from paddle_rt.export.graph import optimise, write_gelu_apart
from paddle_rt.export.publish import export
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.helpers import NORMALIZE, TENSORRT_OPERATORS, randomize, relative_error

FLOAT = TensorProto.FLOAT


def constant(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, ["" if name == "-" else name for name in inputs.split()], output.split(), **attributes)


def build(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: tuple, outputs: str = "y"
) -> onnx.ModelProto:
    """A graph from x to the outputs, whose shapes are left open."""
    graph = helper.make_graph(
        nodes, "test", [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs.split()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    inferred = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), data_prop=True
    )
    onnx.checker.check_model(inferred, full_check=True)
    return inferred


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """As it is written: the engine's own folding is off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


def optimised(model: onnx.ModelProto, size: tuple = ()) -> list[str]:
    """Optimise a copy, compare it with the model, and give the operators that are left."""
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    optimise(changed)
    onnx.checker.check_model(changed, full_check=True)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(5).standard_normal(size or shape).astype(np.float32)
    for before, after in zip(run(model, x), run(changed, x), strict=True):
        error = relative_error(after, before)
        assert before.shape == after.shape and error < 1e-6, f"relative error {error:.1e}"
    read = {name for n in changed.graph.node for name in n.input}
    assert {tensor.name for tensor in changed.graph.initializer} <= read, "constants that nothing reads"
    optimise(again := onnx.ModelProto.FromString(changed.SerializeToString()))
    assert again == changed, "a second pass changes something"
    return [n.op_type for n in changed.graph.node]


def batch_norm(rng: np.random.Generator, channels: int, name: str = "bn") -> dict[str, np.ndarray]:
    values = {key: constant(rng, channels) for key in ("weight", "bias", "mean")}
    values["variance"] = rng.uniform(0.1, 2, channels).astype(np.float32)
    return {f"{name}.{key}": value for key, value in values.items()}


def bn_node(source: str, output: str, name: str = "bn") -> onnx.NodeProto:
    parameters = " ".join(f"{name}.{key}" for key in ("weight", "bias", "mean", "variance"))
    return node("BatchNormalization", f"{source} {parameters}", output, epsilon=1e-3)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("bias", ["", "b"])
def test_batch_norm_folds_into_the_conv_before_it(rng, group, bias):
    constants = {"w": constant(rng, 6, 4 // group, 3, 3), "b": constant(rng, 6), **batch_norm(rng, 6)}
    nodes = [node("Conv", f"x w {bias}", "c", pads=[1] * 4, group=group), bn_node("c", "n"), node("Relu", "n", "y")]
    assert optimised(build(nodes, constants, (2, 4, 7, 5))) == ["Conv", "Relu"]


@pytest.mark.parametrize(
    ("group", "attributes"),
    [(1, {}), (2, {}), (4, {"strides": [2, 2]}), (1, {"auto_pad": "VALID"}), (1, {"dilations": [2, 2]})],
)
@pytest.mark.parametrize("bias", ["", "b"])
def test_batch_norm_folds_into_unpadded_convs_behind_it(rng, group, attributes, bias):
    constants = {"w": constant(rng, 8, 4 // group, 3, 3), "b": constant(rng, 8), **batch_norm(rng, 4)}
    constants["v"] = constant(rng, 3, 4, 1, 1)
    nodes = [bn_node("x", "n"), node("Conv", f"n w {bias}", "y", group=group, **attributes), node("Conv", "n v", "z")]
    assert optimised(build(nodes, constants, (2, 4, 9, 8), "y z")) == ["Conv", "Conv"]


@pytest.mark.parametrize("attributes", [{"pads": [1, 0, 0, 0]}, {"auto_pad": "SAME_UPPER"}])
def test_batch_norm_before_a_padded_conv_stays(rng, attributes):
    """The zeros beyond the border are not normalised: no weight and bias do the same."""
    constants = {"w": constant(rng, 2, 4, 3, 3), "v": constant(rng, 3, 4, 1, 1), **batch_norm(rng, 4)}
    nodes = [bn_node("x", "n"), node("Conv", "n w", "y", **attributes), node("Conv", "n v", "z")]
    assert optimised(build(nodes, constants, (1, 4, 6, 5), "y z")) == ["BatchNormalization", "Conv", "Conv"]


def test_second_readers_keep_what_they_read(rng):
    constants = {"w": constant(rng, 4, 4, 1, 1), **batch_norm(rng, 4)}
    nodes = [node("Conv", "x w", "c"), bn_node("c", "n"), node("Relu", "c", "y"), node("Relu", "n", "z")]
    assert sorted(optimised(build(nodes, constants, (1, 4, 3, 3), "y z"))) == [
        "BatchNormalization", "Conv", "Relu", "Relu"
    ]  # fmt: skip
    nodes = [node("Conv", "x w", "c"), bn_node("c", "y")]
    assert optimised(build(nodes, constants, (1, 4, 3, 3), "y c")) == ["Conv", "BatchNormalization"]
    nodes = [bn_node("x", "n"), node("Conv", "n w", "y"), node("Relu", "n", "z")]
    assert optimised(build(nodes, constants, (1, 4, 3, 3), "y z")) == ["BatchNormalization", "Conv", "Relu"]


def test_batch_norm_alone_stays(rng):
    nodes = [node("Relu", "x", "r"), bn_node("r", "n"), node("Relu", "n", "y")]
    assert optimised(build(nodes, batch_norm(rng, 4), (1, 4, 3, 3))) == ["Relu", "BatchNormalization", "Relu"]


def test_batch_norm_in_training_mode_stays(rng):
    normalise = bn_node("c", "y")
    normalise.attribute.append(helper.make_attribute("training_mode", 1))
    normalise.output.extend(["mean", "variance"])
    nodes = [node("Conv", "x w", "c"), normalise]
    constants = {"w": constant(rng, 4, 4, 1, 1), **batch_norm(rng, 4)}
    assert optimised(build(nodes, constants, (2, 4, 3, 3))) == ["Conv", "BatchNormalization"]


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (4, 1, 1), (1,), (), (1, 1, 1, 1)])
@pytest.mark.parametrize("first", ["Conv", "BatchNormalization"])
def test_arithmetic_by_channel_folds(rng, op, shape, first):
    constants = {"k": constant(rng, *shape) + np.float32(3)}
    nodes = [node("Conv", "x w", "c", pads=[1] * 4), node(op, "c k", "y")]
    if first == "Conv":
        constants["w"] = constant(rng, 4, 4, 3, 3)
    else:
        nodes[0] = bn_node("x", "c")
        constants.update(batch_norm(rng, 4))
    assert optimised(build(nodes, constants, (2, 4, 5, 4))) == [first]


def test_arithmetic_on_the_left_folds_where_order_does_not_matter(rng):
    constants = {"w": constant(rng, 4, 4, 1, 1), "k": constant(rng, 1, 4, 1, 1) + np.float32(3)}
    for op, left in (("Add", ["Conv"]), ("Mul", ["Conv"]), ("Sub", ["Conv", "Sub"]), ("Div", ["Conv", "Div"])):
        nodes = [node("Conv", "x w", "c"), node(op, "k c", "y")]
        assert optimised(build(nodes, constants, (2, 4, 3, 3))) == left, op


@pytest.mark.parametrize("shape", [(4,), (1, 1, 3, 4), (2, 1, 1, 1), (1, 1, 2, 4, 1, 1)])
def test_arithmetic_over_other_axes_stays(rng, shape):
    """Also where its numbers are as many as the channels."""
    constants = {"w": constant(rng, 4, 4, 1, 1), "k": constant(rng, *shape)}
    nodes = [node("Conv", "x w", "c"), node("Mul", "c k", "y")]
    assert optimised(build(nodes, constants, (2, 4, 3, 4))) == ["Conv", "Mul"]


def test_arithmetic_that_widens_stays(rng):
    constants = {"w": constant(rng, 1, 4, 1, 1), "k": constant(rng, 1, 4, 1, 1)}
    nodes = [node("Conv", "x w", "c"), node("Add", "c k", "y")]
    assert optimised(build(nodes, constants, (2, 4, 3, 4))) == ["Conv", "Add"]


def test_division_by_zero_stays(rng):
    nodes = [node("Conv", "x w", "c"), node("Div", "c k", "d"), node("Sigmoid", "d", "y")]
    constants = {"w": constant(rng, 4, 4, 1, 1), "k": np.float32([0])}
    assert optimised(build(nodes, constants, (1, 4, 3, 4))) == ["Conv", "Div", "Sigmoid"]


def test_a_weight_of_two_convs_is_folded_for_one(rng):
    constants = {"w": constant(rng, 4, 4, 1, 1), **batch_norm(rng, 4)}
    nodes = [node("Conv", "x w", "c"), bn_node("c", "y"), node("Relu", "x", "r"), node("Conv", "r w", "z")]
    assert sorted(optimised(build(nodes, constants, (1, 4, 3, 3), "y z"))) == ["Conv", "Conv", "Relu"]


def test_a_computed_weight_stays(rng):
    nodes = [node("Relu", "x", "w"), node("Conv", "k w", "c"), bn_node("c", "n"), node("Conv", "n w", "y")]
    constants = {"k": constant(rng, 1, 4, 3, 3), **batch_norm(rng, 4)}
    assert "BatchNormalization" in optimised(build(nodes, constants, (4, 4, 1, 1)))


def attention(scale: str = "s") -> list[onnx.NodeProto]:
    return [
        bn_node("x", "n"), node("Transpose", "n", "t", perm=[0, 2, 3, 1]), node("Reshape", "t rows", "q"),
        node("Relu", "x", "r"), node("Reshape", "r columns", "k"), node("MatMul", "q k", "scores"),
        node("Mul", f"scores {scale}", "scaled"), node("Softmax", "scaled", "y", axis=-1),
    ]  # fmt: skip


def test_the_scale_of_attention_goes_into_the_queries(rng):
    constants = {"s": np.float32(0.25), "rows": np.array([0, -1, 4]), "columns": np.array([0, 0, -1])}
    constants.update(batch_norm(rng, 4))
    assert "Mul" not in optimised(build(attention(), constants, (2, 4, 3, 3)))
    constants["s"] = constant(rng, 1, 1, 9)  # another factor for each key
    assert "Mul" in optimised(build(attention(), constants, (2, 4, 3, 3)))
    nodes = [*attention(), node("Relu", "scores", "z")]
    constants["s"] = np.float32(0.25)
    assert "Mul" in optimised(build(nodes, constants, (2, 4, 3, 3), "y z")), "the scores have a second reader"


def test_a_factor_goes_through_a_linear_layer(rng):
    constants = {"w": constant(rng, 5, 6), "b": constant(rng, 6), "s": np.float32([2.5])}
    nodes = [
        node("MatMul", "x w", "m"), node("Add", "b m", "a"), node("Transpose", "a", "t", perm=[0, 2, 1]),
        node("Div", "t s", "y"),
    ]  # fmt: skip
    assert optimised(build(nodes, constants, (2, 3, 5))) == ["MatMul", "Add", "Transpose"]


def test_gelu_keeps_the_form_that_engines_know(rng):
    nodes = [
        node("Conv", "x w", "c"), node("Div", "c root", "d"), node("Erf", "d", "e"), node("Add", "e one", "f"),
        node("Mul", "c f", "g"), node("Mul", "g half", "h"), node("Conv", "h w", "y"),
    ]  # fmt: skip
    constants = {name: np.float32(value) for name, value in {"root": 2**0.5, "one": 1, "half": 0.5}.items()}
    constants["w"] = constant(rng, 4, 4, 1, 1)
    assert optimised(build(nodes, constants, (1, 4, 3, 3))) == ["Conv", "Div", "Erf", "Add", "Mul", "Mul", "Conv"]


def test_gelu_is_written_so_that_mnn_does_not_take_it_for_one(rng):
    nodes = [
        node("Div", "x root", "d"), node("Erf", "d", "e"), node("Add", "e one", "f"), node("Mul", "x f", "g"),
        node("Mul", "g half", "y"),
    ]  # fmt: skip
    constants = {name: np.float32(value) for name, value in {"root": 2**0.5, "one": 1, "half": 0.5}.items()}
    model = build(nodes, constants, (1, 4, 3, 3))
    x = constant(rng, 1, 4, 3, 3)
    before = run(model, x)
    write_gelu_apart(model)
    np.testing.assert_array_equal(run(model, x)[0], before[0])
    assert list(model.graph.node[3].input) == ["x", "half"] and sorted(model.graph.node[4].input) == ["f", "g"]


def test_constants_are_computed(rng):
    """A parameter as paddle2onnx writes it: a Constant, an Identity, a Reshape, an Add behind the Conv."""
    nodes = [
        helper.make_node("Constant", [], ["raw"], value=numpy_helper.from_array(constant(rng, 4))),
        node("Identity", "raw", "same"), node("Reshape", "same shape", "bias"), node("Conv", "x w", "c"),
        node("Add", "c bias", "a"), node("Identity", "a", "y"),
    ]  # fmt: skip
    constants = {"w": constant(rng, 4, 4, 1, 1), "shape": np.array([1, -1, 1, 1]), "unread": constant(rng, 9)}
    assert optimised(build(nodes, constants, (1, 4, 3, 3))) == ["Conv"]


def test_a_split_constant_is_computed(rng):
    """As parts of one weight that several Convs share out; a split of what is not constant stays."""
    nodes = [
        helper.make_node("Split", ["k"], ["v", "w"], axis=1), node("Conv", "x v", "y"),
        node("Mul", "w two", "twice"), node("Conv", "x twice", "z"),
        helper.make_node("Split", ["x"], ["a", "b"], axis=1), node("Add", "a b", "c"),
    ]  # fmt: skip
    constants = {"k": constant(rng, 2, 8, 1, 1), "two": np.float32([2])}
    operators = optimised(build(nodes, constants, (1, 4, 3, 3), "y z c"))
    assert Counter(operators) == Counter(Conv=2, Split=1, Add=1)


@pytest.mark.parametrize(
    ("slices", "left"),
    [
        ([(0, 3, 1, 1)], 3), ([(0, 3, 1, 1), (0, 2, -1, 1)], 3), ([(0, 9, 1, 1)], 9), ([(1, 3, 1, 1)], 9),
        ([(0, 3, 0, 1)], 9), ([(0, 3, 1, 2)], 9),
    ],
)  # fmt: skip
def test_a_sort_of_which_the_first_are_read_looks_for_no_more(rng, slices, left):
    nodes = [node("TopK", "x k", "values order", axis=1, largest=0)]
    constants = {"k": np.array([9])}
    for i, numbers in enumerate(slices):
        constants.update({f"{i}{part}": np.array([number]) for part, number in zip("seat", numbers, strict=True)})
        nodes.append(node("Slice", f"{('order', 'values')[i]} {i}s {i}e {i}a {i}t", f"part{i}"))
        nodes.append(node("Cast", f"part{i}", f"y{i}", to=FLOAT))
    model = build(nodes, constants, (4, 9), " ".join(f"y{i}" for i in range(len(slices))))
    optimised(model)
    optimise(model)
    (top,) = (n for n in model.graph.node if n.op_type == "TopK")
    (found,) = (numpy_helper.to_array(t) for t in model.graph.initializer if t.name == top.input[1])
    assert found.tolist() == [left]


def test_sums_with_zeros_of_any_fitting_shape_go(rng):
    """The shape of a constant is one too."""
    nodes = [
        node("Shape", "k", "s"), node("Expand", "zero s", "zeros"), node("Add", "x zeros", "a"), node("Exp", "a", "y"),
        node("Add", "y wide", "z"),
    ]  # fmt: skip
    constants = {"k": constant(rng, 1, 4), "zero": np.float32([0]), "wide": np.zeros((2, 3, 4), np.float32)}
    assert optimised(build(nodes, constants, (3, 4), "y z")) == ["Exp", "Add"]


def test_large_fills_are_not_written_out(rng):
    value = numpy_helper.from_array(np.float32([2]))
    nodes = [node("ConstantOfShape", "shape", "k", value=value), node("Add", "x k", "y")]
    assert optimised(build(nodes, {"shape": np.array([1, 8])}, (1, 8))) == ["Add"]
    nodes[1] = node("MatMul", "x k", "y")
    assert optimised(build(nodes, {"shape": np.array([1, 1 << 19])}, (1, 1))) == ["ConstantOfShape", "MatMul"]


def resize_and_flatten() -> list[onnx.NodeProto]:
    """What paddle2onnx writes for a resize to another size and a flatten behind it."""
    return [
        node("Relu", "x", "r"), node("Shape", "r", "s"), node("Slice", "s zero two zero", "front"),
        node("Concat", "front size", "sizes", axis=0), node("Resize", "r - - sizes", "big", mode="linear"),
        node("Shape", "big", "s2"), node("Slice", "s2 zero two zero", "front2"),
        node("Concat", "front2 minus", "flat", axis=0), node("Reshape", "big flat", "y"),
    ]  # fmt: skip


SIZES = {"zero": np.array([0]), "two": np.array([2]), "size": np.array([6, 8]), "minus": np.array([-1])}


def test_static_shapes_are_computed():
    assert optimised(build(resize_and_flatten(), SIZES, (2, 4, 3, 4))) == ["Relu", "Resize", "Reshape"]


def test_a_flatten_of_open_sizes_copies_them():
    nodes = [
        node("Relu", "x", "r"), node("Shape", "r", "s"), node("Slice", "s zero two zero", "front"),
        node("Concat", "front minus", "flat", axis=0), node("Reshape", "r flat", "y"),
    ]  # fmt: skip
    model = build(nodes, SIZES, ("n", 4, "h", "w"))
    for size in ((1, 4, 3, 4), (3, 4, 5, 2)):
        assert optimised(model, size) == ["Relu", "Reshape"]


def test_a_reshape_with_two_unknown_sizes_stays():
    nodes = [node("Shape", "x", "s"), node("Gather", "s order", "swapped"), node("Reshape", "x swapped", "y")]
    model = build(nodes, {"order": np.array([1, 0])}, ("a", "b"))
    assert optimised(model, (3, 5)) == ["Shape", "Gather", "Reshape"]
    assert optimised(build(nodes, {"order": np.array([1, 0])}, ("a", 4)), (3, 4)) == ["Reshape"]


def test_nodes_without_effect_go(rng):
    nodes = [
        node("Identity", "x", "a"), node("Dropout", "a", "b"), node("Cast", "b", "c", to=FLOAT),
        node("Reshape", "c same", "d"), node("Transpose", "d", "e", perm=[0, 2, 3, 1]),
        node("Transpose", "e", "f", perm=[0, 3, 1, 2]), node("Mul", "f one", "g"), node("Add", "zero g", "h"),
        node("Relu", "h", "i"), node("Relu", "i", "j"), node("Resize", "j - - sizes", "k", mode="linear"),
        node("Reshape", "k row", "l"), node("Reshape", "l back", "m"), node("Exp", "m", "y"), node("Sqrt", "m", "dead"),
    ]  # fmt: skip
    constants = {
        "one": np.float32([1]), "zero": np.zeros((1, 1, 1, 1), np.float32), "same": np.array([0, 0, -1, 4]),
        "sizes": np.array([2, 3, 5, 4]), "row": np.array([2, -1]), "back": np.array([2, 3, 5, 4]),
    }  # fmt: skip
    assert optimised(build(nodes, constants, (2, 3, 5, 4))) == ["Relu", "Exp"]


def test_what_looks_without_effect_and_is_not_stays(rng):
    nodes = [
        node("Add", "x zeros", "a"), node("Cast", "a", "b", to=TensorProto.FLOAT16), node("Cast", "b", "c", to=FLOAT),
        node("Reshape", "c two", "d"), node("Reshape", "d zero", "y"),
    ]  # fmt: skip
    constants = {"zeros": np.zeros((2, 1, 1), np.float32), "two": np.array([8, 3]), "zero": np.array([0, 1, -1])}
    assert optimised(build(nodes, constants, (4, 3))) == ["Add", "Cast", "Cast", "Reshape", "Reshape"]


@pytest.mark.parametrize("axis", [2, -3])
def test_a_resize_of_depth_one_is_flat(axis):
    """How a model asks for aligned corners of an engine that heeds them for three axes only."""
    aligned = dict(mode="linear", coordinate_transformation_mode="align_corners")
    nodes = [
        node("Relu", "x", "r"), node("Unsqueeze", "r axis", "deep"), node("Resize", "deep - - sizes", "big", **aligned),
        node("Squeeze", "big axis", "y"),
    ]  # fmt: skip
    constants = {"axis": np.array([axis]), "sizes": np.array([1, 2, 1, 7, 9])}
    assert optimised(build(nodes, constants, (1, 2, 3, 4))) == ["Relu", "Resize"]
    nodes.append(node("Neg", "big", "z"))
    assert "Squeeze" in optimised(build(nodes, constants, (1, 2, 3, 4), "y z")), "the deep one has a second reader"


def test_an_output_that_is_an_input_or_a_constant_stays():
    nodes = [node("Identity", "x", "y"), node("Identity", "k", "z"), node("Relu", "x", "a"), node("Identity", "a", "b")]
    model = build(nodes, {"k": np.float32([1, 2])}, (3,), "y z a b")
    assert optimised(model) == ["Identity", "Identity", "Relu", "Identity"]


def test_equal_nodes_are_shared(rng):
    nodes = [
        node("MaxPool", "x", "a", kernel_shape=[2, 2]), node("Transpose", "a", "c", perm=[0, 1, 3, 2]),
        node("MaxPool", "x", "b", kernel_shape=[2, 2]), node("Transpose", "b", "d", perm=[0, 1, 3, 2]),
        node("MaxPool", "x", "e", kernel_shape=[2, 1]), node("Concat", "c d", "y", axis=0), node("Relu", "e", "z"),
    ]  # fmt: skip
    operators = optimised(build(nodes, {}, (1, 2, 4, 4), "y z"))
    assert Counter(operators) == Counter(MaxPool=2, Transpose=1, Concat=1, Relu=1)
    nodes = [node("Relu", "x", "a"), node("Exp", "a", "b"), node("Relu", "x", "y"), node("Add", "b y", "z")]
    assert optimised(build(nodes, {}, (2,), "y z")).count("Relu") == 2, "the later one is an output"


# These differ from another in widths and numbers of blocks alone, which bring no other nodes and take minutes.
LARGER = ("fanet34", "fanet50", *(f"segformerpp_b{i}" for i in range(1, 6)))
NETWORKS = {name: (name, {}) for name in paddle_rt.list_models(task="segmentation") if name not in LARGER}
NETWORKS["mlp"] = ("segformerpp_b0", dict(head="mlp", depths=(1, 1, 1, 1)))


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> paddle.nn.Layer:
    name, arguments = NETWORKS[request.param]
    model = paddle_rt.create_model(name, num_classes=5, **arguments)
    randomize(model)
    model.eval()
    return model


@pytest.mark.parametrize("shape", [(1, 3, 64, 96), (None, 3, None, None)], ids=["fixed", "open"])
def test_exported_graphs_of_every_model(network, tmp_path, shape):
    """Export compares the numbers, here at small sizes; the nodes are read."""
    spec = SegmentationExport([NORMALIZE], open_sizes=((1, 97, 161), (2, 64, 96)))
    export(network, tmp_path / "e", spec, shape, "coarse", ["onnx"])
    graph = onnx.load(str(tmp_path / "e" / "model.onnx")).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: n for n in graph.node for name in n.output}
    operators = Counter(n.op_type for n in graph.node)
    assert set(operators) <= TENSORRT_OPERATORS, f"not in TensorRT's list: {set(operators) - TENSORRT_OPERATORS}"
    assert not {"Dropout", "Identity", "Constant"} & set(operators)
    computed = [n.name for n in graph.node if n.op_type == "Conv" and not set(n.input[1:]) <= set(constants)]
    assert not computed, f"Conv with a computed weight or bias: {computed}"
    for n in graph.node:
        behind = n.input[0] in makers and makers[n.input[0]].op_type == "Conv"
        alone = sum(n.input[0] in other.input for other in graph.node) == 1
        assert not (n.op_type == "BatchNormalization" and behind and alone), f"{n.name} folds into the Conv before it"
    if None not in shape:
        assert not operators["Shape"], "at a fixed size no shape is computed"

    network.coarse_logits(paddle.zeros([1, 3, 64, 96])).sum().backward()
    needed = [p.size for p in network.parameters() if p.grad is not None and len(p.shape) == 4]
    network.clear_gradients()
    stored = [int(np.prod(constants[n.input[1]].dims)) for n in graph.node if n.op_type == "Conv"]
    stored, needed = sum(stored[1:]), sum(needed[1:])  # the rewritten stem, the first of them, is padded with zeros
    assert stored <= needed, f"{stored} numbers in the weights of Convs, {needed} needed: an auxiliary head is left"
