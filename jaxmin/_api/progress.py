"""A progress bar for a solve, with tqdm."""

from typing import Any

import numpy as np

from jaxmin._driver.report import Report


class Bar:
    """The bar of one solve: its iterations, or for a batch the lanes that have ended.

    Args:
      total: the largest possible number of iterations, or None.

    Raises:
      ImportError: if tqdm is not installed.
    """

    def __init__(self, total: int | None = None) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise ImportError("progress=True: the bar needs tqdm; pip install 'jaxmin[progress]'") from error
        self._make, self._total = tqdm, total
        self._bar: Any = None  # made by the first ``show``: the number of lanes is not known before
        self._ended: Any = 0  # for each lane
        self._nit: Any = 0
        self._nfev: Any = 0

    def show(self, due: Any, ended: Any, f: Any, report: Report) -> None:
        """Show a step of all lanes; the numbers of lanes that had ended before are ignored."""
        if self._bar is None:
            whole = {"total": self._total, "unit": "it"} if due.ndim == 0 else {"total": due.size, "unit": "lane"}
            self._bar = self._make(**whole)
            self._ended = np.zeros(due.shape, bool)
            self._nit, self._nfev = np.zeros(due.shape, int), np.zeros(due.shape, int)
        counts = (self._nit, report.nit), (self._nfev, report.nfev)
        self._nit, self._nfev = (np.where(self._ended, old, new) for old, new in counts)
        self._ended = self._ended | ended
        if due.ndim == 0:
            count = int(self._nit)
            figures: dict[str, Any] = {"f": f"{float(f):.6g}"}
            for name, figure in (("|g|", report.gnorm), ("violation", report.violation)):
                if figure is not None:
                    figures[name] = f"{float(figure):.3g}"
            figures["evaluations"] = int(self._nfev)
        else:
            count = int(np.sum(self._ended))
            figures = {"iterations": int(np.max(self._nit)), "evaluations": int(np.sum(self._nfev))}
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update(max(count - self._bar.n, 0))
        if np.all(self._ended):
            self.close()

    def write(self, line: str) -> None:
        """Print a line above the bar."""
        self._make.write(line)

    def close(self) -> None:
        """Leave the bar on the screen, with its last numbers."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
            self._bar = None
