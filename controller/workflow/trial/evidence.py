"""Bring the evidence home and judge it again: the verdict that counts is the one recomputed from the CSVs."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from controller.adapters.ssh import connect
from controller.judge.rows import Row, read_rows
from controller.judge.summary import recompute
from controller.judge.verdict import judge_trial
from controller.model.answers import read_object
from controller.model.blocks import Block
from controller.model.errors import HostFailed, RatchetError
from controller.model.fleet import Host
from controller.model.metrics import Metric
from controller.model.trial import Judgement, Pair, TrialPlan
from controller.workflow.context import RunContext
from controller.workflow.fleet.hosts import on_each_host

# The probe's account has a forced command, which knows this one: there is no SFTP.
READ_COMMAND = "/usr/local/bin/ratchet-agent read"
# Unpacked: a few packed MB can be more than a workstation's memory.
LARGEST_CSV_BYTES = 1 << 30


class EvidenceInvalid(Exception):
    """The evidence is damaged, or does not give the verdict that was reached live; the trial is REVERTed."""


class EvidenceMissing(EvidenceInvalid):
    """There is no such file any more."""


# What a trial came to once its verdict was carried out.
SETTLED = "settled.json"


def pull(context: RunContext, run_id: str, plan: TrialPlan, ends: dict[str, dict[str, Any]], folder: Path) -> None:
    """Fetch each host's CSV and sidecar into `folder`. Raises HostFailed."""
    folder.mkdir(parents=True, exist_ok=True)
    hosts = [host for host in context.fleet.hosts if host.name in plan.hosts]
    for host in hosts:
        if "csv" not in ends.get(host.name, {}):
            raise HostFailed("the agent told of no CSV", where=host.name, next_step="run playbooks/site.yml")
    _, failures = on_each_host(hosts, lambda host: _pull_one(host, folder, f"{run_id} {plan.number}"))
    for error in failures.values():
        raise error


def _pull_one(host: Host, folder: Path, trial: str) -> None:
    with connect(host, user=host.probe_user) as ssh:
        ssh.download(f"{READ_COMMAND} {trial} csv", folder / f"{host.name}.csv.gz")
        ssh.download(f"{READ_COMMAND} {trial} sidecar", folder / f"{host.name}.json")


def read_host(folder: Path, host: str, expected: dict[str, Any] | None, metrics: Iterable[Metric] = ()) -> list[Block]:
    """One host's blocks, recomputed from its CSV. Raises EvidenceInvalid.

    Args:
        expected: the agent's own `csv` summary (`rows`, `sha256`) as it came live; None when there is none any more.
        metrics: what the trial is judged by.
    """
    try:
        sidecar = read_object((folder / f"{host}.json").read_text())
        with gzip.open(folder / f"{host}.csv.gz") as packed:
            raw = packed.read(LARGEST_CSV_BYTES + 1)
    except FileNotFoundError as error:
        raise EvidenceMissing(f"{host}: {error}") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise EvidenceInvalid(f"{host}: {error}") from None
    if len(raw) > LARGEST_CSV_BYTES:
        raise EvidenceInvalid(f"{host}: the CSV unpacks to more than {LARGEST_CSV_BYTES >> 20} MiB")
    digest = hashlib.sha256(raw).hexdigest()
    for source in (sidecar.get("csv", sidecar), expected):
        if source is not None and (not isinstance(source, dict) or source.get("sha256") != digest):
            raise EvidenceInvalid(f"{host}: the CSV's SHA-256 is not the one that was recorded")
    try:
        return recompute(raw.decode("ascii", errors="replace"), sidecar, metrics)
    except ValueError as error:
        raise EvidenceInvalid(f"{host}: {error}") from None


def read_rows_of(folder: Path, host: str, timeout_us: int) -> list[Row]:
    """The rows of a CSV that `read_host` has found whole."""
    return list(read_rows(gzip.decompress((folder / f"{host}.csv.gz").read_bytes()).decode("ascii"), timeout_us))


def pairs_in_order(blocks: dict[str, list[Block]], sequence: list[str]) -> list[Pair]:
    """The judged pairs in the order of judging. Raises EvidenceInvalid when blocks are missing."""
    pairs: list[Pair] = []
    taken = dict.fromkeys(blocks, 0)
    for host in sequence:
        if host not in blocks:
            raise EvidenceInvalid(f"{host}: no evidence of a host that was judged")
        two = blocks[host][taken[host] : taken[host] + 2]
        taken[host] += 2
        if len(two) != 2 or two[0].arm == two[1].arm == "variant" or two[0].pair != two[1].pair:
            raise EvidenceInvalid(f"{host}: pair {taken[host] // 2} is not complete in the CSV")
        control, variant = two if two[0].arm == "control" else reversed(two)
        pairs.append(Pair(host=host, number=two[0].pair, control=control, variant=variant))
    return pairs


def judge_again(
    plan: TrialPlan,
    folder: Path,
    sequence: list[str],
    ends: dict[str, dict[str, Any]] | None,
    judge: Callable[[TrialPlan, list[Pair]], Judgement] = judge_trial,
) -> tuple[Judgement, list[Pair]]:
    """Recompute the judgement from the CSVs. Raises EvidenceInvalid."""
    pairs = read_pairs(plan, folder, sequence, ends)
    try:
        return judge(plan, pairs), pairs
    except ValueError as error:
        raise EvidenceInvalid(str(error)) from None


def read_pairs(
    plan: TrialPlan, folder: Path, sequence: list[str], ends: dict[str, dict[str, Any]] | None
) -> list[Pair]:
    """The judged pairs in order, recomputed from the CSVs in `folder`. Raises EvidenceInvalid."""
    return pairs_in_order(_read_hosts(plan, folder, ends), sequence)


def read_blocks(
    plan: TrialPlan, folder: Path, sequence: list[str], ends: Mapping[str, Mapping[str, Any]] | None
) -> list[tuple[str, Block]]:
    """A soak's judged blocks with their hosts, in order, recomputed from the CSVs. Raises EvidenceInvalid."""
    left = {host: iter(blocks) for host, blocks in _read_hosts(plan, folder, ends).items()}
    found = []
    for host in sequence:
        block = next(left.get(host, iter(())), None)
        if block is None:
            raise EvidenceInvalid(f"{host}: a block that was judged is not in the CSV")
        found.append((host, block))
    return found


def _read_hosts(plan: TrialPlan, folder: Path, ends: Mapping[str, Mapping[str, Any]] | None) -> dict[str, list[Block]]:
    """Host -> its blocks, of the plan's configurations. Raises EvidenceInvalid."""
    metrics = plan.experiment.objective.weights
    blocks = {
        host: read_host(folder, host, None if ends is None else ends[host]["csv"], metrics)
        for host in sorted(set(plan.hosts))
    }
    for host, found in blocks.items():
        _check_arms(plan, host, found)
    return blocks


def _check_arms(plan: TrialPlan, host: str, blocks: list[Block]) -> None:
    wanted = {"control": plan.control_ids.get(host), "variant": plan.variant_ids.get(host)}
    for block in blocks:
        if block.configuration != wanted[block.arm]:
            raise EvidenceInvalid(
                f"{host}: block {block.block} measured {block.configuration}, not the plan's {wanted[block.arm]}"
            )


def same_judgement(live: Judgement, again: Judgement) -> bool:
    """Whether two judgements are the same verdict on the same numbers."""
    return live.model_dump() == again.model_dump()


def explain(error: RatchetError) -> str:
    """One line for a trial's note."""
    return f"{error.where}: {error.what}" if error.where else error.what
