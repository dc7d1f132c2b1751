"""Images made from images: augmentation, drawn opacities, out-of-distribution examples."""
