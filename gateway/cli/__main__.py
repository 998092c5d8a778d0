"""`python -m gateway.cli`: the same as `fl-gateway`."""

from __future__ import annotations

from gateway.cli import main

if __name__ == "__main__":
    main(prog_name="fl-gateway")
