"""Files, tables, images and errors: helpers without knowledge of models or data sets."""
