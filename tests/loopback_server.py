"""A server on loopback, for code that downloads."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], monkeypatch):
    """Yield the URL, without a slash, at which ``handler`` answers; proxies of the environment are not used."""
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    http = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    yield f'http://127.0.0.1:{http.server_port}'
    http.shutdown()
    http.server_close()
