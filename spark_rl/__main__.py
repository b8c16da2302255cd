"""`python -m spark_rl` is `spark-rl`."""

import sys

from spark_rl.cli import main

sys.exit(main())
