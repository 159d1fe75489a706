"""The learner behind Ray: trains, alone or with other ranks, and publishes weights."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from muzero_ray.actors.calls import call, ping, run_in
from muzero_ray.actors.parameter_server import ParameterServer, WeightsName
from muzero_ray.actors.replay import ReplayWorker
from muzero_ray.config.schema import Config
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.errors import PeerLost
from muzero_ray.learner.rank import LEARNER_TIMEOUT, RANK_TIMEOUT, LearnerPeer, LearnerRank
from muzero_ray.training.data_parallel import serve
from muzero_ray.training.results import LearnerState, TrainStats
from muzero_ray.types import Weights, WeightsVersion

PUBLISH_SECONDS = 1.0
"""At most one publication per this time within a call; one more ends it."""


class LearnerWorker(LearnerRank):
    """Shell of `Learner`; holds the handles {replay shards, params, peers}. incarnation: grows with every re-creation.

    The first of `learner.workers` ranks, and the only one that anybody else knows. make_peer: makes the other ranks,
    by number, in this process: so Ray takes them for its children, and ends them when it ends in whatever way.
    """

    def __init__(
        self,
        config: Config,
        task: TaskSpec,
        incarnation: int,
        replays: list[ActorHandle[ReplayWorker]],
        params: ActorHandle[ParameterServer],
        make_peer: Callable[[int], ActorHandle[LearnerPeer]],
    ) -> None:
        super().__init__(config, task, incarnation, replays)
        self._publish_target = config.reanalyze.ratio > 0
        self._incarnation = incarnation
        self._params = params
        self._peers = [make_peer(rank) for rank in range(1, config.learner.workers)]
        if self._peers:
            self._gather()

    def _gather(self) -> None:
        """Bring all ranks together. First they may wait for a place, without a limit, as any worker may."""
        self._hear([run_in(peer, ping) for peer in self._peers], None)
        host = ray.util.get_node_ip_address()
        store, port = serve(host, RANK_TIMEOUT)
        calls = [call(peer, LearnerPeer.join, host, port) for peer in self._peers]
        self._join(store)
        self._hear(calls)

    @staticmethod
    def _hear(calls: Sequence[ray.ObjectRef[Any]], timeout: float | None = RANK_TIMEOUT) -> None:
        """Wait for the peers' answers. PeerLost if one is gone; what one raised comes through as it is."""
        try:
            ray.get(calls, timeout=timeout)
        except RayTaskError:
            raise
        except RayError as error:
            raise PeerLost(f"a worker of the learner is gone or hangs: {str(error).splitlines()[0]}") from error

    def train(self, steps: int, beta: float, seconds: float) -> TrainStats:
        """Up to `steps` learner steps, or as many as start within `seconds`; then the weights are published."""
        published = time.monotonic()

        def publish_now_and_then() -> None:
            nonlocal published
            if time.monotonic() - published > PUBLISH_SECONDS:
                self.publish()
                published = time.monotonic()

        self._masses = self._masses or self._ask([call(replay, ReplayWorker.mass) for replay in self._replays])
        calls = [call(peer, LearnerPeer.train, steps, beta, seconds, self._masses) for peer in self._peers]
        try:
            tally = self._train(steps, beta, seconds, publish_now_and_then)
        except PeerLost:
            with contextlib.suppress(PeerLost):
                self._hear(calls, 1.0)  # one that failed through its own fault says why
            raise
        self._hear(calls)
        self.publish()
        return tally.stats(self._learner.step, self._validate())

    def _validate(self) -> dict[str, float]:
        """Metrics of the model on games held out, when a row of metrics is due; by turns on those of each shard."""
        rows, rest = divmod(self._learner.step, self._config.run.log_steps)
        if rest:
            return {}
        replay = self._replays[rows % len(self._replays)]
        (batch,) = self._ask([call(replay, ReplayWorker.draw_held_out, self._config.learner.batch_size)])
        return self._learner.validate(batch) if batch is not None else {}

    def publish(self) -> int:
        """Hand the current weights to the parameter server; returns the learner step when it has them."""
        version = WeightsVersion(self._incarnation, self._learner.step)
        newest: dict[WeightsName, Weights] = {"online": Weights(version, self._learner.weights())}
        if self._publish_target:
            newest["target"] = Weights(version, self._learner.target_weights())
        ray.get(call(self._params, ParameterServer.publish, newest), timeout=LEARNER_TIMEOUT)
        return self._learner.step

    def save(self) -> LearnerState:
        """Everything a checkpoint holds of the learner. All ranks hold the same."""
        return self._learner.state()

    def load(self, state: LearnerState) -> int:
        """Have every rank go on from `state`, and publish it; returns its learner step."""
        shared: Any = ray.put(state) if self._peers else None
        calls = [call(peer, LearnerPeer.load, shared) for peer in self._peers]
        self._load(state)
        self._hear(calls)
        return self.publish()
