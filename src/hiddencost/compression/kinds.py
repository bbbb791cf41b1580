"""Kinds of compression, as tables and figures know them, and those that are published or come of training here."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CompressionKind:
    """A kind of compression, as tables and figures know it.

    Attributes:
        kind: its name, whatever its settings: figures and tables of costs are grouped by it.
        heading: what figures write; None: what tables write, its `label`.
        quantises: whether it rounds weights; the others set weights to zero.
        shows_sparsity: whether figures write the sparsity beside it.
    """

    kind: str
    heading: str | None = None
    quantises: bool = field(default=False, kw_only=True)
    shows_sparsity: bool = field(default=True, kw_only=True)

    @property
    def title(self) -> str:
        """What figures write for all of the kind together."""
        return self.heading or self.kind

    def in_figures(self, label: str) -> str:
        """Return what figures write for one that tables call by this label."""
        return self.heading or label

    def has_label(self, label: str) -> bool:
        """Return whether a label, as tables write it, is of this kind."""
        return label.split("-")[0] == self.kind


# published networks, and those that a study trains itself
PUBLISHED: dict[str, CompressionKind] = {
    "acdc": CompressionKind("acdc", "AC/DC"),
    "rigl": CompressionKind("rigl", "RigL"),
    "gmp": CompressionKind("gmp", "GMP"),
    "random_gradual": CompressionKind("random_gradual", "random pruning, gradual"),
    "lth": CompressionKind("lth", "LT"),
    "str": CompressionKind("str", "STR"),
    "nncf": CompressionKind("nncf", "NNCF, filters"),
    "superblock": CompressionKind("superblock", "SuperBlock"),
    "knapsack": CompressionKind("knapsack", "knapsack pruning"),
    "upop": CompressionKind("upop", "UPop"),
    "tinyclip": CompressionKind("tinyclip", "TinyCLIP"),
    "ofq": CompressionKind("ofq", "OFQ", quantises=True),
    "w8a8": CompressionKind("w8a8", "torchvision W8A8", quantises=True),
    "pruned": CompressionKind("pruned"),  # a network of one's own, nobody says how
}
