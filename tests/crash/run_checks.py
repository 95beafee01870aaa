"""What the checker expects of workflow runs: checkpoints never go back, and a commit happened whole or not at all.

Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from .history import Checkpoint, Commit, Final, Publish, RunState
from .ledger import Ledger
from .subscriptions import Call
from .verdict import Fault

__all__ = ["run_faults"]


def run_faults(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """Checkpoints never go back, and commits are whole."""
    yield from (("checkpoints", fault) for fault in _older_or_newer(ledger, final))
    yield from (("torn", fault) for fault in _torn_commits(ledger, final))


def _older_or_newer(ledger: Ledger, final: Final) -> Iterator[str]:
    """Say where a run is older than what was acknowledged of it, or newer than all that was written."""
    written: defaultdict[str, list[tuple[Call, Checkpoint]]] = defaultdict(list)
    for call, checkpoint in ledger.checkpoints():
        written[checkpoint.run_id].append((call, checkpoint))
    for run_id, writes in written.items():
        state = final.runs.get(run_id)
        if state is not None:
            yield from _state_faults(writes, state, ledger.length, f"run {run_id} at the end")
        elif any(call.ok is not None for call, _ in writes):
            yield f"run {run_id} has acknowledged checkpoints, and is not there at the end"
    for call, read in ledger.reads():
        ok = call.ok
        if ok is not None and ok.run is not None:
            where = f"run {read.run_id}, read at {ok.at} s,"
            yield from _state_faults(written[read.run_id], ok.run, call.index, where, until=call.ends)


def _state_faults(
    writes: list[tuple[Call, Checkpoint]], state: RunState, asked: int, where: str, *, until: int | None = None
) -> Iterator[str]:
    """Compare a state with what was acknowledged before it was `asked` for, and invoked before it was answered."""
    before = [checkpoint for call, checkpoint in writes if call.ok is not None and call.ends < asked]
    tried = [
        checkpoint
        for call, checkpoint in writes
        if not call.failed and call.index < (asked if until is None else until)
    ]
    acknowledged = max((checkpoint.version for checkpoint in before), default=0)
    newest = max((checkpoint.version for checkpoint in tried), default=0)
    if state.version < acknowledged:
        yield f"{where} has version {state.version}, and version {acknowledged} was acknowledged"
    if state.version > newest:
        yield f"{where} has version {state.version}, and nobody wrote more than {newest}"
    missing = {checkpoint.step for checkpoint in before if checkpoint.step} - set(state.steps)
    if missing:
        yield f"{where} lacks the completed steps {sorted(missing)}, which were acknowledged"
    surplus = set(state.steps) - {checkpoint.step for checkpoint in tried}
    if surplus:
        yield f"{where} has the completed steps {sorted(surplus)}, which nobody wrote"
    twice = [step for step, count in Counter(state.steps).items() if count > 1]
    if twice:
        yield f"{where} has completed the steps {twice} more than once"


def _torn_commits(ledger: Ledger, final: Final) -> Iterator[str]:
    """Say which commits happened in part: some of the messages, the step and the acks, and not the others."""
    stored = {message.id: message.seq for message in final.messages}
    calls: defaultdict[str, list[Call]] = defaultdict(list)
    for call in ledger.of(Commit):
        assert isinstance(call.invoke.action, Commit)
        calls[call.invoke.action.id].append(call)
    senders: defaultdict[str, set[str]] = defaultdict(set)
    for call in ledger.of(Publish, Commit):
        action = call.invoke.action
        assert isinstance(action, Publish | Commit)
        for sent in action.messages:
            senders[sent.id].add(action.id if isinstance(action, Commit) else "")
    for commit_id, made in calls.items():
        commit = made[0].invoke.action
        assert isinstance(commit, Commit)
        retained = ledger.rules.retained
        own = [sent for sent in commit.messages if senders[sent.id] == {commit_id}]
        fresh = [sent for sent in own if sent.channel not in retained]
        parts = {f"message {sent.id}": sent.id in stored for sent in fresh}
        checkpoint = commit.checkpoint
        if checkpoint is not None and checkpoint.step is not None:
            state = final.runs.get(checkpoint.run_id, RunState(0))
            parts[f"step {checkpoint.step}"] = checkpoint.step in state.steps
        there = [name for name, happened in parts.items() if happened]
        gone = [name for name, happened in parts.items() if not happened]
        if there and gone:
            yield f"commit {commit_id} of {commit.bot} left {', '.join(there)}, and not {', '.join(gone)}"
        elif there and all(call.failed for call in made):
            yield f"commit {commit_id} of {commit.bot} was refused each time, and left {', '.join(there)}"
        elif there:
            seqs = [stored[sent.id] for sent in fresh]
            yield from _unsettled(ledger, commit, [call for call in made if not call.failed], seqs)


def _unsettled(ledger: Ledger, commit: Commit, made: list[Call], seqs: list[int]) -> Iterator[str]:
    """Say what came again although a commit that happened had settled it; where it was answered, others do."""
    over = _over(ledger, commit, made, seqs)
    for handed in (handed for seq in commit.acks for handed in ledger.deliveries[commit.bot, seq]):
        opened = ledger.sessions.get(handed.session)
        if opened is None or opened.index < over:
            continue
        if not ledger.anew(handed, made[0].index):
            yield (
                f"commit {commit.id} of {commit.bot} happened, and seq {handed.message.seq}, which it settled,"
                f" came again at {handed.at} s"
            )
            return


def _over(ledger: Ledger, commit: Commit, made: list[Call], seqs: list[int]) -> int:
    """Give the event by which a commit that happened had happened, for sure: a kill, or its answer.

    Of several tries it was the first, where its traces were seen before the next.
    """
    traces = [call.ends for call in made if call.ok is not None]
    traces += [ledger.first_seen[seq] for seq in seqs if seq in ledger.first_seen]
    for opened in ledger.sessions.values():
        last_seq = opened.ok.last_seq if opened.ok is not None else None
        if seqs and last_seq is not None and last_seq >= seqs[0]:
            traces.append(opened.ends)
    for call, read in ledger.reads():
        checkpoint, run = commit.checkpoint, call.ok.run if call.ok is not None else None
        if run is not None and checkpoint is not None and read.run_id == checkpoint.run_id:
            traces += [call.ends] if checkpoint.step in run.steps else []
    seen = min(traces, default=ledger.length)
    tries = [call for call in made if call.index < seen]
    return max(call.ends if call.ok is not None else call.over for call in tries or made)
