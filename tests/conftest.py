"""``import problems`` in any test finds the file beside it, whatever the import mode."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
