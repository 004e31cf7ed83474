"""Searching by what was said: words and passages of transcripts, queries, ranking and places to jump to."""
