"""Random messages, delayed ones, releases and removals, beside a dictionary of what is known."""

from __future__ import annotations

import random

from bus.model.repository import MessageLog, ReleaseDue, RemoveMessages

from .samples import add, at, direct


async def play_ids(log: MessageLog, seed: int) -> dict[tuple[str, str], int | None]:
    """Expect that ids and senders are known as in a dictionary of both, and return that with their seqs."""
    chance = random.Random(seed)
    known: dict[tuple[str, str], int | None] = {}
    last_seq = 0
    for _ in range(150):
        pairs = [
            (chance.choice("abcdef"), chance.choice(["ann", "dan", "eve"])) for _ in range(chance.randint(1, 4))
        ]
        due_at = at(1) if chance.random() < 0.3 else None
        for pair, one in zip(
            pairs, await add(log, *(direct(*pair, "bob", due_at=due_at) for pair in pairs)), strict=True
        ):
            assert one.duplicate == (pair in known)
            if pair not in known:
                last_seq += due_at is None
                known[pair] = None if due_at else last_seq
            assert (one.seq, one.scheduled) == (known[pair], known[pair] is None)
        if chance.random() < 0.3:
            [released] = (await log.apply([ReleaseDue(at(2), chance.randint(1, 3))])).answers
            known |= {(message.id, message.sender_bot_id): message.seq for message in released.messages}
            last_seq += len(released.messages)
        if chance.random() < 0.3:
            gone = chance.sample(range(1, last_seq + 1), min(last_seq, chance.randint(1, 6)))
            await log.apply([RemoveMessages(tuple(sorted(gone)))])
            known = {pair: seq for pair, seq in known.items() if seq not in gone or seq == last_seq}
    return known
