"""What is done to bytes of video."""
