"""A private nginx around a rendered site: every path of its own lies in one directory."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.pebble import process
from services.ports import await_port

# Workers started by root would drop to www-data, who cannot enter pytest's 0700 directories: `user root`.
_WRAPPER = """\
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 128; }}
http {{
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    access_log off;
    include {directory}/site.conf;
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """An nginx, running or to be checked, with its whole configuration in `directory`."""

    directory: Path

    def command(self, *arguments: str) -> list[str]:
        """A command line of nginx about this instance and no other."""
        conf, log = self.directory / "nginx.conf", self.directory / "start.log"
        return ["nginx", "-p", str(self.directory), "-c", str(conf), "-e", str(log), *arguments]

    @property
    def reload_command(self) -> str:
        """The shell command after which new connections see the new configuration and certificates."""
        return shlex.join(self.command("-s", "reload"))

    def check(self) -> subprocess.CompletedProcess[str]:
        """What `nginx -t` says about the configuration."""
        return subprocess.run(self.command("-t"), capture_output=True, text=True, check=False)

    def write(self, site: str) -> None:
        """Put the site in place; a running nginx takes it up at its next reload."""
        (self.directory / "site.conf").write_text(site)


def nginx_for(directory: Path, site: str) -> Nginx:
    """Lay out the directory for one nginx, without starting it."""
    directory.mkdir(parents=True, exist_ok=True)
    user = "user root;" if Path("/proc/self").owner() == "root" else ""
    (directory / "nginx.conf").write_text(_WRAPPER.format(directory=directory, user=user))
    nginx = Nginx(directory)
    nginx.write(site)
    return nginx


@contextmanager
def running_nginx(directory: Path, site: str, *, port: int) -> Iterator[Nginx]:
    """Start an nginx that serves the site, wait until it answers on the port, stop it after the block."""
    nginx = nginx_for(directory, site)
    with process(nginx.command(), directory / "start.log") as master:
        await_port(port, master)
        yield nginx
