"""A pool by script, over a real Unix socket: says what a test tells it to, and keeps what it was asked."""

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler

CARD = {
    "index": 0, "uuid": "SIM-0", "model": "h200", "vendor": "simulated", "memory_bytes": 141 << 30, "health": "healthy",
    "cordoned": False, "backend": "hwslice", "note": None, "source": "simulated", "compute_granted_milli": 300,
    "memory_granted_bytes": 16 << 30, "foreign_memory_bytes": 0, "foreign_compute_milli": 0,
    "slices": [{
        "job_id": "7", "member": 0, "user": "ann", "name": "train", "asked_milli": 300, "limit_milli": 600,
        "memory_bytes": 16 << 30, "tenant_class": "guaranteed", "state": "running", "got_milli_1s": 310,
        "got_milli_10s": 301, "used_bytes": 5 << 30,
    }],
}  # fmt: skip


def job(job_id, state="queued", **fields):
    return {
        "id": job_id, "name": "train", "user": "ann", "queue": "team-a", "state": state, "position": 0,
        "reason": {"code": "NotEnoughCompute", "message": "2 of 4 cards have 30% left.", "numbers": {"n": 2}},
        "request": {"compute_milli": 300, "memory_bytes": 16 << 30, "n_devices": 1}, "grants": [],
        "submitted_at_ms": 1_700_000_000_000, "started_at_ms": None, "finished_at_ms": None, "exit_code": None,
        "cause": None, "command": ["python", "train.py"], **fields,
    }  # fmt: skip


STATUS = {
    "pool": {"pid": 1, "started_at_ms": 1_700_000_000_000, "leaving": False, "store_error": None},
    "agent": {"connected": True, "privileged": False, "notes": ["no cgroups"]},
    "n_devices": 1, "jobs": {"running": 1, "queued": 2}, "n_queues": 1,
}  # fmt: skip


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class FakePool:
    """``answers`` maps ``(method, path)`` to a JSON value, or to a function of (body) giving (status, value).

    Attributes:
        grants: lines of each ``/grant`` stream, one list per connection; after the last one the connection hangs.
        asked: (method, path, body) of every request.
        cgroup: where a grant says that the command is held; None for nowhere.
    """

    def __init__(self, run_dir, cgroup=None):
        self.cgroup = cgroup
        self.path = run_dir / "pool.sock"
        self.answers, self.grants, self.asked = {}, [], []
        self.released = threading.Event()
        self._server = None

    def asked_for(self, path):
        return [body for _, asked, body in self.asked if asked == path]

    def open(self):
        self.path.unlink(missing_ok=True)
        self._server = _Server(str(self.path), self._handler())
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        if self._server is not None:
            self.released.set()
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _handler(self):
        pool = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                """Tests are quiet."""

            def address_string(self):
                return "unix"

            def _serve(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                path = self.path.partition("?")[0]
                pool.asked.append((self.command, path, body))
                if path.endswith("/grant"):
                    self._stream()
                    return
                answer = pool.answers.get((self.command, path))
                if callable(answer):
                    status, answer = answer(body)
                elif answer is None:
                    status, answer = 404, {"code": "NotFound", "message": f"no {path}", "remedy": "See `flexai jobs`"}
                else:
                    status = 200
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _stream(self):
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                for line in pool.grants.pop(0) if pool.grants else []:
                    said = line | ({"cgroup": pool.cgroup} if line.get("state") == "granted" else {})
                    self.wfile.write(json.dumps(said).encode() + b"\n")
                    self.wfile.flush()
                    if line.get("state") in {"granted", "cancelled", "broken"}:
                        return
                pool.released.wait(20)

            do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  the names are http.server's

        return Handler
