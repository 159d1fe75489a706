"""Convolutional networks compiled by OpenVINO: bf16 on AMX or AVX512-BF16, one program per function and batch size.

torch traces h+f and g+f once, with the weights as further inputs. To serve weights, a clone of that graph gets them as
constants in place of those inputs and is compiled, which takes about 60 ms: nothing is traced or converted again, and
nothing needs to know what the converter made of each tensor.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import openvino as ov
import torch
from openvino import opset13
from torch import nn

from muzero_ray.inference.host_latents import HostLatents
from muzero_ray.inference.openvino_internals import convert
from muzero_ray.networks.flat import check_flat, flatten_state, num_parameters
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.networks.supports import Support
from muzero_ray.types import Array, FloatArray, IntArray, NetworkOutput

Tensors = tuple[torch.Tensor, ...]

_OV_TYPES = {"uint8": ov.Type.u8, "int32": ov.Type.i32, "float32": ov.Type.f32, "uint16": ov.Type.bf16}
"""OpenVINO's types by the names of numpy's. Numpy has no bf16: its bits are handed around as uint16."""


_TENSORS = 1024
"""That a program remembers: more than a search has simulations."""


def padded_size(batch: int) -> int:
    """Rows that are compiled for `batch` rows: 1, 2, 4, 8, 12, 16, 24, 32, 48, ... at most half as many again.

    Without memory, so that a row's result does not depend on what was asked before.
    """
    power = 1 << (batch - 1).bit_length()
    between = power // 4 * 3
    return between if power > 8 and batch <= between else power


class OpenVinoEngine(HostLatents):
    """An InferenceEngine for image networks on CPUs.

    bf16: where the CPU has instructions for it, else float32. threads: of each call. Latents are handed out as
    `[B, H, W, C]`, which is how the convolutions compute, and in their precision: bf16 as its bits, uint16. As float32
    they would cost two conversions per call, a sixth of its time, and search twice the memory traffic.
    `recurrent` reads its arguments and writes its answer in place, unless rows have to be padded.
    """

    def __init__(self, network: MuZeroNetwork, *, bf16: bool = False, threads: int = 1) -> None:
        super().__init__()
        self._network = copy.deepcopy(network).float().eval().requires_grad_(False)
        self._shapes = [tuple(tensor.shape) for tensor in self._network.state_dict().values()]
        self._core = ov.Core()
        bf16 = bf16 and "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision: Literal["float32", "bf16"] = "bf16" if bf16 else "float32"
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "INFERENCE_NUM_THREADS": threads,
            # Several actors would be pinned to the same first core.
            "ENABLE_CPU_PINNING": False,
            # The generator of fused element-wise code is worth 10-40 %, but crashes in float32 (seen in 2026.4).
            "SNIPPETS_MODE": "ENABLE" if bf16 else "DISABLE",
        }
        self._latents = torch.bfloat16 if bf16 else torch.float32
        self._graphs: dict[str, ov.Model] = {}
        self._weights = _CompiledWeights(self._compile, flatten_state(network))
        self._retired: _CompiledWeights | None = None

    def prepare(self, flat: FloatArray) -> _CompiledWeights:
        """See InferenceEngine: compiles what has been in use so far."""
        check_flat(flat, num_parameters(self._network))
        self._retired = None
        fresh = _CompiledWeights(self._compile, np.array(flat, np.float32))
        for name, batch in list(self._weights.programs):
            fresh.program(name, batch)
        return fresh

    def adopt(self, prepared: _CompiledWeights) -> None:
        """See InferenceEngine."""
        # Freeing compiled programs takes 5 ms each: that is left to the next `prepare`.
        self._retired, self._weights = self._weights, prepared

    def load(self, flat: FloatArray) -> None:
        """See InferenceEngine."""
        self.adopt(self.prepare(flat))

    def initial(self, observations: Array) -> NetworkOutput:
        """See InferenceEngine."""
        name = f"initial {observations.dtype}"
        if name not in self._graphs:
            self._graphs[name] = _trace(partial(_initial, self._latents), self._network, [observations])
        hidden, value, policy_logits = self._weights.program(name, len(observations))([observations])
        reward = np.zeros(len(observations), np.float32)
        return NetworkOutput(hidden.copy(), reward, value.copy(), policy_logits.copy())

    def recurrent(self, hidden: Array, actions: IntArray, out: NetworkOutput) -> None:
        """See InferenceEngine."""
        if "recurrent" not in self._graphs:
            examples = [hidden, actions.astype(np.int32)]
            self._graphs["recurrent"] = _trace(partial(_recurrent, self._latents), self._network, examples)
        self._weights.program("recurrent", len(actions))([hidden, np.asarray(actions, np.int32)], out)

    def _compile(self, name: str, batch: int, flat: FloatArray) -> ov.CompiledModel:
        graph = self._graphs[name].clone()
        parameters = graph.get_parameters()
        inputs, weights = parameters[: -len(self._shapes)], parameters[-len(self._shapes) :]
        ends = np.cumsum([math.prod(shape) for shape in self._shapes])
        for parameter, shape, part in zip(weights, self._shapes, np.split(flat, ends[:-1]), strict=True):
            parameter.output(0).replace(opset13.constant(part.reshape(shape)).output(0))
            graph.remove_parameter(parameter)
        for parameter in inputs:
            shape = parameter.get_partial_shape()
            shape[0] = batch
            parameter.set_partial_shape(shape)
        graph.validate_nodes_and_infer_types()
        return self._core.compile_model(graph, "CPU", self._settings)


class _CompiledWeights:
    """One set of weights, compiled for every function and batch size that is asked for."""

    def __init__(self, compile: Callable[[str, int, FloatArray], ov.CompiledModel], flat: FloatArray) -> None:
        self._compile = compile
        self._flat = flat  # the constants of the compiled programs share its memory
        self.programs: dict[tuple[str, int], _Program] = {}

    def program(self, name: str, rows: int) -> _Program:
        """The function for `rows` rows, padded to a size that is compiled."""
        batch = padded_size(rows)
        if (name, batch) not in self.programs:
            self.programs[name, batch] = _Program(self._compile(name, batch, self._flat))
        return self.programs[name, batch]


class _Program:
    """A compiled function of a fixed number of rows, and its memory."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = [_zeros(port) for port in compiled.inputs]
        self._outputs = [_zeros(port) for port in compiled.outputs]
        self._bound: dict[tuple[str, int], Array] = {}
        # By id. The array is kept with its tensor, so that no other one gets its id.
        self._tensors: dict[int, tuple[Array, ov.Tensor]] = {}

    def __call__(self, arguments: Sequence[Array], out: Sequence[Array] | None = None) -> Sequence[Array]:
        """The results, in `out`: without it in memory that the next call writes over."""
        rows = len(arguments[0])
        for index, (argument, own) in enumerate(zip(arguments, self._inputs, strict=True)):
            source = argument
            if rows != len(own) or not argument.flags.c_contiguous or not argument.flags.writeable:
                own[:rows] = argument
                source = own
            self._bind("input", index, source)
        in_place = out if out is not None and rows == len(self._outputs[0]) else self._outputs
        for index, place in enumerate(in_place):
            self._bind("output", index, place)
        self._request.infer(share_outputs=True)
        if out is None:
            return [place[:rows] for place in in_place]
        if in_place is not out:
            for array, place in zip(out, in_place, strict=True):
                array[...] = place[:rows]
        return out

    def _bind(self, kind: Literal["input", "output"], index: int, array: Array) -> None:
        """A search hands over the same buffers at each simulation, and the same places for latents in each move: what
        is bound stays, and tensors, which take 3 us to make, are kept."""
        if self._bound.get((kind, index)) is array:
            return
        if id(array) not in self._tensors:
            if len(self._tensors) == _TENSORS:
                self._tensors.clear()
            self._tensors[id(array)] = (array, _tensor(array))
        bind = self._request.set_input_tensor if kind == "input" else self._request.set_output_tensor
        bind(index, self._tensors[id(array)][1])
        self._bound[kind, index] = array


