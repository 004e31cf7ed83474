"""Transcribers and moment finders: local ones and services, each behind one small protocol."""
