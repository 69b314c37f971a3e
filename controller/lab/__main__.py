"""`python -m controller.lab NAME PORT`: the API process that `controller lab up` starts."""

from __future__ import annotations

import sys

from controller.lab.serve import serve
from controller.model.errors import RatchetError

try:
    serve(sys.argv[1], int(sys.argv[2]))
except RatchetError as error:
    sys.exit(str(error))