def _zeros(port: Any) -> Array:
    """Memory for an input or output."""
    bf16 = port.element_type == ov.Type.bf16
    return np.zeros(tuple(port.shape), np.uint16 if bf16 else port.element_type.to_dtype())


def _tensor(array: Array) -> ov.Tensor:
    """The memory of `array`, which has to stay."""
    return ov.Tensor(array, ov.Shape(array.shape), _OV_TYPES[array.dtype.name])


def _initial(latents: torch.dtype, net: MuZeroNetwork, observations: torch.Tensor) -> Tensors:
    """h and f: (latents, values, policy logits)."""
    hidden = net.represent(observations)
    policy_logits, value_logits = net.predict(hidden)
    return hidden.permute(0, 2, 3, 1).to(latents), _decode(net.value_support, value_logits), policy_logits


def _recurrent(latents: torch.dtype, net: MuZeroNetwork, hidden: torch.Tensor, actions: torch.Tensor) -> Tensors:
    """g and f, in the order of NetworkOutput."""
    state, reward_logits = net.dynamics(hidden.float().permute(0, 3, 1, 2), actions)
    policy_logits, value_logits = net.predict(state)
    reward, value = _decode(net.reward_support, reward_logits), _decode(net.value_support, value_logits)
    return state.permute(0, 2, 3, 1).to(latents), reward, value, policy_logits


