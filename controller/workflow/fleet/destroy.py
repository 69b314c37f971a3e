"""Delete a fleet's servers and what they shared: only what carries the fleet's label, and what we wrote about them.

What is known here of a host (its line in hosts.yml, its host key, seed, records) is forgotten when its server was found
in the cloud, by its id, and deleted. A token of another project finds nothing, and so forgets nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from controller.adapters.audit import Accounts
from controller.adapters.files.hosts_edits import forget_hosts, written_hosts
from controller.adapters.files.keys import HostSeeds
from controller.adapters.files.known_hosts import KnownHosts
from controller.adapters.hetzner import Cloud, Found, Leftovers, read_access
from controller.adapters.store import Store
from controller.model.errors import BadInput, HostFailed, Interrupted, RatchetError
from controller.model.project import Project
from controller.workflow.fleet.provision import HOSTS_AT_ONCE, Observer, Progress, read_servers


@dataclass
class Destroyed:
    """What became of the fleet: names of servers and hosts. `kept`: known here, and not found in the cloud."""

    servers: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    shared: bool = False

    def __bool__(self) -> bool:
        return bool(self.servers or self.forgotten or self.shared)


def destroy(
    project: Project,
    fleet: str,
    environment: Mapping[str, str],
    observe: Observer,
    *,
    confirm: Callable[[Leftovers, list[str]], bool],
    store: Store,
    accounts: Accounts,
    forget: bool = False,
) -> Destroyed:
    """Delete everything with the fleet's label, after `confirm` has said yes to it. The caller holds the fleet.

    Args:
        confirm: told what will be deleted, and which hosts will only be forgotten.
        forget: forget the hosts too that the cloud does not have: the operator says that they are gone.

    Raises BadInput for a static fleet, a token that does not allow it or finds another fleet than the one known here,
    and when it was not confirmed; HostFailed when the cloud refuses, Interrupted after Ctrl-C, both with what is left.
    Running it again goes on.
    """
    read_servers(project, fleet)
    memory = _Memory(project, fleet, store, lambda text: observe(Progress(f"note: {text}")))
    access = read_access(environment)
    cloud = Cloud(access)
    found = cloud.leftovers(fleet)
    unseen = sorted(set(memory.addresses) - {server.name for server in found.servers})
    if not forget:
        _check_same_fleet(fleet, memory.addresses, found, unseen)
    result = Destroyed(forgotten=unseen if forget else [], kept=[] if forget else unseen)
    if not found and not result.forgotten:
        return result
    if not confirm(found, result.forgotten):
        raise BadInput("not confirmed: nothing was deleted")

    def gone(server: Found) -> None:
        memory.forget([server.name], server.address)

    why = f"delete for good: {found.words()}" if found else f"forget {', '.join(result.forgotten)}"
    with accounts.account("destroy", [server.name for server in found.servers] or result.forgotten, why) as outcome:
        memory.forget(result.forgotten)
        deletion = _Deletion(fleet, found.servers, lambda pause: Cloud(access, sleep=pause), observe, gone)
        result.servers = outcome.evidence["deleted"] = deletion.deleted
        deletion.run()
        observe(Progress("deleting firewall, placement groups and SSH key"))
        try:
            cloud.destroy_shared(found)
        except KeyboardInterrupt:
            raise Interrupted(
                "stopped: the servers are deleted, of what they shared some may be left", next_step=_again(fleet)
            ) from None
        result.shared = True
        memory.close()
    return result


def _check_same_fleet(fleet: str, known: Mapping[str, str], found: Leftovers, unseen: list[str]) -> None:
    """Whether the token's project is the one that the hosts known here are in. Raises BadInput."""
    moved = [one for one in found.servers if known.get(one.name) and known[one.name] != one.address]
    if moved:
        what = "; ".join(f"{one.name} is at {one.address}, in hosts.yml at {known[one.name]}" for one in moved)
        what = f"the token's project has another fleet of this name: {what}"
    elif unseen and not found.servers:
        where = ", ".join(f"{name} ({known[name]})" if known[name] else name for name in unseen)
        what = f"the token's project has no server of fleet {fleet}, but it is known here: {where}"
    else:
        return
    raise BadInput(
        f"{what}; nothing was deleted or forgotten",
        where=f"fleet {fleet}",
        next_step="is the token another project's? If it is the right one, and these hosts are gone: "
        f"controller destroy --fleet {fleet} --forget",
    )


def _again(fleet: str) -> str:
    return f"controller destroy --fleet {fleet} goes on"


