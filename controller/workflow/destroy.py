"""Delete a fleet's servers and what they shared: only what carries the fleet's label, and what we wrote about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from controller.adapters.audit import Accounts
from controller.adapters.files.keys import HostSeeds
from controller.adapters.hetzner import Cloud, Leftovers, read_access
from controller.adapters.store import Store
from controller.model.errors import RatchetError
from controller.model.project import Project
from controller.workflow.provision import HOSTS_AT_ONCE, Observer, Progress, read_servers


def destroy(
    project: Project,
    fleet: str,
    environment: Mapping[str, str],
    observe: Observer,
    *,
    confirm: Callable[[Leftovers], bool],
    store: Store,
    accounts: Accounts,
) -> bool:
    """Delete everything with the fleet's label, after `confirm` has said yes to it. The caller holds the fleet.

    Returns whether there was anything. Raises BadInput for a static fleet or a token that does not allow it,
    HostFailed when the cloud refuses; running it again goes on.
    """
    read_servers(project, fleet)
    access = read_access(environment)
    cloud = Cloud(access)
    found = cloud.leftovers(fleet)
    if found and not confirm(found):
        return False
    why = f"delete for good: {found.words()}" if found else "forget what was written: the cloud has nothing of it"
    with accounts.account("destroy", found.servers, why):
        if found:
            _delete_servers(fleet, found.servers, lambda: Cloud(access), observe)
            observe(Progress("deleting firewall, placement groups and SSH key"))
            cloud.destroy_shared(fleet)
        _forget(project, fleet)
        store.forget(fleet)
    return bool(found)


def _delete_servers(fleet: str, names: list[str], cloud: Callable[[], Cloud], observe: Observer) -> None:
    def delete(name: str) -> None:
        observe(Progress("deleting", host=name))
        cloud().destroy_server(fleet, name)
        observe(Progress("deleted", host=name, state="ready"))

    failures: list[RatchetError] = []
    with ThreadPoolExecutor(max_workers=HOSTS_AT_ONCE) as pool:
        for name, future in [(name, pool.submit(delete, name)) for name in names]:
            try:
                future.result()
            except RatchetError as error:
                observe(Progress(error.what, host=name, state="failed"))
                failures.append(error)
    if failures:
        raise failures[0]


def _forget(project: Project, fleet: str) -> None:
    """The addresses may be another's tomorrow. The fleet's own key and its settings stay: a new provision uses them."""
    for path in (project.inventory(fleet) / "hosts.yml", project.known_hosts(fleet)):
        path.unlink(missing_ok=True)
    HostSeeds(project, fleet).forget_all()
