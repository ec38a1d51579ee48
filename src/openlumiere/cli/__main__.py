"""``python -m openlumiere.cli``, and so ``accelerate launch -m openlumiere.cli train ...``."""

import sys

from openlumiere.cli import main

sys.exit(main())