class _Memory:
    """What is known here of a fleet's hosts. The fleet's own key and its settings stay: a new provision uses them."""

    def __init__(self, project: Project, fleet: str, store: Store, tell: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._path = project.inventory(fleet) / "hosts.yml"
        self._known_hosts = KnownHosts(project.known_hosts(fleet))
        self._seeds = HostSeeds(project, fleet)
        self._store = store
        self._tell = tell
        names = self._seeds.names() | store.baselines(fleet).keys()
        self.addresses: dict[str, str] = dict.fromkeys(sorted(names), "") | written_hosts(self._path)
        """Host -> address; empty where none is known."""

    def forget(self, names: Collection[str], address: str = "") -> None:
        """Their addresses may be another's tomorrow. Safe to run twice."""
        addresses = {address, *(self.addresses.get(name, "") for name in names)} - {""}
        self._known_hosts.forget(addresses)
        forget_hosts(self._path, self._fleet, names, self._tell)
        for name in names:
            self._seeds.forget(name)
        self._store.forget(self._fleet, names)

    def close(self) -> None:
        self._seeds.close()


class _Deletion:
    """Delete servers, several at once. After Ctrl-C no further deletion is begun; a second one waits for none.

    What fails for one server, also to forget it, ends no other's deletion.

    Args:
        cloud: makes a client that pauses with the function it is given.
        gone: called from this thread for each server that is deleted; safe to call twice.
    """

    def __init__(
        self,
        fleet: str,
        servers: list[Found],
        cloud: Callable[[Callable[[float], None]], Cloud],
        observe: Observer,
        gone: Callable[[Found], None],
    ) -> None:
        self._fleet = fleet
        self._servers = servers
        self._cloud = cloud
        self._observe = observe
        self._gone = gone
        self._stop = threading.Event()
        self._leave = threading.Event()
        self._begun: set[str] = set()
        self._unforgotten: list[str] = []
        self._failures: dict[str, Exception] = {}
        self.deleted: list[str] = []

    def run(self) -> None:
        """Raises the first failure once all are through, with what became of each told, and Interrupted."""
        pool = ThreadPoolExecutor(max_workers=HOSTS_AT_ONCE)
        try:
            self._wait({pool.submit(self._delete, server): server for server in self._servers})
        except BaseException:
            self._stop.set()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if self._stop.is_set():
            raise Interrupted(f"stopped: {self._account()}", next_step=_again(self._fleet))
        if self._failures:
            self._observe(Progress(f"note: {self._account()}"))
            raise next(iter(self._failures.values()))

    def _wait(self, futures: dict[Future[None], Found]) -> None:
        while futures and not self._leave.is_set():
            try:
                done, _ = wait(futures, return_when=FIRST_COMPLETED)
                for future in done:
                    self._settle(future, futures[future])
                    del futures[future]
            except KeyboardInterrupt:
                if self._stop.is_set():
                    self._leave.set()
                self._stop.set()
                self._observe(Progress("stopping: no further server is deleted"))

    def _delete(self, server: Found) -> None:
        def may_begin() -> None:
            if self._stop.is_set():
                raise Interrupted("stopped")
            self._begun.add(server.name)

        def pause(seconds: float) -> None:
            if self._leave.wait(seconds):
                raise Interrupted("stopped")

        if not self._stop.is_set():
            self._observe(Progress("deleting", host=server.name))
        self._cloud(pause).destroy_server(server, may_begin)

    def _settle(self, future: Future[None], server: Found) -> None:
        try:
            future.result()
        except Interrupted:
            return
        except Exception as error:
            self._failed(server, error)
            return
        try:
            self._gone(server)
        except Exception as error:
            self._unforgotten.append(server.name)
            self._failed(server, self._still_known(server, error))
        else:
            self._observe(Progress("deleted", host=server.name, state="ready"))
        self.deleted.append(server.name)

    def _failed(self, server: Found, error: Exception) -> None:
        self._failures[server.name] = error
        self._observe(Progress(_words(error), host=server.name, state="failed"))

    def _still_known(self, server: Found, error: Exception) -> HostFailed:
        return HostFailed(
            f"it is deleted, and could not be forgotten here: {_words(error)}",
            where=server.name,
            next_step=f"mend what it names, then controller destroy --fleet {self._fleet} --forget",
        )

    def _account(self) -> str:
        """Which servers are deleted and which are not, in words."""
        names = [server.name for server in self._servers if server.name not in self.deleted]
        failed = [name for name in names if name in self._failures]
        rest = [name for name in names if name not in failed]
        told = {
            "deleted": [name for name in self.deleted if name not in self._unforgotten],
            "deleted, and still known here": self._unforgotten,
            "failed": failed,
            "being deleted, their end was not seen": [name for name in rest if name in self._begun],
            "not deleted": [name for name in rest if name not in self._begun],
        }
        return "; ".join(f"{what}: {', '.join(those)}" for what, those in told.items() if those)


def _words(error: Exception) -> str:
    return error.what if isinstance(error, RatchetError) else f"{type(error).__name__}: {error}"
