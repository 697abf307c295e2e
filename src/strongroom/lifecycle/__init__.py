"""What happens to stored data over time, and how to see that it is noise to others."""

from strongroom.lifecycle.noise_scan import FileFigure, ScanFinding, ScanReport, scan_directory

__all__ = ["FileFigure", "ScanFinding", "ScanReport", "scan_directory"]
