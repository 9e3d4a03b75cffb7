"""Where `tickcast` and `python -m tickcast` begin: nothing is imported yet, so that a Ctrl-C is quiet then, too."""

import os
import signal
import sys

INTERRUPTED = 130  # errors.EXIT_SECOND_SIGNAL, which is not imported yet


def main() -> int:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))  # there is nothing yet to clear up
    from tickcast.ui import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
