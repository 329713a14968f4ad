"""The rules of stays that every method shares. For inner loops, `rules_kernel.py` compiles the functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memplan.planners.stays.tables import NONE

# Seconds that a second of the link's time is worth to a stay that saves no time itself.
CHANNEL_PRICE = 0.2

# Starts of a copy that are looked at before it is given up.
TRIES = 24

# Arguments that are considered for staying in fast memory from one run of the program to the next.
MOST_KEPT = 8


@dataclass(frozen=True)
class Rules:
    """What a search for stays may do.

    Attributes:
      prefetch: whether values may be copied into fast memory. Without it, only what is produced there is there.
      evict: whether values that were written in fast memory may be copied home.
      wait: whether an operation may wait for a copy, if that pays.
      passes: how often a search looks again at what is left, with the gains that are left.
      channel_price: see `CHANNEL_PRICE`.
      tries: see `TRIES`.
    """

    prefetch: bool = True
    evict: bool = True
    wait: bool = True
    passes: int = 4
    channel_price: float = CHANNEL_PRICE
    tries: int = TRIES


def writer_to_evict(items: Any, chains: Any, first: int, last: int) -> Any:
    """Returns the last item of a run that changes a value which is wanted at home afterwards; -1 if there is none.

    Args:
      items: `[num_items]` ITEM_ROW.
      chains: `[num_chains]` CHAIN_ROW.
      first, last: the run's first and last item.
    """
    writer = last if items[last]["writes"] else items[last]["writer"]
    if writer < first:
        return NONE
    chain = chains[items[last]["chain"]]
    is_wanted = items[last + 1]["reads"] if last + 1 < chain["last"] else chain["needs_home"]
    return writer if is_wanted else NONE


def until_next_run(end: int, again: int, after: int) -> tuple[int, int]:
    """Returns when a stay from run to run of the program ends, and when its place is taken again until the end.

    Args:
      end: when the stay of this run would end.
      again: when the copy for the next run starts.
      after: the time after the program's end, which stands for never.
    """
    return (after, after) if end >= again else (end, again)
