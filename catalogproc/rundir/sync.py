"""Keep a run's folder at an address in object storage equal to the local folder that is written.

A receipt is uploaded after the parts that it names, and a part only when it is complete. So the
catalog at the address is at any time what a folder on a disk would be, except for the last few
seconds, and a run whose machine is lost can be resumed on another one.
"""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from catalogproc.errors import CatalogprocError, InputError, LockedError, Refusal, plural
from catalogproc.io.processes import describe_process, has_ended, this_process
from catalogproc.io.remote import Address, Entry, is_address
from catalogproc.io.staging import fetch, is_current, staged_folder
from catalogproc.rundir.manifest import CATALOG, POSTERIOR, RECEIPTS, REJECTED, RUN_FILE
from catalogproc.rundir.receipts import read_receipt, receipt_files

LOCK = ".lock"
PARTS = (CATALOG, POSTERIOR, REJECTED)
"""Folders of a run's parts."""
PACE = 5.0
"""Seconds between two looks for new receipts."""
RENEWED = 30.0
"""Seconds between two renewals of the lock."""
STALE = 180.0
"""Seconds without renewal after which a lock is that of a run that died."""
SETTLE = 2.0
"""Seconds in which the claim of another start is written, before it is decided who goes on."""

Announce = Callable[[str], None]


def pull(folder: str | Path, *, parts: bool = True) -> Path:
    """Return the local folder of a run; what is at an address is fetched first.

    Parameters
    ----------
    folder
        A folder, or an address.
    parts
        Whether the catalog's parts are fetched, or only what describes the run.

    Raises
    ------
    CatalogprocError
        The address cannot be read.
    """
    if not is_address(folder):
        return Path(folder)
    return Mirror(Address(str(folder))).pull(parts=parts)


@contextmanager
def synced(output: str | Path, announce: Announce | None = None) -> Iterator[Path]:
    """Give the local folder that a run writes, and keep an address equal to it during the block.

    What is at the address is fetched first. New parts and receipts are uploaded as they
    appear, everything else at the end, also after an exception.

    Parameters
    ----------
    output
        A folder, which is given as it is, or an address.
    announce
        Called with a line for the user at the end.

    Yields
    ------
    Path
        The local folder.

    Raises
    ------
    Refusal
        Another run is using the address, or it cannot be written.
    CatalogprocError
        Something could not be uploaded at the end. It is in the local folder, and the same
        command uploads it.
    """
    if not is_address(output):
        yield Path(output)
        return
    mirror = Mirror(Address(str(output)))
    with mirror.exclusive():
        mirror.remove_old_run()
        folder = mirror.pull()
        try:
            with mirror.uploading():
                yield folder
        finally:
            count = mirror.push()
            if announce is not None and count:
                announce(f"{output}: up to date, {plural(count, 'file')} uploaded at the end")


