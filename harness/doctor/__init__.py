"""What is missing on this machine for a run, for its timings, for each part of the work; with the mend.

`examine` gives the findings; torch is asked in a process of its own, so that no device starts here.
"""

from harness.doctor.examining import Finding, Place, examine

__all__ = ["Finding", "Place", "examine"]
