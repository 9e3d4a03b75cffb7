"""`tickcast ...` that asks a broker which refuses it again within half a second, not within five."""

import sys

from tickcast.io.kafka import client
from tickcast.ui import cli

if __name__ == "__main__":
    client.LONGEST_PAUSE_S = 0.5
    sys.exit(cli.main(sys.argv[1:]))