class Mirror:
    """A folder at an address, and its local copy.

    Parameters
    ----------
    address
        The address.
    """

    def __init__(self, address: Address) -> None:
        self.address, self.folder = address, staged_folder(address)
        self._remote: dict[str, Entry] = {}
        self._token = secrets.token_hex(8)

    def pull(self, *, parts: bool = True) -> Path:
        """Fetch the files of the run at the address that are not in the local folder.

        Parameters
        ----------
        parts
            Whether the catalog's parts are fetched.

        Returns
        -------
        Path
            The local folder.
        """
        self._list()
        if RUN_FILE not in self._remote:
            return self.folder
        wanted = [
            entry for name, entry in self._remote.items()
            if (parts or name.split("/")[0] not in PARTS)
            # A newer local file was not uploaded in time.
            and not _newer(self.folder / name, entry)
        ]  # fmt: skip
        fetch(self.address, wanted)
        return self.folder

    def remove_old_run(self) -> None:
        """Remove the local folder if there is no run at the address: its run was removed there.

        A run uploads run.json first of all, so no work of a run is lost.

        Raises
        ------
        Refusal
            There are files at the address that are not of a run.
        """
        self._list()
        if RUN_FILE in self._remote:
            return
        if self._remote:
            raise Refusal(
                "there are files at the output's address that are not of a run of catalogproc",
                wanted="no files, or the same run",
                found=f"{plural(len(self._remote), 'file')}, such as {min(self._remote)}",
                where=self.address,
                advice="give another --output",
            )
        shutil.rmtree(self.folder, ignore_errors=True)

    def push(self) -> int:
        """Upload all new files, receipts after parts and the rest last; return their number."""
        self._list()
        names = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")
                 if path.is_file()]  # fmt: skip
        return sum(self._upload(name) for name in sorted(filter(_is_of_run, names), key=_order))

    @contextmanager
    def uploading(self) -> Iterator[None]:
        """Upload new parts and receipts in a thread during the block.

        What fails is tried again by :meth:`push`, which raises.
        """
        stop = threading.Event()
        thread = threading.Thread(target=self._upload_until, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Allow no other run at the address during the block.

        Object storage has no locks, and Arrow no conditional writes. Each start therefore writes a
        claim of its own name, waits, and looks at all claims: it goes on if no other one is held
        and its own has the least token of those that were written in the last seconds. Of two
        starts in the same second one goes on, unless a claim takes longer than SETTLE to be
        written. A claim is renewed while the run lasts.

        Raises
        ------
        LockedError
            Another run is using the address.
        """
        own = f"{LOCK}.{self._token}"
        claim = self._write_claim(held=False)
        try:
            self._refuse_others(claim, waited=False)
            time.sleep(SETTLE)
            self._refuse_others(claim, waited=True)
            self._write_claim(held=True)
            yield
        finally:
            with suppress(CatalogprocError):
                self.address.remove(own)

    def _refuse_others(self, own: Entry, *, waited: bool) -> None:
        """Raise LockedError if the claim of another run comes before that of this one."""
        for entry in self.address.files():
            name = entry.path.rpartition("/")[2]
            if not name.startswith(f"{LOCK}.") or name == f"{LOCK}.{self._token}":
                continue
            found = self.address.read(name)
            if found is None:
                continue
            # The times compared are of one clock, that of the storage.
            if (own.changed - entry.changed) / 1e9 >= STALE or has_ended(found[0]):
                with suppress(CatalogprocError):
                    self.address.remove(name)
            elif _is_held(found[0]) or (waited and name < f"{LOCK}.{self._token}"):
                self._refuse(found[0])

    def _upload_until(self, stop: threading.Event) -> None:
        since_renewal = 0.0
        while not stop.wait(PACE):
            since_renewal += PACE
            with suppress(CatalogprocError):
                if since_renewal >= RENEWED:
                    self._write_claim(held=True)
                    since_renewal = 0.0
                if (self.folder / RUN_FILE).exists():
                    self._upload(RUN_FILE)
                for path in receipt_files(self.folder):
                    self._upload_chunk(path)

    def _list(self) -> None:
        begin = len(self.address.path) + 1
        entries = {entry.path[begin:]: entry for entry in self.address.files()}
        self._remote = {name: entry for name, entry in entries.items() if _is_of_run(name)}

    def _upload_chunk(self, path: Path) -> None:
        """Upload a chunk's parts and then its receipt, unless the receipt is there already."""
        name = f"{RECEIPTS}/{path.name}"
        if self._is_uploaded(name):
            return
        with suppress(InputError):  # an invalid receipt counts as absent
            for part, _, _ in read_receipt(path).parts():
                self._upload(part)
            self._upload(name)

    def _is_uploaded(self, name: str) -> bool:
        entry = self._remote.get(name)
        return entry is not None and is_current(self.folder / name, entry)

    def _upload(self, name: str) -> bool:
        """Upload a file unless it is there already; return whether it was uploaded."""
        if self._is_uploaded(name):
            return False
        self._remote[name] = self.address.put(self.folder / name, name)
        return True

    def _write_claim(self, *, held: bool) -> Entry:
        content = this_process() | {"token": self._token, "held": held}
        return self.address.write(f"{LOCK}.{self._token}", json.dumps(content).encode())

    def _refuse(self, lock: bytes) -> None:
        raise LockedError(
            "another run is using the output's address",
            wanted="one run per address at a time",
            found=describe_process(lock),
            where=self.address,
            advice=f"wait for it to end; the lock of a run that died expires after {STALE:.0f} s",
        )


def _is_held(claim: bytes) -> bool:
    """Return whether the run of a claim goes on; one that cannot be read is taken for such."""
    try:
        return bool(json.loads(claim)["held"])
    except (ValueError, KeyError, TypeError):
        return True


def _is_of_run(name: str) -> bool:
    """Return whether a file belongs to the catalog: hidden files are locks and temporary files."""
    return not any(part.startswith(".") for part in name.split("/"))


def _newer(path: Path, entry: Entry) -> bool:
    return path.exists() and path.stat().st_mtime_ns > entry.changed


def _order(name: str) -> tuple[int, str]:
    """Return the sort key of the order in which files are uploaded."""
    order = (RUN_FILE, *PARTS, RECEIPTS)
    top = name.split("/")[0]
    return (order.index(top) if top in order else len(order)), name
