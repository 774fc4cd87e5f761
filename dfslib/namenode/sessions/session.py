"""One mount's session: what it holds here, and what the mount has cached."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from dfslib.model import BlockId, InodeId, NodeId
from dfslib.namenode.metadata.engine import Writes
from dfslib.namenode.namespace import keys
from dfslib.namenode.sessions.connection import Connection
from dfslib.wire.session import Answer, Failure, Invalidate, LevelRaised, Nodes


class Session:
    """`gone_s`: since when, on the monotonic clock, it has no connection. `known_before`: it is from before this
    process began, and has not come back yet."""

    def __init__(self, session_id: str, name: str, now_s: float, *, known_before: bool = False) -> None:
        self.id = session_id
        self.name = name
        self.since_s = now_s
        self.gone_s: float | None = now_s
        self.known_before = known_before
        self.recovering = known_before
        """It may open again what has no name any more."""
        self.version = ""
        self.features: frozenset[str] = frozenset()
        """What the mount told when it last came (wire/features.py)."""
        self.connection: Connection | None = None
        self.opens: Counter[InodeId] = Counter()
        self.blocks: dict[BlockId, Sequence[NodeId]] = {}
        """Granted, and neither committed nor abandoned, with the datanodes they were granted on."""
        self.running: dict[int, asyncio.Task[None]] = {}
        self.answers: dict[int, Answer | Failure] = {}
        """Kept until the mount says that it has them."""
        self.inodes: set[InodeId] = set()
        """Cached by the mount, as far as is known here."""
        self.directories: set[InodeId] = set()
        """Of which it may have names cached."""

    def send(self, message: Answer | Failure | Invalidate | Nodes | LevelRaised) -> None:
        if self.connection is not None:
            self.connection.send(message)

    def answer(self, message: Answer | Failure) -> None:
        """Send it, and keep it for a mount that loses the connection before it comes."""
        self.answers[message.seq] = message
        self.send(message)

    def forget_answers(self, below: int) -> None:
        if self.answers and min(self.answers) < below:
            self.answers = {seq: answer for seq, answer in self.answers.items() if seq >= below}

    def changed_itself(self, writes: Writes) -> None:
        """It made these changes; what it is answered, it may cache."""
        for key, value in writes.items():
            kind = key[:1]
            if kind == keys.INODES and value is not None:
                self.inodes.add(keys.inode_of(key))
            elif kind == keys.DENTRIES:
                self.directories.add(keys.parent_of(key))

    def others_changed(self, writes: Writes) -> None:
        """Tell it what of this it has cached; after that it has not."""
        attributes: list[InodeId] = []
        contents: list[InodeId] = []
        names: list[tuple[InodeId, bytes]] = []
        for key in writes:
            kind = key[:1]
            if kind == keys.INODES:
                if (ino := keys.inode_of(key)) in self.inodes:
                    attributes.append(ino)
            elif kind == keys.CHUNKS:
                if (ino := InodeId(keys.owner(key))) in self.inodes and ino not in contents:
                    contents.append(ino)
            elif kind == keys.DENTRIES and (parent := keys.parent_of(key)) in self.directories:
                names.append((parent, keys.name_of(key)))
        if attributes or contents or names:
            self.inodes.difference_update(attributes, contents)
            self.send(Invalidate([ino for ino in attributes if ino not in contents], contents, names))
