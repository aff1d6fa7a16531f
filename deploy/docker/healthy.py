"""``healthy.py PORT``: exit status 0 while the service on this port is ready. Quick: it is asked often."""

import http.client
import sys


def main() -> int:
    """Ask ``/readyz`` once."""
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=3)
    try:
        connection.request("GET", "/readyz")
        return 0 if connection.getresponse().status == 200 else 1
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
