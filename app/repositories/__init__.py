"""SQL: one repository for each table, a plain class over a connection. A transaction belongs to the caller."""

from app.repositories.videos import VideoRepository

__all__ = ["VideoRepository"]
