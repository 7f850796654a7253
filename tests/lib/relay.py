# SPDX-License-Identifier: Apache-2.0
"""What a Prometheus and the daemon say to each other, word by word."""

import http.server
import threading

import lab


class Relay:
    """Stands between Prometheus and the daemon and keeps what each said of the last scrape."""

    def __init__(self, daemon):
        self.exchanges = []
        relay = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked = {key: value for key, value in self.headers.items() if key != "Host"}
                answer = lab.fetch(daemon.url + self.path, headers=asked)
                relay.exchanges.append((dict(self.headers.items()), answer))
                self.send_response(answer.status)
                for key, value in answer.headers.items():
                    if key.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(answer.raw)))
                self.end_headers()
                self.wfile.write(answer.raw)

            def log_message(self, *_args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exc):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
