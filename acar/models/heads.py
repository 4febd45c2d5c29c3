"""Which head a config asks for: `model.head.relation` and the keys beside it (tables 1a, 1c-1f)."""

from __future__ import annotations

from collections.abc import Sequence

from acar.config import HeadConfig
from acar.models.actor_head import ActorHead
from acar.models.head import ActorContextHead
from acar.models.relations.baseline import LinearHead

Head = LinearHead | ActorHead | ActorContextHead


def build_head(config: HeadConfig, channels: Sequence[int], n_classes: int) -> Head:
    """The head on backbone maps of so many channels a pathway, with fresh weights."""
    kinds: dict[str, type[Head]] = {"baseline": LinearHead, "sto": ActorHead, "aia": ActorHead}
    kind = kinds.get(config.relation, ActorContextHead)
    return kind(config, channels, n_classes)
