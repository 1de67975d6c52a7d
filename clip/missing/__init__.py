"""Missing cases: a sample is complete, or its text or its image is missing."""

COMPLETE = 0
MISSING_TEXT = 1
MISSING_IMAGE = 2
CASES = ("complete", "missing_text", "missing_image")
MISSING_TYPES = ("text", "image", "both")
SPLITS = ("train", "val", "test")  # the order in which the released code draws masks
