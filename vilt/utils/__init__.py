"""One writer per data set, one arrow writer for all, and the download of converted files."""
