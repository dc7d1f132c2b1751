"""cxr_node: a DICOM node that reads chest radiographs and answers with coded, explained results.

Research use only. Not a medical device.
"""

__version__ = "0.1.0"
