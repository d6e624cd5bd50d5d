"""The service behind the proxy in tests: what it got, streams, uploads, and WebSocket echo.

``python http_upstream.py HTTP_PORT WEBSOCKET_PORT``; the standard library's server and, for the
second port, the ``websockets`` package.
"""

import hashlib
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = bytes(range(256)) * 1024


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def body(self):
        """The request's body in pieces, whichever way it is framed."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            data = self.rfile.read(min(left, 1 << 18))
            if not data:
                return
            left -= len(data)
            yield data

    def answer(self, data, kind="application/json", status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/download":
            self.download(int(query))
        elif path == "/events":
            self.events()
        elif path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "http://elsewhere.example/x")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path == "/empty":
            self.send_response(204)
            self.end_headers()
        elif path == "/until-close":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"until the end")
            self.close_connection = True
        else:
            list(self.body())
            facts = {"path": self.path, "method": self.command, "headers": self.headers.items()}
            self.answer(json.dumps(facts).encode())

    do_HEAD = do_OPTIONS = do_DELETE = do_GET

    def download(self, size):
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        while size:
            piece = PIECE[: min(size, len(PIECE))]
            self.wfile.write(piece)
            size -= len(piece)

    def events(self):
        """Three events: the second and third only when the one before has been taken."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(3):
            text = f"data: {number} {time.time()}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
            time.sleep(0.3)
        self.wfile.write(b"0\r\n\r\n")

    def do_PUT(self):
        if self.path == "/refuse":
            self.answer(b"too large", status=413)
            self.close_connection = True
            return
        digest, size = hashlib.sha256(), 0
        for piece in self.body():
            digest.update(piece)
            size += len(piece)
        self.answer(json.dumps({"size": size, "sha256": digest.hexdigest()}).encode())

    do_POST = do_PUT


def websocket(port):
    from websockets.sync.server import serve

    def echo(connection):
        connection.send(json.dumps(dict(connection.request.headers.raw_items())))
        for message in connection:
            connection.send(message)

    serve(echo, "127.0.0.1", port, max_size=None).serve_forever()


if __name__ == "__main__":
    threading.Thread(target=websocket, args=(int(sys.argv[2]),), daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
