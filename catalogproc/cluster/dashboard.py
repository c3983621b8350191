"""Dask's dashboard of a local cluster, whose pages are loaded when one is first asked for.

Loading Bokeh takes a second, which a short run would spend for pages that nobody opens.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from distributed import Client, Scheduler
from tornado.web import Application, HTTPError, RequestHandler

from catalogproc.cluster.spec import LOOPBACK
from catalogproc.errors import Refusal


def serve_when_asked(scheduler: Scheduler) -> None:
    """Let the first request of a page that the scheduler does not serve load its dashboard.

    Parameters
    ----------
    scheduler
        A scheduler of this process, started without a dashboard.
    """
    served = scheduler.http_application
    waiting = Application()

    class FirstRequest(RequestHandler):
        def get(self) -> None:
            served.applications.remove(waiting)
            try:
                from distributed.dashboard.scheduler import connect
            except ImportError as error:
                raise HTTPError(501, reason=f"no dashboard: {error}".splitlines()[0]) from None
            connect(served, scheduler.http_server, scheduler)
            self.redirect(str(self.request.uri))

    waiting.add_handlers(".*", [(".*", FirstRequest)])
    served.add_application(waiting)


def dashboard_link(client: Client) -> str:
    """Return the address of the dashboard.

    Parameters
    ----------
    client
        A client of the scheduler.
    """
    try:
        return str(client.dashboard_link)
    except (KeyError, IndexError, ValueError):
        # dask.config's template names a variable that is not set, as JupyterHub's elsewhere.
        host = urlsplit(client.scheduler.address).hostname
        return f"http://{host}:{client.scheduler_info()['services']['dashboard']}/status"


def free_address(address: str) -> str:
    """Return the address, with port 0 (any free port) if its own port is taken.

    Parameters
    ----------
    address
        As host:port.

    Raises
    ------
    Refusal
        It is no such address.
    """
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return f"{host}:0"
        except ValueError:
            raise Refusal(
                "not a dashboard address", wanted=f"{LOOPBACK}:8787", found=address
            ) from None
    return address