def _decode(support: Support, logits: torch.Tensor) -> torch.Tensor:
    """`Support.decode` without its matrix product: OpenVINO keeps float32 from the last product to the outputs, so this
    way no probability is rounded to bf16 (errors are 2-3 times smaller, and it is a little faster)."""
    return support.scalars((torch.softmax(logits, dim=-1) * support.points()).sum(-1))


def _trace(function: Callable[..., Tensors], network: MuZeroNetwork, examples: Sequence[Array]) -> ov.Model:
    """Graph of `function(network, *inputs)`, with the network's tensors in `networks.flat` order as its last inputs.

    `inputs` have the shape and dtype of `examples`, with any number of rows.
    """
    net = copy.deepcopy(network)
    tensors = net.state_dict()
    places = []
    for name in tensors:
        owner, _, leaf = name.rpartition(".")
        module = net.get_submodule(owner)
        delattr(module, leaf)  # a plain attribute takes the parameter's place below
        places.append((module, leaf))
    net.register_parameter("any", nn.Parameter(torch.zeros(())))  # the network asks its first one for a dtype

    def run(*inputs: torch.Tensor) -> Tensors:
        arguments, weights = inputs[: len(examples)], inputs[len(examples) :]
        for (module, leaf), weight in zip(places, weights, strict=True):
            setattr(module, leaf, weight)
        return function(net, *arguments)

    # Two rows: one would let the tracer take some sizes for constants.
    rows = [torch.from_numpy(np.resize(example, (2, *example.shape[1:]))) for example in examples]
    rows = [row.view(torch.bfloat16) if row.dtype == torch.uint16 else row for row in rows]
    with torch.no_grad(), warnings.catch_warnings():
        # Of deprecation (it is what OpenVINO reads), and of sizes that become constants (but for the rows, they are).
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(run, (*rows, *tensors.values()), check_trace=False)  # type: ignore[no-untyped-call]
    graph: Any = convert(traced)
    for parameter, example in zip(graph.get_parameters(), examples, strict=False):
        parameter.set_element_type(_OV_TYPES[example.dtype.name])
        parameter.set_partial_shape(ov.PartialShape([-1, *example.shape[1:]]))
    for parameter, tensor in zip(graph.get_parameters()[len(examples) :], tensors.values(), strict=True):
        parameter.set_element_type(ov.Type.f32)
        parameter.set_partial_shape(ov.PartialShape(list(tensor.shape)))
    graph.validate_nodes_and_infer_types()
    return graph
