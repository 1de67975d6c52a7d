"""Files, errors and images: helpers without knowledge of models or data sets."""
