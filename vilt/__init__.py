"""Convert raw data sets to arrow files in the column layout of ViLT, after which the package is named."""
