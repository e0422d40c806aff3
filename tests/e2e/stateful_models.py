"""Models with state: what a request leaves behind is an input of the next one of its sequence."""

import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def write_sum(path, factor=1.0, settings=""):
    """Writes total = before + x, y = total * factor, all FP32 [n, 1], and a model.yaml that keeps `total`, with `settings` under sequences."""
    nodes = [helper.make_node("Add", ["x", "before"], ["total"]), helper.make_node("Mul", ["total", "factor"], ["y"])]
    inputs = [helper.make_tensor_value_info(name, FLOAT, ["n", 1]) for name in ("x", "before")]
    outputs = [helper.make_tensor_value_info(name, FLOAT, ["n", 1]) for name in ("y", "total")]
    constant = helper.make_tensor("factor", FLOAT, [1], [factor])
    graph = helper.make_graph(nodes, "sum", inputs, outputs, [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    (path.parent.parent / "model.yaml").write_text(f"state: {{before: {{output: total}}}}\nsequences: {{{settings}}}\n")


def write_batching_vad(source, path):
    """Writes silero-vad, which is for one chunk [1, 576] and a state [2, 1, 128], for chunks [n, 576] and states [n, 2, 128].

    Its weights are nodes, and become initializers, which `octet quantize` makes other precisions of.
    """
    model = onnx.load(source)
    graph = model.graph
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        graph.initializer.add().CopyFrom(node.attribute[0].t)
        graph.initializer[-1].name = node.output[0]
        graph.node.remove(node)
    for node in graph.node:
        for names, old, new in ((node.input, "state", "state_by_layer"), (node.output, "stateN", "stateN_by_layer")):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
    graph.node.insert(0, helper.make_node("Transpose", ["state"], ["state_by_layer"], perm=[1, 0, 2]))
    graph.node.append(helper.make_node("Transpose", ["stateN_by_layer"], ["stateN"], perm=[1, 0, 2]))
    for values in (graph.input, graph.output, graph.value_info):
        del values[:]
    shapes = {"input": ["n", 576], "state": ["n", 2, 128], "output": ["n", 1], "stateN": ["n", 2, 128]}
    infos = {name: helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in shapes.items()}
    graph.input.extend([infos["input"], infos["state"]])
    graph.output.extend([infos["output"], infos["stateN"]])
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def read_chunk(path):
    """Returns the array of a TensorProto file."""
    tensor = TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)
