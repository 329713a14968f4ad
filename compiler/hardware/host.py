"""The memory of the host, as a target's main memory reaches it."""

from __future__ import annotations

from memplan.compiler.hardware.target import Target, TargetLink

# XLA's number of the host's memory.
HOST = 5


def host_links(target: Target) -> tuple[TargetLink, TargetLink] | None:
    """Returns the links from the main memory to that of the host and back; None if there is no host.

    >>> from memplan.compiler.hardware.target import load_target
    >>> there, back = host_links(load_target("tpu-v5e"))
    >>> there.bandwidth, back.bandwidth
    (15000000000.0, 15000000000.0)
    """
    whole = target.for_program({HOST})
    host, main = whole.space_of_xla(HOST), whole.space_of_xla(0)
    links = {(link.source, link.destination): link for link in whole.links}
    there, back = links.get((main, host)), links.get((host, main))
    return None if there is None or back is None else (there, back)
