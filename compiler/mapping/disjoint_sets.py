"""Numbers in sets that are joined one by one."""

from __future__ import annotations


class DisjointSets:
    """The numbers `0 … count-1`, each in a set of its own at first.

    Trees whose paths are halved when walked (Tarjan and van Leeuwen, Worst-case Analysis of Set Union Algorithms,
    1984). They have no ranks, because the caller chooses which representative a joined set keeps.

    >>> sets = DisjointSets(4)
    >>> sets.join(3, 1)
    >>> [sets.find(i) for i in range(4)]
    [0, 1, 2, 1]
    """

    def __init__(self, count: int):
        self._parent = list(range(count))

    def find(self, i: int) -> int:
        """Returns the representative of the set that holds `i`."""
        parent = self._parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(self, i: int, into: int) -> None:
        """Makes one set of those that hold `i` and `into`, represented as that of `into` was."""
        self._parent[self.find(i)] = self.find(into)
