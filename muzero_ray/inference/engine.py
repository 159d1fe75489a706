"""Inference for search: numpy in, numpy out, scalars in env units."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from muzero_ray.types import Array, EdgeAnswers, FloatArray, HostPool, IntArray, NetworkOutput


class InferenceEngine(Protocol):
    """What search, self-play and reanalyze need of a network.

    `hidden` is opaque to them: `[B, ...]` in a layout and dtype of the engine's choice, to be stored, gathered by row
    and handed back. `initial` returns contiguous arrays of the caller's own. One thread serves: only `prepare` may run
    beside it, in one other thread.
    """

    @property
    def precision(self) -> Literal["float32", "bf16"]:
        """In which the network is computed."""
        ...

    def initial(self, observations: Array) -> NetworkOutput:
        """h and f at stacked observations `[B, ...]`; rewards are 0."""
        ...

    def recurrent(self, hidden: Array, actions: IntArray, out: NetworkOutput) -> None:
        """g and f at `hidden` `[B, ...]` under `actions` `[B]`, written to the arrays of `out`.

        They are contiguous, of the shapes and dtypes that `initial` returns. A search gives the same ones again and
        again, which an engine may bind.
        """
        ...

    def pool(self, root: Array, nodes: int) -> HostPool | None:
        """See `search.search.Model`: the latents of a search are kept where the engine computes."""
        ...

    def expand(self, leaf: int, parents: IntArray, actions: IntArray, out: EdgeAnswers) -> None:
        """See `search.search.Model`."""
        ...

    def prepare(self, flat: FloatArray) -> Any:
        """All costly work for the weights `[P]` (`networks.flat` order, copied); what is served stays as it is.

        CheckpointError if `flat` is of another network.
        """
        ...

    def adopt(self, prepared: Any) -> None:
        """Serve what `prepare` of this engine returned from now on, in microseconds: for between two searches."""
        ...

    def load(self, flat: FloatArray) -> None:
        """`adopt(prepare(flat))`."""
        ...
