"""Radiographs of nobody: a child's chest by formula, for the demo.

Knows no network and no file but those it writes. No image went into these pictures: every shape is an ellipse, a
capsule or a tube, every length in cm was chosen by eye for a child of about four years.

    child      who is drawn: sizes, breath, opacities
    canvas     the detector plane and the shapes on it
    thorax     soft tissue and air along each ray
    skeleton   bone along each ray
    exposure   from path lengths to a film: absorption, scatter, quanta, grey values
    likeness   proof that no drawing is somebody's radiograph
"""
