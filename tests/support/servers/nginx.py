"""nginx as an ordinary process with a configuration of its own: nothing of /etc/nginx is read."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from support.servers.base import PASSWORD, PATIENCE, USER, Request, Server, certificate, program, running, wait_for

# With one worker it is known what is in the log, see `Nginx._answered`.
CONFIGURATION = """
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    log_format requests escape=json '{{"method": "$request_method", "path": "$request_uri", "status": "$status", '
        '"sent": "$body_bytes_sent", "received": "$content_length", "range": "$http_range", '
        '"cache": "$upstream_cache_status"}}';
    access_log {folder}/access.log requests;
    lingering_close off;
    client_max_body_size 0;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/proxied;
    fastcgi_temp_path {folder}/unused;
    uwsgi_temp_path {folder}/unused;
    scgi_temp_path {folder}/unused;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000;
    server {{
        listen unix:{folder}/settled;
        access_log off;
        return 204;
    }}
{rest}
}}
"""

TLS = """
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.key;
"""

STATIC = """
    server {{
        listen 127.0.0.1:{port} ssl;
{tls}
        location / {{
            root "{root}";
{authentication}
        }}
    }}
"""

# Whole packs are fetched and kept, also if the client asks for a range of one: it is served from the stream as it
# arrives. The module `slice` would fetch pieces, one after the other, each a request that the object store charges for:
# 16 for a pack of 16 MiB in pieces of 1 MiB. A pack that one runner needs a part of, the fleet soon needs all of.
CACHE = """
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=holo:10m max_size=200g inactive=30d use_temp_path=off;

    # holo asks so for what came wrong: the origin is asked again then, and the cache keeps its answer.
    map $http_cache_control $is_wrong {{
        default 0;
        no-cache 1;
    }}

    upstream origin {{
        server {origin};
        keepalive 16;
    }}

    server {{
        listen 127.0.0.1:{port} ssl;
{tls}
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host {origin};
{verification}

        # What is named by its digest never changes, whatever the origin says about it. Not so its signature (.sig).
        location ~ "/(packs|catalogs)/[0-9a-f]{{64}}$" {{
            proxy_pass {scheme}://origin;
            proxy_cache holo;
            proxy_cache_key $uri;
            proxy_cache_valid 200 30d;
            proxy_cache_bypass $is_wrong;
            proxy_ignore_headers Cache-Control Expires Set-Cookie Vary X-Accel-Expires;
            proxy_cache_use_stale error timeout;

            # A thousand runners that start at once are one request to the origin.
            proxy_cache_lock on;
            proxy_cache_lock_age 60s;
            proxy_cache_lock_timeout 60s;
        }}

        # Names, keys and all else: always asked of the origin.
        location / {{
            proxy_pass {scheme}://origin;
        }}
    }}
"""

VERIFICATION = """
        proxy_ssl_server_name on;
        proxy_ssl_name localhost;
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate {folder}/authority.pem;
"""

# For servers whose own log says too little. It changes nothing of a request, for those of S3 are signed.
LOGGING = """
    upstream origin {{
        server {origin};
        keepalive 16;
    }}

    server {{
        listen 127.0.0.1:{port};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_buffering off;
        proxy_request_buffering off;
        recursive_error_pages on;
        location / {{
{ranges}
            proxy_pass http://origin;
        }}
        location @part {{
            proxy_pass http://origin;
            proxy_intercept_errors on;
            error_page 400 403 404 412 416 500 503 = @whole;
        }}
        location @whole {{
            proxy_pass http://origin;
        }}
    }}
"""

# A range is answered with 206. rclone says 200, and sends the range. Its errors stay what they are.
RANGES = """
            error_page 418 =206 @part;
            if ($http_range) {{ return 418; }}
"""


class Nginx(Server):
    def __init__(self, url: str, folder: Path, process: subprocess.Popen[bytes]) -> None:
        super().__init__()
        self.url = url
        self._process = process
        self.authority = folder / "authority.pem"
        self.kept = folder / "cache"
        """the folder of what a cache keeps"""
        self._folder = folder

    def stop(self) -> None:
        """From now on nobody answers."""
        self._process.terminate()
        self._process.wait(PATIENCE)

    def _answered(self) -> list[Request]:
        """nginx logs a request in the same turn of its loop in which it sends the last of the answer.

        So a further request, whose answer is here, comes after all that is to be in the log.
        """
        _ask(self._folder)
        lines = (self._folder / "access.log").read_text(errors="surrogateescape").splitlines()
        entries = map(json.loads, lines)
        numbers = ("status", "sent", "received")
        return [Request(**entry | {name: int(entry[name] or 0) for name in numbers}) for entry in entries]


@contextmanager
def nginx_static(folder: Path, *, password: bool = False) -> Iterator[Nginx]:
    """The folder over https, read-only, as any static server does it; with ``password`` only for USER and PASSWORD."""
    authentication = 'auth_basic "holo"; auth_basic_user_file {folder}/passwords;' if password else ""
    with _nginx(STATIC.replace("{authentication}", authentication), root=str(folder)) as server:
        yield server


@contextmanager
def nginx_cache(origin: str) -> Iterator[Nginx]:
    """A pull-through cache over https in front of another server: ``https://`` or ``http://``, and no path."""
    parts = urlsplit(origin)
    verification = VERIFICATION if parts.scheme == "https" else ""
    rest = CACHE.replace("{verification}", verification)
    with _nginx(rest, origin=parts.netloc, scheme=parts.scheme) as server:
        yield server


@contextmanager
def nginx_log(origin: str, *, says_206: bool = True) -> Iterator[Nginx]:
    """Passes everything on to a server, over http, and has a log. ``says_206``: the server does, for a range."""
    with _nginx(LOGGING.replace("{ranges}", "" if says_206 else RANGES), origin=urlsplit(origin).netloc) as server:
        yield server


@contextmanager
def _nginx(rest: str, **more: str) -> Iterator[Nginx]:
    nginx = program("nginx")
    secure = "{tls}" in rest
    with tempfile.TemporaryDirectory(prefix="holo-nginx-") as name, socket.create_server(("127.0.0.1", 0)) as listener:
        folder, port = Path(name), listener.getsockname()[1]
        listener.setblocking(False)
        if secure:
            certificate().write(folder)
        (folder / "passwords").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
        values = {"folder": name, "port": port, **more}
        configuration = CONFIGURATION.format(
            # As root it becomes another user unless told not to, who cannot read what belongs to the tests.
            user="user root;" if os.geteuid() == 0 else "",
            rest=rest.replace("{tls}", TLS).format(**values),
            folder=name,
        )
        (folder / "nginx.conf").write_text(configuration)
        command = [nginx, "-p", name, "-c", folder / "nginx.conf", "-e", "stderr"]
        # It takes over the socket, as it does from its predecessor when it is upgraded: nobody can take the port in
        # between, and a client that is too early waits.
        inherited = listener.fileno()
        log = folder / "output"
        with running(command, log, env={"NGINX": f"{inherited};"}, descriptors=[inherited]) as process:
            wait_for(lambda: _listens(folder), process, log)
            listener.close()
            yield Nginx(f"http{'s' * secure}://127.0.0.1:{port}", folder, process)


def _listens(folder: Path) -> bool | None:
    try:
        _ask(folder)
    except OSError:
        return None
    return True


def _ask(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(folder / "settled"))
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while connection.recv(4096):
            pass
