"""Models that run on this machine, offline: Whisper on the CPU, and moments from sentence embeddings."""
