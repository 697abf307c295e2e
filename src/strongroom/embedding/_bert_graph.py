"""The ONNX graph of all-MiniLM-L6-v2, built from its weights.

    ids, mask -> embeddings -> 6 x (attention, feed-forward) -> mean over the mask -> norm 1

BERT (Devlin et al. 2019) with post-layer-norm; pooling as in Sentence-BERT (Reimers, Gurevych 2019).
Dividing by the number of tokens is left out: the L2 norm that follows cancels it.

Quantisation ``row8`` (the default): weights are symmetric int8 with one scale per output channel.
Activations are scaled by the largest magnitude of their own token and rounded to 8 bits around 128.
One scale per token, and not per tensor, keeps more of the cosine and makes a text's vector
independent of the texts that share its batch. Word embeddings are float16. ``fp32`` is the
reference: the same graph without any rounding. ``fp16`` is that with weights and activations of
float16, for GPUs: sums over the tokens and the norm are float32.

Operators outside the ONNX standard are the ``com.microsoft`` ones that ONNX Runtime brings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import ModelFilesError

Precision = Literal["row8", "fp32", "fp16"]
Array = NDArray[Any]

LAYERS = 6
HEADS = 12
HIDDEN = 384
INTERMEDIATE = 1536
VOCABULARY = 30_522
TOKENS_MAX = 256
LAYER_NORM_EPSILON = 1e-12
_CONTRIB = "com.microsoft"
_OPSET = 17
_IR_VERSION = 8


def parse_weights(raw: bytes) -> dict[str, Array]:
    """The tensors of a safetensors file (float32), with the shapes of the model checked.

    Raises:
        ModelFilesError: it is no such file, or a tensor is missing or has another shape.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors: dict[str, Array] = load(raw)
    except (SafetensorError, ValueError, KeyError):
        raise ModelFilesError("the weights are no safetensors file") from None
    for name, shape in _expected_shapes().items():
        found = tensors.get(name)
        if found is None or found.shape != shape or found.dtype != np.float32:
            raise ModelFilesError("the weights are of another model")
    return tensors


def _expected_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY, HIDDEN),
        "embeddings.position_embeddings.weight": (512, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "embeddings.LayerNorm.weight": (HIDDEN,),
        "embeddings.LayerNorm.bias": (HIDDEN,),
    }
    dense = {
        "attention.self.query": (HIDDEN, HIDDEN),
        "attention.self.key": (HIDDEN, HIDDEN),
        "attention.self.value": (HIDDEN, HIDDEN),
        "attention.output.dense": (HIDDEN, HIDDEN),
        "intermediate.dense": (INTERMEDIATE, HIDDEN),
        "output.dense": (HIDDEN, INTERMEDIATE),
    }
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}."
        for name, shape in dense.items():
            shapes[f"{prefix}{name}.weight"] = shape
            shapes[f"{prefix}{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{prefix}{name}.weight"] = (HIDDEN,)
            shapes[f"{prefix}{name}.bias"] = (HIDDEN,)
    return shapes


class _Builder:
    """Collects nodes and constants; every method returns the name of its output."""

    def __init__(self, weights: Mapping[str, Array], precision: Precision) -> None:
        from onnx import helper, numpy_helper

        self._helper: Any = helper
        self._numpy_helper: Any = numpy_helper
        self.weights = weights
        self.precision = precision
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def constant(self, name: str, value: Array) -> str:
        if self.precision == "fp16" and value.dtype == np.float32:
            value = value.astype(np.float16)
        if name not in self.constants:
            self.constants[name] = self._numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def node(self, op: str, inputs: list[str], output: str, domain: str = "", **attributes: object) -> str:
        self.nodes.append(self._helper.make_node(op, inputs, [output], domain=domain, **attributes))
        return output

    def split(self, source: str, outputs: list[str]) -> None:
        sizes = self.constant("split.sizes", np.array([HIDDEN] * len(outputs), np.int64))
        self.nodes.append(self._helper.make_node("Split", [source, sizes], outputs, axis=-1))

    def matmul(self, x: str, weight: Array, name: str) -> str:
        """``x @ weight``; weight has the shape (inputs, outputs)."""
        if self.precision != "row8":
            return self.node("MatMul", [x, self.constant(f"{name}.weight", weight)], name)
        scale = (np.abs(weight).max(axis=0) / 127).astype(np.float32)
        quantised = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
        step = self.constant("row.step", np.array(1 / 127, np.float32))
        middle = self.constant("row.middle", np.array(128, np.uint8))
        absolute = self.node("Abs", [x], f"{name}.absolute")
        largest = self.node("ReduceMax", [absolute], f"{name}.largest", axes=[-1], keepdims=1)
        scaled = self.node("Div", [x, largest], f"{name}.scaled")
        rounded = self.node("QuantizeLinear", [scaled, step, middle], f"{name}.rounded")
        inputs = [rounded, self.constant(f"{name}.weight", quantised), step]
        inputs += [self.constant(f"{name}.scale", scale), middle]
        product = self.node("MatMulIntegerToFloat", inputs, f"{name}.product", _CONTRIB)
        return self.node("Mul", [product, largest], name)

    def layer_norm_inputs(self, name: str) -> list[str]:
        w = self.weights
        return [
            self.constant(f"{name}.weight", w[f"{name}.weight"]),
            self.constant(f"{name}.bias", w[f"{name}.bias"]),
        ]

    def bias(self, name: str) -> str:
        return self.constant(f"{name}.bias", self.weights[f"{name}.bias"])


