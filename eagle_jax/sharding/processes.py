"""Joins the processes of a run: found by JAX or named on the command line, all there, all alike."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from eagle_jax.errors import EagleError, PassingError
from eagle_jax.sharding import introduction
from eagle_jax.sharding.attendance import Attendance
from eagle_jax.sharding.roll_call import RollCall

JOIN_TIMEOUT = 1800
"""Seconds for all machines of a pod to come up; JAX's own 300 are too few for a cold one."""
HEARTBEAT_TIMEOUT = 60
"""Seconds without a sign of life after which a process is taken for dead, and the others leave."""


@dataclasses.dataclass(frozen=True)
class Place:
  """Where this process stands among the others.

  Attributes:
    coordinator: HOST:PORT of process 0, as all of them reach it.
    count: of processes.
    index: of this one, from 0.
    named: whether the command line says so, and not the surroundings.
  """

  coordinator: str
  count: int
  index: int
  named: bool = True

  @property
  def address(self) -> tuple[str, int]:
    """Host and port."""
    host, _, port = self.coordinator.rpartition(":")
    return host.strip("[]"), int(port)


def detect(timeout: int) -> Place:
  """Returns the place that a TPU slice, GKE, Slurm or Open MPI gives this process.

  JAX tells nobody what it detects before it joins with it, hence its inner function.

  Raises:
    EagleError: if there is nothing to be found.
  """
  from jax._src import clusters

  given = os.environ.get("JAX_COORDINATOR_ADDRESS")
  try:
    address, count, index, _ = clusters.ClusterEnv.auto_detect_unset_distributed_params(
      given, None, None, None, None, timeout
    )
  except RuntimeError as error:
    raise PassingError(f"--distributed: {error}") from None
  if address is None or count is None or index is None:
    raise EagleError(
      "--distributed finds no TPU slice, GKE, Slurm or Open MPI job here; where there is none, "
      "give --coordinator=HOST:PORT --processes=N --process=I"
    )
  return Place(address, count, index, named=False)


def join(place: Place, fields: Mapping[str, str], *, timeout: int, heartbeat: int) -> None:
  """Waits for the other processes, compares them, and makes JAX see the devices of all.

  To be called before any computation.

  Args:
    place: of this process.
    fields: what else must be equal in all processes: name → value as text.
    timeout: seconds to wait for the others.
    heartbeat: seconds after which a process that died is noticed.

  Raises:
    PassingError: if some do not come; names them.
    EagleError: if some are not alike; names in what.
  """
  import jax

  if place.count > 1:
    meet(place, fields, timeout)
  try:
    jax.distributed.initialize(
      place.coordinator,
      place.count,
      place.index,
      cluster_detection_method="deactivate" if place.named else None,
      initialization_timeout=timeout,
      heartbeat_timeout_seconds=heartbeat,
      shutdown_timeout_seconds=heartbeat,
    )
  except (ValueError, RuntimeError) as error:
    raise PassingError(f"process {place.index} cannot join the others: {error}") from None


def meet(place: Place, fields: Mapping[str, str], timeout: int) -> None:
  """Holds the roll call, or goes to it.

  Raises:
    PassingError: if some do not come; names them.
    EagleError: if some are not alike; names in what.
  """
  mine = introduction.introduce(place.index, place.count, fields)
  host, port = place.address
  if place.index:
    Attendance(mine, (host, port)).wait(timeout)
    return
  present = RollCall(mine, port).wait(timeout)
  print(f"joined: {', '.join(str(one) for one in present)}", flush=True)
