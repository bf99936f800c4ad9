"""Real servers of gRPC (python3-grpcio).  Messages are bytes; a method is a function and the kind of
call it answers, by its full path."""
from concurrent import futures

from . import HOST

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Server:
    """methods: {"/t.T/Unary": function} for unary calls, {"/t.T/Down": (function, "unary_stream")} else.
    It may be changed while the server runs."""

    def __init__(self, methods, cert=None, port=0, threads=16):
        import grpc

        outer = self

        class Handler(grpc.GenericRpcHandler):
            def service(self, details):
                outer.calls.append(details)
                found = outer.methods.get(details.method)
                if found is None:
                    return None
                function, kind = found if isinstance(found, tuple) else (found, "unary_unary")
                assert kind in KINDS
                return getattr(grpc, f"{kind}_rpc_method_handler")(function)

        self.methods = dict(methods)
        self.calls = []
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=threads),
                                  options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
        self.server.add_generic_rpc_handlers((Handler(),))
        if cert:
            pair = tuple(open(f, "rb").read() for f in reversed(cert))
            self.port = self.server.add_secure_port(f"{HOST}:{port}", grpc.ssl_server_credentials([pair]))
        else:
            self.port = self.server.add_insecure_port(f"{HOST}:{port}")
        self.server.start()

    def __str__(self):
        return f"{HOST}:{self.port}"

    def metadata(self, n=-1):
        """That of the n-th call."""
        return dict(self.calls[n].invocation_metadata)

    def close(self):
        self.server.stop(0).wait()
