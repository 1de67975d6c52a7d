"""One converter per data set, the arrow writer that they share, and the download of converted files."""
