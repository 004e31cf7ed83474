"""Media in Google Cloud Storage: in this server's own bucket, and in those that rows of imported libraries name."""

from app.storage.google_cloud.object_store import BucketReader, ObjectStore

__all__ = ["BucketReader", "ObjectStore"]
