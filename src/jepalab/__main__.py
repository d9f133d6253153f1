"""`python -m jepalab` is the command `jepalab`."""

from jepalab.cli import main

raise SystemExit(main())
