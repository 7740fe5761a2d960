"""How long a test waits for what must come: so long that only a hang takes longer, on the busiest machine too.

`HOLDFAST_PATIENCE` sets it, in seconds; `proof/mutants.py` has less, for it looks for hangs.
"""

import os

PATIENCE = float(os.environ.get("HOLDFAST_PATIENCE", "60"))
