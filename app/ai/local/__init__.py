"""The models that work on any machine, offline: Whisper on the CPU, and moments from sentence vectors."""

from app.ai.local.engine import LocalEngine

__all__ = ["LocalEngine"]
