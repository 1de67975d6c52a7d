"""Files, tables, images and errors: helpers that do not depend on models or data sets."""
