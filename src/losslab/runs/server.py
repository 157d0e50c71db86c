"""What the server of a parallel sweep's processes imports first: it must outlive its cells to tell how they ended."""

import signal

# A signal to the whole group (scancel, systemd) reaches the server too; it ends when the sweep closes its pipe.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
