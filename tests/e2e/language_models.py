"""Small decoder language models, laid out as onnxruntime-genai's model builder does: Llama's, with random weights."""

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

WORDS, WIDTH, HIDDEN = 37, 64, 96
HEADS, KV_HEADS, SIZE = 4, 2, 16
LAYERS = 2
POSITIONS = 48
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def past_names():
    """Returns {input that takes a past: output that gives it}."""
    parts = [(layer, part) for layer in range(LAYERS) for part in ("key", "value")]
    return {f"past_key_values.{layer}.{part}": f"present.{layer}.{part}" for layer, part in parts}


class Writer:
    """Nodes and weights of one model."""

    def __init__(self, seed):
        self.random = numpy.random.default_rng(seed)
        self.nodes, self.constants = [], {}

    def constant(self, name, array):
        self.constants[name] = array
        return name

    def node(self, op, inputs, outputs, domain="", **attributes):
        self.nodes.append(helper.make_node(op, inputs, outputs, name=f"{outputs[0]}/{op}", domain=domain, **attributes))
        return outputs[0]

    def product(self, x, name, rows, columns):
        weights = self.random.normal(scale=rows**-0.5, size=(rows, columns)).astype(numpy.float32)
        return self.node("MatMul", [x, self.constant(f"{name}.weight", weights)], [name])

    def scale(self, name):
        return self.constant(f"{name}.weight", self.random.uniform(0.5, 1.5, WIDTH).astype(numpy.float32))

    def lengths(self):
        """From the mask: what is seen of each sequence, and the longest."""
        one = self.constant("one", numpy.array([1], numpy.int64))
        self.node("ReduceSum", ["attention_mask", one], ["counts"], keepdims=0)
        self.node("Sub", ["counts", one], ["last"])
        self.node("Cast", ["last"], ["seqlens_k"], to=TensorProto.INT32)
        self.node("Shape", ["attention_mask"], ["mask_shape"])
        self.node("Gather", ["mask_shape", self.constant("axis", numpy.array(1, numpy.int64))], ["extent"], axis=0)
        self.node("Cast", ["extent"], ["total_sequence_length"], to=TensorProto.INT32)

    def caches(self):
        angles = numpy.outer(numpy.arange(POSITIONS), 1e4 ** -(numpy.arange(SIZE // 2) / (SIZE / 2)))
        self.constant("cos_cache", numpy.cos(angles).astype(numpy.float32))
        self.constant("sin_cache", numpy.sin(angles).astype(numpy.float32))

    def attention(self, x, layer, packed, attributes):
        name = f"layers.{layer}.attn"
        if packed:
            parts = [self.product(x, f"{name}.qkv_proj", WIDTH, (HEADS + 2 * KV_HEADS) * SIZE), "", ""]
        else:
            heads = {"q": HEADS, "k": KV_HEADS, "v": KV_HEADS}
            parts = [self.product(x, f"{name}.{part}_proj", WIDTH, count * SIZE) for part, count in heads.items()]
        pasts = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        lengths = ["seqlens_k", "total_sequence_length", "cos_cache", "sin_cache"]
        outputs = [name, f"present.{layer}.key", f"present.{layer}.value"]
        attributes = {"num_heads": HEADS, "kv_num_heads": KV_HEADS, "do_rotary": 1, "scale": SIZE**-0.5} | attributes
        self.node("GroupQueryAttention", [*parts, *pasts, *lengths], outputs, domain="com.microsoft", **attributes)
        return self.product(name, f"{name}.o_proj", HEADS * SIZE, WIDTH)

    def gated(self, x, layer):
        name = f"layers.{layer}.mlp"
        gate = self.product(x, f"{name}.gate_proj", WIDTH, HIDDEN)
        up = self.product(x, f"{name}.up_proj", WIDTH, HIDDEN)
        self.node("Sigmoid", [gate], [f"{name}.sigmoid"])
        self.node("Mul", [gate, f"{name}.sigmoid"], [f"{name}.act"])
        self.node("Mul", [f"{name}.act", up], [f"{name}.gated"])
        return self.product(f"{name}.gated", f"{name}.down_proj", HIDDEN, WIDTH)

    def normalised(self, skip, x, name):
        """Returns the normalised sum and the sum."""
        outputs = [f"{name}/y", "", "", f"{name}/sum"]
        self.node("SkipSimplifiedLayerNormalization", [skip, x, self.scale(name)], outputs, domain="com.microsoft", epsilon=1e-5)
        return outputs[0], outputs[3]


def write_language_model(path, packed=False, seed=1, **attributes):
    """Writes input_ids [b, s], attention_mask [b, t] and pasts [b, KV_HEADS, p, SIZE] -> logits [b, s, WORDS] and the new pasts.

    `attributes`: further ones of GroupQueryAttention.
    """
    writer = Writer(seed)
    writer.lengths()
    writer.caches()
    table = writer.constant("embed_tokens.weight", writer.random.normal(size=(WORDS, WIDTH)).astype(numpy.float32))
    skip = writer.node("Gather", [table, "input_ids"], ["embedded"])
    norm = {"axis": -1, "epsilon": 1e-5, "stash_type": 1}
    x = writer.node("SimplifiedLayerNormalization", [skip, writer.scale("layers.0.input")], ["layers.0.input/y"], **norm)
    for layer in range(LAYERS):
        x, skip = writer.normalised(skip, writer.attention(x, layer, packed, attributes), f"layers.{layer}.post_attention")
        following = f"layers.{layer + 1}.input" if layer + 1 < LAYERS else "norm"
        x, skip = writer.normalised(skip, writer.gated(x, layer), following)
    writer.node("MatMul", [x, writer.constant("lm_head.weight", numpy.ascontiguousarray(writer.constants[table].T))], ["logits"])
    past = ["batch_size", KV_HEADS, "past_sequence_length", SIZE]
    present = ["batch_size", KV_HEADS, "present_sequence_length", SIZE]
    inputs = [
        helper.make_tensor_value_info("input_ids", INT64, ["batch_size", "sequence_length"]),
        helper.make_tensor_value_info("attention_mask", INT64, ["batch_size", "total_sequence_length"]),
        *(helper.make_tensor_value_info(name, FLOAT, past) for name in past_names()),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", FLOAT, ["batch_size", "sequence_length", WORDS]),
        *(helper.make_tensor_value_info(name, FLOAT, present) for name in past_names().values()),
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in writer.constants.items()]
    graph = helper.make_graph(writer.nodes, "decoder", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def no_past(batch=1, room=0):
    """Returns pasts without a position, in buffers with room for some."""
    return {name: numpy.zeros((batch, KV_HEADS, room, SIZE), numpy.float32) for name in past_names()}
