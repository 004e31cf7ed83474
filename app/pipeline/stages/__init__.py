"""What a run consists of, one module for each stage."""
