"""Raw data sets to arrow files; named after ViLT, whose column layout the field still shares."""
