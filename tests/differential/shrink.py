"""Makes a model that is answered wrongly as small as it stays wrong: by cuts at outputs, cuts at inputs, and nodes left out."""

import onnx
from onnx import helper

import oracle


def read(node):
    """Names that a node reads, also in its sub-graphs."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names |= read(inner)
    return names


def pruned(model):
    """The model without what no output needs."""
    needed, nodes = {o.name for o in model.graph.output}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= read(node)
            nodes.insert(0, node)
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    del kept.graph.node[:], kept.graph.initializer[:], kept.graph.input[:]
    kept.graph.node.extend(nodes)
    kept.graph.initializer.extend(c for c in model.graph.initializer if c.name in needed)
    kept.graph.input.extend(i for i in model.graph.input if i.name in needed)
    return kept


def info(name, array, batch):
    """`batch`: what extent 0 has when it is left open, else None."""
    shape = list(array.shape)
    if batch is not None and shape and shape[0] == batch:
        shape[0] = "N"
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)


class Shrinker:
    """`complaint(model, inputs)` says what is wrong, or None."""

    def __init__(self, model, inputs, complaint):
        self.model, self.inputs, self.complaint = model, inputs, complaint
        dimension = model.graph.input[0].type.tensor_type.shape.dim[0]
        self.batch = inputs[model.graph.input[0].name].shape[0] if dimension.HasField("dim_param") else None

    def run(self):
        """The smallest model, its inputs and what is wrong with it."""
        before = None
        while before != self.model.SerializeToString():
            before = self.model.SerializeToString()
            for step in (self.close_batch, self.cut_outputs, self.cut_inputs, self.leave_out):
                step()
        return self.model, self.inputs, self.complaint(self.model, self.inputs)

    def take(self, model, inputs):
        """Goes on with a smaller model when it is wrong as well."""
        model = pruned(model)
        inputs = {i.name: inputs[i.name] for i in model.graph.input}
        try:
            if not inputs or self.complaint(model, inputs) is None:
                return False
        except oracle.Refused:
            return False
        self.model, self.inputs = model, inputs
        return True

    def copy(self):
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return model

    def values(self):
        return {**self.inputs, **oracle.intermediates(self.model, self.inputs)}

    def close_batch(self):
        if self.batch is None:
            return
        model = self.copy()
        for i in model.graph.input:
            i.CopyFrom(info(i.name, self.inputs[i.name], None))
        if self.take(model, self.inputs):
            self.batch = None

    def cut_outputs(self):
        """The first value that is wrong by itself."""
        values = self.values()
        for name in [o for node in self.model.graph.node for o in node.output]:
            if [o.name for o in self.model.graph.output] == [name] or name not in values:
                continue
            model = self.copy()
            del model.graph.output[:]
            model.graph.output.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values[name].dtype), None))
            if self.take(model, self.inputs):
                return

    def cut_inputs(self):
        """Values given instead of computed, the last ones first."""
        values = self.values()
        outputs = {o.name for o in self.model.graph.output}
        for name in [o for node in reversed(self.model.graph.node) for o in node.output]:
            made = {o for node in self.model.graph.node for o in node.output}
            if name in outputs or name not in made or name not in self.computed() or name not in values:
                continue
            model = self.copy()
            for node in model.graph.node:
                node.output[:] = [o + "_before" if o == name else o for o in node.output]
            model.graph.input.append(info(name, values[name], self.batch))
            self.take(model, {**self.inputs, name: values[name]})

    def computed(self):
        """Names of the values that depend on an input; the others are constants, and stay that."""
        names = set(self.inputs)
        for node in self.model.graph.node:
            if names & read(node):
                names |= set(node.output)
        return names

    def leave_out(self):
        """Nodes whose result has the type and extents of an operand."""
        values = self.values()
        for node in list(self.model.graph.node):
            for operand in node.input:
                a, b = values.get(operand), values.get(node.output[0])
                if a is None or b is None or (a.dtype, a.shape) != (b.dtype, b.shape) or node.output[0] in {o.name for o in self.model.graph.output}:
                    continue
                model = self.copy()
                for reader in model.graph.node:
                    reader.input[:] = [operand if i == node.output[0] else i for i in reader.input]
                if self.take(model, self.inputs):
                    return


def text(model):
    """The model, a line per node; small integers of constants are written out."""
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}

    def operand(name):
        if name not in constants:
            return name
        array = constants[name]
        return f"{array.dtype}{list(array.shape)}" + (f"={array.tolist()}" if array.size <= 4 else "")

    def shape(i):
        return [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim]

    lines = [f"  opset {model.opset_import[0].version}; inputs " + ", ".join(f"{i.name}{shape(i)}" for i in model.graph.input)]

    def write(nodes, indent):
        for node in nodes:
            attributes = ", ".join(f"{a.name}={helper.get_attribute_value(a)}" for a in node.attribute if not a.HasField("g"))
            lines.append(f"{indent}{', '.join(node.output)} = {node.op_type}({', '.join(operand(i) for i in node.input)}) {attributes}")
            for a in node.attribute:
                if a.HasField("g"):
                    heads = (", ".join(x.name for x in infos) for infos in (a.g.input, a.g.output))
                    lines.append(f"{indent}  {a.name}: {' -> '.join(heads)}")
                    write(a.g.node, indent + "    ")

    write(model.graph.node, "  ")
    return "\n".join(lines)
