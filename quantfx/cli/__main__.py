"""``python -m quantfx.cli``, where the program ``quantfx`` is not on the path."""

from __future__ import annotations

import sys

from quantfx.cli.program import main

sys.exit(main())
