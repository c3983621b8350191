"""A run's folder at an address: kept in step with the folder here that the run writes.

What is there is what a run elsewhere may rely on: a receipt is brought there after the parts that
it names, and a part only when it is whole. So a catalog in object storage is at any time what a
folder on a disk would be, but for the last few seconds; a run that lost its machine goes on on
another one.
"""

from __future__ import annotations

import json
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from catalogproc.errors import CatalogprocError, InputError, Refusal
from catalogproc.io.processes import describe_process, has_ended, this_process
from catalogproc.io.remote import Address, Entry, in_step, is_address
from catalogproc.rundir.manifest import CATALOG, RECEIPTS, REJECTED, RUN_FILE
from catalogproc.rundir.receipts import read_receipt, receipt_files

LOCK = ".lock"
PACE = 5.0
"""Seconds between two looks for new receipts."""
RENEWED = 30.0
STALE = 180.0
"""Seconds after which a lock that nobody renews is a dead run's."""

Announce = Callable[[str], None]


def at_hand(folder: str | Path, *, parts: bool = True) -> Path:
    """A run's folder here; where the word is an address, what is there is fetched first.

    Without ``parts`` what the run says of itself is fetched alone. Raises CatalogprocError.
    """
    if not is_address(folder):
        return Path(folder)
    return Mirror(Address(str(folder))).pull(parts=parts)


@contextmanager
def kept(output: str | Path, announce: Announce | None = None) -> Iterator[Path]:
    """The folder here that a run is to write, for the time of the block.

    Where ``output`` is an address, what is there is fetched first, and what is new here is
    brought there: parts and receipts as they come, the rest at the end, whatever the end.

    Raises
    ------
    Refusal
        Another run is at work at that address, or it cannot be written.
    CatalogprocError
        Something could not be brought there at the end. It is here, and the same command
        brings it.
    """
    if not is_address(output):
        yield Path(output)
        return
    mirror = Mirror(Address(str(output)))
    with mirror.alone():
        mirror.forget()
        folder = mirror.pull()
        try:
            with mirror.carried():
                yield folder
        finally:
            count = mirror.push()
            if announce is not None and count:
                announce(f"{output}: the same, {count:,} files brought there at the end")


class Mirror:
    """A folder at an address and the one here that it is staged in."""

    def __init__(self, address: Address) -> None:
        self.address, self.folder = address, address.folder
        self._there: dict[str, Entry] = {}
        self._token = secrets.token_hex(8)

    def pull(self, *, parts: bool = True) -> Path:
        """Fetch what is there and not here, if a run is there; the folder here."""
        self._look()
        if RUN_FILE not in self._there:
            return self.folder
        wanted = [
            entry for name, entry in self._there.items()
            if (parts or not name.startswith((f"{CATALOG}/", f"{REJECTED}/")))
            # What is newer here was not brought there in time.
            and not _newer(self.folder / name, entry)
        ]  # fmt: skip
        self.address.fetch(wanted)
        return self.folder

    def forget(self) -> None:
        """Remove what is here where no run is there: it is of one that was removed there.

        A run brings its name there first of all, so that no work of one is lost. Raises Refusal
        where something else is there.
        """
        self._look()
        if RUN_FILE in self._there:
            return
        if self._there:
            raise Refusal(
                "the output's address holds something that is no run of catalogproc",
                wanted="nothing, or the same run",
                found=f"{len(self._there):,} files, such as {min(self._there)}",
                where=self.address,
                advice="give another --output",
            )
        shutil.rmtree(self.folder, ignore_errors=True)

    def push(self) -> int:
        """Bring there what is new here, receipts after parts and the rest after receipts."""
        self._look()
        names = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")
                 if path.is_file()]  # fmt: skip
        return sum(self._bring(name) for name in sorted(filter(_belongs, names), key=_turn))

    @contextmanager
    def carried(self) -> Iterator[None]:
        """Bring there what comes, in a thread, for the time of the block.

        What goes wrong in it is tried again by :meth:`push`, which tells of it.
        """
        over = threading.Event()
        thread = threading.Thread(target=self._carry, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The only run at that address for the time of the block. Raises Refusal.

        Object storage has no locks: a file there says who is at work, and is renewed.
        """
        held = self.address.read(LOCK)
        # The clock is that of the other side.
        now = self._renew(f"{LOCK}.{self._token}")
        self.address.remove(f"{LOCK}.{self._token}")
        fresh = held is not None and (now.changed - held[1].changed) / 1e9 < STALE
        if held is not None and fresh and not has_ended(held[0]):
            self._refuse(held[0])
        self._renew(LOCK)
        stated = self.address.read(LOCK)
        if stated is not None and self._token.encode() not in stated[0]:
            self._refuse(stated[0])
        try:
            yield
        finally:
            with suppress(CatalogprocError):
                self.address.remove(LOCK)

    def _carry(self, over: threading.Event) -> None:
        waited = 0.0
        while not over.wait(PACE):
            waited += PACE
            with suppress(CatalogprocError):
                if waited >= RENEWED:
                    self._renew(LOCK)
                    waited = 0.0
                if (self.folder / RUN_FILE).exists():
                    self._bring(RUN_FILE)
                for path in receipt_files(self.folder):
                    self._bring_chunk(path)

    def _look(self) -> None:
        begin = len(self.address.path) + 1
        named = {entry.path[begin:]: entry for entry in self.address.files()}
        self._there = {name: entry for name, entry in named.items() if _belongs(name)}

    def _bring_chunk(self, path: Path) -> None:
        """Bring a receipt there after its parts; one that is there already is not read again."""
        name = f"{RECEIPTS}/{path.name}"
        if self._has(name):
            return
        with suppress(InputError):  # garbage counts as absent
            for part, _, _ in read_receipt(path).parts():
                self._bring(part)
            self._bring(name)

    def _has(self, name: str) -> bool:
        entry = self._there.get(name)
        return entry is not None and in_step(self.folder / name, entry)

    def _bring(self, name: str) -> bool:
        """Bring a file there, unless it is there; whether it was brought."""
        if self._has(name):
            return False
        self._there[name] = self.address.put(self.folder / name, name)
        return True

    def _renew(self, name: str) -> Entry:
        stated = this_process() | {"token": self._token}
        return self.address.write(name, json.dumps(stated).encode())

    def _refuse(self, stated: bytes) -> None:
        raise Refusal(
            "another run is using the output's address",
            wanted="one run an address at a time",
            found=describe_process(stated),
            where=self.address,
            advice=f"wait for it to end; one that died is forgotten after {STALE:.0f} s",
        )


def _belongs(name: str) -> bool:
    """Whether a file is of the run, and not of its work."""
    return not any(part.startswith(".") for part in name.split("/"))


def _newer(path: Path, entry: Entry) -> bool:
    return path.exists() and path.stat().st_mtime_ns > entry.changed


def _turn(name: str) -> tuple[int, str]:
    """When a file is brought: what others rely on first."""
    order = (RUN_FILE, CATALOG, REJECTED, RECEIPTS)
    top = name.split("/")[0]
    return (order.index(top) if top in order else len(order)), name
