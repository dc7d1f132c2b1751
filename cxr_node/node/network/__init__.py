"""DICOM associations on bounded sockets: PDUs, DIMSE messages, TLS, rejections."""
