"""Side by side with a plain node, Orthanc and DCMTK: `python -m benchmarks all` writes docs/performance.md anew."""