def _embeddings(b: _Builder) -> str:
    from onnx import TensorProto

    w = b.weights
    words = w["embeddings.word_embeddings.weight"]
    if b.precision != "row8":
        x = b.node("Gather", [b.constant("words", words), "ids"], "word")
    else:
        half = b.node("Gather", [b.constant("words", words.astype(np.float16)), "ids"], "word.half")
        x = b.node("Cast", [half], "word", to=int(TensorProto.FLOAT))
    positions = w["embeddings.position_embeddings.weight"] + w["embeddings.token_type_embeddings.weight"][0]
    length = b.node("Shape", ["ids"], "length", start=1, end=2)
    start = b.constant("zero", np.array([0], np.int64))
    place = b.node("Slice", [b.constant("positions", positions[:TOKENS_MAX]), start, length], "place")
    x = b.node("Add", [x, place], "embedded")
    inputs = [x, *b.layer_norm_inputs("embeddings.LayerNorm")]
    return b.node("LayerNormalization", inputs, "hidden", axis=-1, epsilon=LAYER_NORM_EPSILON)


def _layer(b: _Builder, x: str, number: int) -> str:
    prefix = f"encoder.layer.{number}."
    w = b.weights
    parts = [f"{prefix}attention.self.{n}" for n in ("query", "key", "value")]
    qkv = b.matmul(x, np.concatenate([w[f"{p}.weight"].T for p in parts], axis=1), f"{prefix}qkv")
    biases = b.constant(f"{prefix}qkv.bias", np.concatenate([w[f"{p}.bias"] for p in parts]))
    qkv_names = [f"{prefix}q", f"{prefix}k", f"{prefix}v"]
    b.split(qkv, qkv_names)
    inputs = [*qkv_names, biases, "mask"]
    a = b.node("MultiHeadAttention", inputs, f"{prefix}attended", _CONTRIB, num_heads=HEADS)
    y = b.matmul(a, w[f"{prefix}attention.output.dense.weight"].T, f"{prefix}mixed")
    x = _add_and_norm(b, y, x, f"{prefix}attention.output")
    y = b.matmul(x, w[f"{prefix}intermediate.dense.weight"].T, f"{prefix}wide")
    y = b.node("BiasGelu", [y, b.bias(f"{prefix}intermediate.dense")], f"{prefix}gelu", _CONTRIB)
    y = b.matmul(y, w[f"{prefix}output.dense.weight"].T, f"{prefix}narrow")
    return _add_and_norm(b, y, x, f"{prefix}output")


def _add_and_norm(b: _Builder, y: str, residual: str, name: str) -> str:
    weights = b.layer_norm_inputs(f"{name}.LayerNorm")
    if b.precision == "fp16":
        inputs = [y, residual, *weights, b.bias(f"{name}.dense")]
        return b.node(
            "SkipLayerNormalization", inputs, f"{name}.normed", _CONTRIB, epsilon=LAYER_NORM_EPSILON
        )
    # Three nodes: on a processor the fused SkipLayerNormalization of ONNX Runtime takes longer.
    y = b.node("Add", [y, b.bias(f"{name}.dense")], f"{name}.biased")
    y = b.node("Add", [y, residual], f"{name}.skipped")
    return b.node("LayerNormalization", [y, *weights], f"{name}.normed", axis=-1, epsilon=LAYER_NORM_EPSILON)


def build_graph(weights: Mapping[str, Array], precision: Precision = "row8") -> bytes:
    """The model as serialised ONNX.

    Inputs: ``ids`` int64 and ``mask`` int32, both of shape (texts, tokens), tokens <= 256; the mask
    is 1 on tokens and 0 on padding. Output: ``vectors`` float32 of shape (texts, 384), norm 1.
    """
    from onnx import TensorProto, helper

    b = _Builder(weights, precision)
    x = _embeddings(b)
    for number in range(LAYERS):
        x = _layer(b, x, number)
    axis = b.constant("axis", np.array([1], np.int64))
    b.node("Cast", ["mask"], "mask.float", to=int(TensorProto.FLOAT))
    b.node("Unsqueeze", ["mask.float", axis], "mask.row")
    if b.precision == "fp16":
        x = b.node("Cast", [x], "hidden.float", to=int(TensorProto.FLOAT))
    b.node("MatMul", ["mask.row", x], "summed")
    b.node("Squeeze", ["summed", axis], "pooled")
    b.node("LpNormalization", ["pooled"], "vectors", axis=-1, p=2)
    graph = helper.make_graph(
        b.nodes,
        "all-MiniLM-L6-v2",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["texts", "tokens"]),
            helper.make_tensor_value_info("mask", TensorProto.INT32, ["texts", "tokens"]),
        ],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", HIDDEN])],
        list(b.constants.values()),
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="strongroom")
    return bytes(model.SerializeToString(deterministic=True))
