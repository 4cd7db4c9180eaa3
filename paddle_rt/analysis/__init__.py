"""What is in a segmentation data set of image files, and what is wrong with it; needs no Paddle.

`analyse` reads all files on all cores and returns a `Report`: findings in the order in which one acts on them, and the
numbers from which a config is chosen. `paddle-rt check_data` shows it.
"""

from paddle_rt.analysis.analyse import analyse
from paddle_rt.analysis.findings import ADVICE, NONSENSE, STOPS, Finding
from paddle_rt.analysis.report import Report, SplitReport, write_report

__all__ = ["ADVICE", "NONSENSE", "STOPS", "Finding", "Report", "SplitReport", "analyse", "write_report"]
