"""Servers for the tests of remotes: real ones as processes, and a proxy of our own that does what networks do.

Each is a context manager with a port of 127.0.0.1 and a temporary folder of its own. It ends with the block, and also
if the tests are killed. ``server.requests`` is what it has answered so far; ``server.forget()`` starts that list anew.

- :func:`nginx_static`: a folder over https, with byte ranges;
- :func:`nginx_cache`: a pull-through cache in front of another server;
- :func:`rclone_s3`: S3 that keeps its objects in a folder;
- :func:`moto_s3`: S3 with conditional puts;
- :class:`FaultyProxy`: stands before any of them, and delays, cuts, refuses and falsifies.
"""

from support.servers.base import PASSWORD, USER, Request, Server
from support.servers.nginx import Nginx, nginx_cache, nginx_static
from support.servers.proxy import Asked, Fault, FaultyProxy
from support.servers.s3 import S3Server, moto_s3, rclone_s3

__all__ = [
    "PASSWORD",
    "USER",
    "Asked",
    "Fault",
    "FaultyProxy",
    "Nginx",
    "Request",
    "S3Server",
    "Server",
    "moto_s3",
    "nginx_cache",
    "nginx_static",
    "rclone_s3",
]
