"""Media in Google Cloud Storage: in this server's own bucket, and in those that rows of imported libraries name."""

from app.storage.google_cloud.buckets import Buckets
from app.storage.google_cloud.home import GoogleHome

__all__ = ["Buckets", "GoogleHome"]
