"""``python -m quantfx.cli``, where the program ``quantfx`` is not on the path."""

import sys

from quantfx.cli.program import main

sys.exit(main())
