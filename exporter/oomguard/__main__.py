"""``python -m oomguard``: the command, where its script is not on the path."""

from oomguard.cli import main

raise SystemExit(main())
