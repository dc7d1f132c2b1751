"""What people look at: the annotated picture, the PDF page, HTML."""
